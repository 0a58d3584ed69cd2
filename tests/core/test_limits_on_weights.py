"""Limits are on what arrives, not on what a file says of itself: memory follows the size of a file of weights."""

from __future__ import annotations

import argparse
import datetime
import json
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_snac.checkpoint import to_published
from tests.helpers.forged_files import Called, Stored, archive, legacy, safetensors, view

MOST_MIB, MOST_SECONDS = 96, 20
"""That reading a file of kilobytes may take."""
HUGE = 1 << 28
KILOBYTE = bytes(1024)


def laughs() -> object:
    """A few hundred bytes that stand for ten to the thirtieth values."""
    level: object = ["ha"] * 10
    for _ in range(30):
        level = [level] * 10
    return level


def itself() -> list[object]:
    inner: list[object] = []
    inner.append(inner)
    return inner


BOMBS = {
    "a stride of nothing": lambda p: archive(p, {"a": view(Stored("0", 256), (HUGE,), (0,))}, {"0": KILOBYTE}),
    "windows over each other": lambda p: archive(p, {"a": view(Stored("0", 256), (200, 57, 1), (1, 1, 1))}, {"0": KILOBYTE}),
    "many in one storage": lambda p: archive(
        p, {str(n): view(Stored("0", 1 << 18), (1 << 18,), (1,)) for n in range(4000)}, {"0": bytes(1 << 20)}
    ),
    "a storage that is not there": lambda p: archive(p, {"a": view(Stored("0", HUGE), (HUGE,), (1,))}, {"0": KILOBYTE}),
    "storages in the same record": lambda p: archive(
        p, {str(n): view(Stored("0", 200 + n), (10,), (1,)) for n in range(2)}, {"0": KILOBYTE}
    ),
    "a tensor beyond its storage": lambda p: archive(p, {"a": view(Stored("0", 256), (HUGE,), (1,))}, {"0": KILOBYTE}),
    "an offset beyond its storage": lambda p: archive(p, {"a": view(Stored("0", 256), (2,), (1,), 1 << 40)}, {"0": KILOBYTE}),
    "a size below nothing": lambda p: archive(p, {"a": view(Stored("0", 256), (-1, -HUGE), (1, 1))}, {"0": KILOBYTE}),
    "more values than there are numbers": lambda p: archive(
        p, {"a": view(Stored("0", 256), (1 << 40, 1 << 40), (0, 0))}, {"0": KILOBYTE}
    ),
    "compressed": lambda p: archive(
        p, {"a": view(Stored("0", 1 << 26), (1 << 26,), (1,))}, {"0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED
    ),
    "a compressed pickle": lambda p: archive(p, b"\x80\x02]" * (1 << 26), {}, zipfile.ZIP_DEFLATED),
    "complex numbers": lambda p: archive(
        p, {"a": view(Stored("0", 64, torch.ComplexDoubleStorage), (64,), (1,))}, {"0": KILOBYTE}
    ),
    "quantised": lambda p: archive(
        p,
        {"a": Called(torch._utils._rebuild_qtensor, Stored("0", 8, torch.QInt8Storage), 0, (HUGE,), (1,), (), False, {})},
        {"0": bytes(8)},
    ),
    "without values": lambda p: torch.save({"a": torch.empty(HUGE, device="meta")}, p),
    "sparse": lambda p: torch.save({"a": torch.sparse_coo_tensor([[0]], [1.0], (HUGE,))}, p),
    "an array of bytes": lambda p: archive(p, {"a": Called(bytearray, HUGE)}, {}),
    "a tensor that is made": lambda p: archive(p, {"a": Called(torch.Tensor, HUGE)}, {}),
    "laughs": lambda p: archive(p, {"metadata": {"kwargs": {"encoder_dim": laughs()}}, "state_dict": {}}, {}),
    "a list in itself": lambda p: archive(p, {"metadata": {"kwargs": itself()}, "state_dict": {}}, {}),
    "nested tuples as a name": lambda p: archive(p, b"\x80\x02})" + b"\x85" * 900_000 + b"Ns.", {}),
    "a far memo": lambda p: archive(p, b"\x80\x02]r\xff\xff\xff\x7f.", {}),
    "many small things": lambda p: archive(p, b"\x80\x02(" + b"}" * 12_000_000 + b"t.", {}),
    "a name of a megabyte": lambda p: archive(p, {"a" * (1 << 20): view(Stored("0", 256), (256,), (1,))}, {"0": KILOBYTE}),
    "where the weights are": lambda p: archive(p, {"pretrained": "a" * (1 << 20)}, {}),
    "safetensors: a name of a megabyte": lambda p: safetensors(
        p, {"a" * (1 << 20): {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}}, KILOBYTE
    ),
    "legacy: a storage that is not there": lambda p: legacy(
        p, {"a": view(Stored("0", HUGE, torch.FloatStorage, None), (HUGE,), (1,))}, {"0": KILOBYTE}
    ),
    "legacy: a stride of nothing": lambda p: legacy(
        p, {"a": view(Stored("0", 256, torch.FloatStorage, None), (HUGE,), (0,))}, {"0": KILOBYTE}
    ),
    "legacy: storages that are not listed": lambda p: legacy(
        p, {"a": view(Stored("0", 256, torch.FloatStorage, None), (256,), (1,))}, {"0": KILOBYTE}, []
    ),
    "legacy: broken off": lambda p: legacy(
        p, {"a": view(Stored("0", 256, torch.FloatStorage, None), (256,), (1,))}, {"0": KILOBYTE[:100]}
    ),
    "safetensors: over each other": lambda p: safetensors(
        p, {str(n): {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]} for n in range(1000)}, KILOBYTE
    ),
    "safetensors: more than there is": lambda p: safetensors(
        p, {"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}, KILOBYTE
    ),
    "safetensors: empty ones": lambda p: safetensors(
        p, {str(n): {"dtype": "F32", "shape": [0, 1 << 40], "data_offsets": [0, 0]} for n in range(60_000)}
    ),
    "copies of a list": lambda p: archive(
        p, b"\x80\x02(c__builtin__\nset\nq\1](" + b"K\1" * 200_000 + b"eq\0" + b"h\1h\0\x85R" * 3000 + b"t.", {}
    ),
    "copies of a size": lambda p: archive(
        p, b"\x80\x02(ctorch\nSize\nq\1](" + b"K\1" * 200_000 + b"eq\0" + b"h\1h\0\x85R" * 3000 + b"t.", {}
    ),
    "copies of a text": lambda p: archive(
        p,
        b"\x80\x02(c_codecs\nencode\nq\1X"
        + struct.pack("<I", 1 << 20)
        + b"a" * (1 << 20)
        + b"q\0X\6\0\0\0latin1\x86q\2"
        + b"h\1h\2R" * 4000
        + b"t.",
        {},
    ),
    "numbers of one hash": lambda p: archive(
        p,
        b"\x80\x02}("
        + b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(1, 100_000))
        + b"u.",
        {},
    ),
    "a key of many parts": lambda p: archive(p, b"\x80\x02}((" + b"K\1" * 200_000 + b"tq\0N" + b"h\0N" * 100_000 + b"u.", {}),
    "safetensors: a header of a size": lambda p: p.write_bytes(struct.pack("<Q", 1 << 39) + b"{" + KILOBYTE),
}
MEASURE = """
import gc, json, sys, time
from pathlib import Path
import blazen_codec_core as bc

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

bc.load("dac_tiny", device="cpu").load()
gc.freeze()  # what there is now need not be looked at each time
for path in sys.argv[1:]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, started, said = peak(), time.process_time(), "it was taken"
    try:
        bc.load("dac_tiny", weights=path, device="cpu").load()
    except bc.WeightsUnavailable as error:
        said = str(error)
    print(json.dumps([path, peak() - before, time.process_time() - started, said]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read where Linux keeps them")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_files_take_no_more_memory_than_they_bring(tmp_path):
    paths = []
    for number, (name, make) in enumerate(BOMBS.items()):
        paths.append(tmp_path / f"{number}.{'safetensors' if name.startswith('safetensors') else 'pth'}")
        make(paths[-1])
    run = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-1000:]
    measured = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(measured) == len(BOMBS)
    for name, (path, grown, seconds, said) in zip(BOMBS, measured, strict=True):
        assert Path(path).name in said, f"{name}: {said}"
        assert len(said) < 600, name
        assert grown < MOST_MIB + 2 * Path(path).stat().st_size / 2**20, f"{name} took {grown:.0f} MiB"
        assert seconds < MOST_SECONDS, f"{name} took {seconds:.0f} s"


KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)
KINDS += (torch.float8_e4m3fn, torch.uint16)


def like_any() -> dict[str, object]:
    """What state dicts and the files of trainers hold."""
    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict({f"{kind}": torch.tensor([0, 1, 1, 0]).to(kind) for kind in KINDS})
    state |= {"turned": base.T, "part": base[1:3, ::2], "same": base, "again": base.view(-1), "one": torch.tensor(3.0)}
    state |= {"none": torch.empty(0, 7), "parameter": torch.nn.Parameter(base + 1), "spread": torch.ones(1).expand(5)}
    made = torch.nn.Linear(2, 3).state_dict()  # which has attributes of its own
    settings = {"rates": [2, 4], "name": "x", "size": base.shape, "device": base.device, "kind": torch.float16, "bytes": b"ab"}
    return {"state_dict": state, "made": made, "optimizer": {"state": {0: {"step": 1}}, 1: None}, "kwargs": settings, "lr": 1e-4}


@pytest.mark.parametrize(
    "how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}], ids=str
)
def test_checkpoints_hold_what_pytorch_reads_in_them(tmp_path, how):
    content = like_any()
    torch.save(content, tmp_path / "w.pth", **how)
    found = state_dicts.read(tmp_path / "w.pth")
    assert found["kwargs"]["rates"] == [2, 4]
    assert found["kwargs"]["bytes"] == b"ab"
    assert found["kwargs"]["size"] == (4, 6)
    assert found["optimizer"] == content["optimizer"]
    for part in ("state_dict", "made"):
        assert list(found[part]) == list(content[part])
        for name, tensor in content[part].items():
            assert found[part][name].dtype == tensor.dtype
            assert found[part][name].tolist() == tensor.detach().tolist(), name
    assert found["state_dict"]["same"].data_ptr() == found["state_dict"]["again"].data_ptr()


class Trainer:
    """What trainers save beside their weights, and is made by code."""

    def __init__(self) -> None:
        self.epoch, self.model = 3, [torch.zeros(2)]


BESIDE = {
    "an object": Trainer(),
    "numpy": {"loss": np.float64(0.1), "curve": np.arange(5.0), "state": np.random.default_rng(0).bit_generator.state},
    "settings": argparse.Namespace(lr=1e-4, rates=[2, 4]),
    "containers": [Counter("abc"), defaultdict(list, a=[1]), frozenset({1, 2}), {3, 4}, bytearray(b"ab"), deque([1]), range(3)],
    "numbers": [1 + 2j, 2**100, Fraction(1, 3), Decimal("0.1")],
    "a path and a time": [Path("a"), datetime.datetime(2026, 1, 1)],
    "a long history": [0.5] * 250_000,
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "generator"])
def test_weights_are_found_beside_what_only_code_could_make(tmp_path, name, protocol):
    codec = bc.load("snac_tiny", device="cpu")
    codec.load()
    weights = to_published(codec.backend.loaded().network)
    torch.save({"epoch": 3, **BESIDE, name: weights}, tmp_path / "w.pth", pickle_protocol=protocol)
    other = bc.load("snac_tiny", weights=tmp_path / "w.pth", device="cpu")
    pcm = voice(0.3, 24_000)
    assert [code.tolist() for code in other.encode(pcm, 24_000).codes] == [
        code.tolist() for code in codec.encode(pcm, 24_000).codes
    ]


@pytest.mark.parametrize("content", [Trainer(), {"encoder.a": Trainer()}, torch.nn.Linear], ids=["object", "in it", "class"])
def test_objects_in_place_of_weights_are_named(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(
        bc.WeightsUnavailable, match=r"(Trainer|Linear).*objects that need code are never created.*state dict alone"
    ):
        bc.load("snac_tiny", weights=tmp_path / "w.pth", device="cpu").load()


def test_messages_can_be_printed(tmp_path):
    """Names of tensors and files may hold halves of characters."""
    torch.save({"\ud800": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(bc.WeightsUnavailable) as refused:
        bc.load("snac_tiny", weights=tmp_path / "w.pth", device="cpu").load()
    assert str(refused.value).encode()
    with pytest.raises(bc.CodecError) as refused:
        bc.read_audio("no\udcff.wav")
    assert "no\\udcff.wav" in str(refused.value)


def test_a_compressed_file_says_what_to_do(tmp_path):
    BOMBS["compressed"](tmp_path / "w.pth")
    with pytest.raises(bc.WeightsUnavailable, match=r"is compressed.*save its state dict again"):
        bc.load("dac_tiny", weights=tmp_path / "w.pth", device="cpu").load()


def test_a_config_is_no_larger_than_configs_are(tmp_path):
    safetensors(tmp_path / "model.safetensors", {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
    (tmp_path / "config.json").write_text("[" + "0," * (1 << 20) + "0]")
    with pytest.raises(bc.WeightsUnavailable, match="a config has at most 1048576"):
        bc.load("dac", weights=tmp_path, device="cpu", architecture="from-weights").load()

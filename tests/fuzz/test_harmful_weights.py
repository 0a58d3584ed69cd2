"""Files of weights and configs that mean harm, and who speaks to a server from elsewhere."""

from __future__ import annotations

import json
import struct
from collections import OrderedDict

import pytest
import torch
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance import strategies
from blazen_codec_core.server.hosts import Hosts
from blazen_codec_encodec import audiocraft
from tests.helpers.forged_files import Called, Stored, archive, legacy, pickled, safetensors, view
from tests.helpers.fuzzing import forget_peak, peak, throw
from tests.helpers.toy_codec import SPEC, ToyBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::blazen_codec_core.errors.UnknownSettingsNotice"),
]
MEMORY = 250
"""MiB that the process may grow by at its peak over all cases."""
absurd = st.sampled_from([-1, 0, 1, 2, 255, 256, 257, 2**31 - 1, 2**31, 2**40, 2**47, 2**61, 2**63, 2**70, None, "x", 1.5, True])
sizes = st.lists(absurd, max_size=4).map(tuple)


@pytest.fixture(scope="module", autouse=True)
def memory():
    toy(None)
    forget_peak()
    before = peak()
    yield
    grown = peak() - before
    assert grown < MEMORY, f"the process grew by {grown:.0f} MiB"


def toy(path):
    """The toy codec with the weights in a file."""
    backend = ToyBackend(SPEC, bc.LoadOptions(weights="random:0" if path is None else str(path), device="cpu"))
    backend.load()
    return backend


STATE = {
    name: tensor.clone()
    for name, tensor in ToyBackend(SPEC, bc.LoadOptions(weights="random:0", device="cpu")).loaded().network.state_dict().items()
}
NAME = min(STATE)


class TestCheckpoints:
    def test_damaged_ones_of_before_1_6(self, tmp_path):
        path = tmp_path / "w.bin"
        torch.save(STATE, path, _use_new_zipfile_serialization=False)

        def work(data):
            path.write_bytes(data)
            toy(path)

        throw("checkpoints before 1.6", 500, strategies.damaged(path.read_bytes()), work)

    @pytest.mark.parametrize(
        ("kind", "write", "more"),
        [("claims of checkpoints", archive, ()), ("claims before 1.6", legacy, (None,))],
        ids=["new", "old"],
    )
    def test_claims(self, tmp_path, kind, write, more):
        """Storages and tensors of absurd sizes, over each other, beyond their ends."""
        path = tmp_path / "w.bin"
        types = st.sampled_from(
            [torch.FloatStorage, torch.DoubleStorage, torch.ComplexDoubleStorage, torch.QInt8Storage, torch.BoolStorage]
        )
        makers = st.sampled_from(
            [
                torch._utils._rebuild_tensor_v2,
                torch._utils._rebuild_tensor_v3,
                torch._utils._rebuild_qtensor,
                torch.Tensor,
                OrderedDict,
            ]
        )
        tensors = st.tuples(absurd, types, absurd, sizes, sizes, makers, st.sampled_from(["0", "1", "../0", 0]))

        def work(case):
            made = {}
            for number, (values, storage, offset, size, stride, maker, key) in enumerate(case):
                stored = Stored(key, values, storage, *more)
                made[f"{NAME}{number or ''}"] = Called(maker, stored, offset, size, stride, False, OrderedDict())
            write(path, {**made}, {"0": bytes(1024), "1": bytes(3)})
            toy(path)

        throw(kind, 500, st.lists(tensors, min_size=1, max_size=3), work)

    def test_programs(self, tmp_path):
        """Pickles of any opcodes."""
        path = tmp_path / "w.bin"
        whole = pickled({NAME: view(Stored("0", 256), (256,), (1,))})
        single = [bytes([code]) for code in b")]}(N02t\x85\x86\x87aesuRbQ\x81\x8f\x90"]
        numbers = [b"K\x05", b"J\xff\xff\xff\x7f", b"I1\n", b"\x8b\xff\xff\xff\x7f", b"L" + b"9" * 400 + b"L\n"]
        texts = [b"X\x01\0\0\0a", b"X\xff\xff\xff\xff", b"\x8d" + struct.pack("<Q", 2**40)]
        memo = [b"q\x01", b"r\xff\xff\xff\x7f", b"h\x01"]
        named = [
            b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"cos\nsystem\n",
            b"cbuiltins\nbytearray\n",
        ]
        steps = st.sampled_from([*single, *numbers, *texts, *memo, *named])
        programs = st.lists(steps, max_size=30).map(lambda parts: b"\x80\x02" + b"".join(parts) + b".")
        cases = st.one_of(programs, programs, strategies.damaged(whole))

        def work(program):
            archive(path, program, {"0": bytes(1024)})
            toy(path)

        throw("programs", 700, cases, work)

    def test_claims_of_safetensors(self, tmp_path):
        path = tmp_path / "w.safetensors"
        entry = st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F64", "C64", "F8_E4M3", "BOOL", "F4", "nothing", 3]),
                "shape": st.one_of(st.just([256]), sizes.map(list)),
                "data_offsets": st.one_of(st.just([0, 1024]), st.lists(absurd, max_size=3)),
            }
        )
        headers = st.dictionaries(st.sampled_from([*STATE, "__metadata__", "x"]), st.one_of(entry, absurd), max_size=4)

        def work(header):
            safetensors(path, header, bytes(1024))
            toy(path)

        throw("claims of safetensors", 500, headers, work)


class TestConfigs:
    def test_settings_in_a_checkpoint(self):
        architecture = bc.Registry().find("encodec_tiny").spec.architecture
        text = "sample_rate: 16000\nseanet:\n  ratios: [5, 4, 2]\n  causal: ${encodec.causal}\nencodec: {causal: true}\n"
        damaged = strategies.damaged(text.encode()).map(lambda data: data.decode("utf-8", "replace"))
        laughs = st.integers(1, 60).map(
            lambda n: "a0: &a0 [1]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, n))
        )
        odd = st.sampled_from(
            ["{" * 900, "? " * 500, "sample_rate: " + "9" * 5000, "sample_rate: 1:99:99", "a: !!python/none", "\0"]
        )
        cases = st.one_of(damaged, damaged, laughs, odd, st.text(max_size=40))
        throw("settings", 400, cases, lambda text: audiocraft.check({"xp.cfg": text}, architecture, "w.th", "encodec_tiny"))

    @pytest.mark.parametrize("family", ["dac", "encodec", "mimi", "qwen3tts", "snac"])
    def test_configs(self, tmp_path, family):
        """Of models that claim to be anything, beside a file of a kilobyte."""
        safetensors(
            tmp_path / "model.safetensors", {"a": {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}}, bytes(1024)
        )
        kind = type(bc.Registry().find(family).spec.architecture)
        known = sorted(kind.known_names())
        fields = sorted(kind.model_fields)
        number = st.one_of(absurd, sizes.map(list))
        changes = st.dictionaries(st.one_of(st.sampled_from(fields), st.sampled_from(known)), number, max_size=4)

        def work(config):
            (tmp_path / "config.json").write_text(json.dumps(config))
            bc.load(family, weights=tmp_path, device="cpu", architecture="from-weights").load()

        throw(f"configs of {family}", 100, changes, work)


class TestVisitors:
    words = (
        "http",
        "https",
        "://",
        "//",
        "%00",
        "127.0.0.1",
        "localhost",
        "::1",
        "evil.example",
        "80",
        "8765",
        "65536",
        "null",
        "\xff",
    )
    parts = st.lists(
        st.sampled_from([*words, *":/@#?\\[]\0 \t."]),
        max_size=7,
    ).map("".join)

    def test_origins(self):
        """None opens a connection but ours."""
        hosts = Hosts(names=["codecs.example"])

        def work(origin):
            if not hosts.may_come_from([origin], "127.0.0.1:8765"):
                raise bc.InvalidInput(f"refused: {origin!r}")
            assert origin in (
                "http://127.0.0.1:8765",
                "https://127.0.0.1:8765",
                "http://127.0.0.1.:8765",
                "https://127.0.0.1.:8765",
            )

        throw("origins", 600, st.one_of(self.parts, st.just("http://127.0.0.1:8765"), st.text(max_size=20)), work)

    def test_hosts(self):
        def work(case):
            said, host = case
            if not Hosts(host).is_ours(said):
                raise bc.InvalidInput(f"refused: {said!r}")
            assert "evil" not in said

        throw(
            "hosts",
            400,
            st.tuples(st.one_of(self.parts, st.text(max_size=20)), st.sampled_from(["127.0.0.1", "0.0.0.0", "::1"])),
            work,
        )

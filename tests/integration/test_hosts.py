"""The tokens are the same whatever settings the process has that calls us, and its settings are the same afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.torch_backend.guard import inference_guard

TINY = ("snac_tiny", "encodec_tiny", "dac_tiny")


@contextlib.contextmanager
def set_to(change, value, before):
    change(value)
    try:
        yield
    finally:
        change(before)


def set_precision(value: str) -> None:
    torch.backends.fp32_precision = value


SETTINGS = {
    "default dtype bfloat16": lambda: set_to(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default dtype float16": lambda: set_to(torch.set_default_dtype, torch.float16, torch.float32),
    "default dtype float64": lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: set_to(torch.set_default_device, "meta", None),
    "a device around the call": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "rough products": lambda: set_to(torch.set_float32_matmul_precision, "medium", "highest"),
    "rough operations": lambda: set_to(set_precision, "bf16", "none"),
    "deterministic algorithms": lambda: set_to(torch.use_deterministic_algorithms, True, False),
    "one thread": lambda: set_to(torch.set_num_threads, 1, torch.get_num_threads()),
    "denormals are zero": lambda: set_to(torch.set_flush_denormal, True, False),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "NumPy raises": lambda: np.errstate(all="raise"),
    "warnings are errors": lambda: warnings.catch_warnings(action="error"),
}


def settings() -> tuple:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.fp32_precision,
        *(getattr(torch.backends.mkldnn, operation).fp32_precision for operation in ("matmul", "conv", "rnn")),
    )


def signal(codec: bc.DynCodecProvider) -> np.ndarray:
    return np.stack([voice(0.9, codec.sample_rate, seed) for seed in range(codec.channels)])


def everything(codec: bc.DynCodecProvider) -> tuple:
    """What every way to encode and decode gives."""
    pcm, rate = signal(codec), codec.sample_rate
    tokens = codec.encode(pcm, rate)
    batch = codec.encode_batch([pcm[:, : rate // 7], pcm[:, : rate // 3]], rate)
    session, player = codec.encoder_session(), codec.decoder_session()
    pieces = [session.push(pcm[:, : rate // 2]), session.push(pcm[:, rate // 2 :]), session.finish()]
    audio = [codec.decode(tokens), *codec.decode_batch(batch), *(player.push(piece) for piece in pieces), player.finish()]
    return [tokens, *batch, *pieces], audio


@pytest.fixture(scope="module", params=TINY)
def usual(request):
    codec = bc.load(request.param, device="cpu")
    return codec, everything(codec)


@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_do_not_depend_on_it(usual, setting):
    codec, expected = usual
    check_tokens(codec, setting, *expected)


@pytest.fixture(scope="module")
def of_snac():
    return everything(bc.load("snac_tiny", device="cpu"))


@pytest.mark.parametrize("setting", SETTINGS)
def test_nor_on_where_a_codec_was_loaded(of_snac, setting):
    check_tokens(bc.load("snac_tiny", device="cpu"), setting, *of_snac)


def check_tokens(codec, setting, wanted, audio):
    with SETTINGS[setting]():
        before = settings()
        tokens, decoded = everything(codec)
        assert settings() == before
    assert tokens == wanted
    assert all(made.dtype == np.float32 for made in decoded)
    assert max(np.abs(made - own).max(initial=0) for made, own in zip(decoded, audio, strict=True)) < 1e-6


@pytest.mark.parametrize("setting", ["default device", "autocast", "rough products"])
@pytest.mark.parametrize("name", TINY)
def test_nor_do_those_of_the_authors_packages(name, setting):
    codec = bc.load(name, device="cpu", engine="upstream")
    pcm = signal(codec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokens = codec.encode(pcm, codec.sample_rate)
        with SETTINGS[setting]():
            assert codec.encode(pcm, codec.sample_rate) == tokens


@pytest.mark.parametrize("loaded", [True, False])
def test_the_authors_packages_say_which_dtype_they_need(loaded):
    codec = bc.load("dac_tiny", device="cpu", engine="upstream")
    if loaded:
        codec.load()
    with SETTINGS["default dtype float64"](), pytest.raises(bc.InferenceError, match=r"torch\.float64.*engine='native'"):
        codec.encode(signal(codec), codec.sample_rate)


@pytest.mark.parametrize("name", TINY)
def test_no_generator_of_the_host_is_drawn_from(name):
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    codec = bc.load(name, weights="random:3", device="cpu")
    codec.decode(codec.encode(signal(codec), codec.sample_rate))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_other_threads_keep_their_settings_while_a_call_runs():
    """Autocast, devices and numbers of threads belong to a thread; a default dtype does not, and so is not touched."""
    seen = []
    with torch.autocast("cpu", dtype=torch.bfloat16), SETTINGS["default dtype float64"](), inference_guard():
        assert not torch.is_autocast_enabled("cpu")
        thread = threading.Thread(target=lambda: seen.append((torch.get_default_dtype(), torch.get_default_device())))
        thread.start()
        thread.join()
    assert seen == [(torch.float64, torch.device("cpu"))]


PROGRAM = """
import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
codec = bc.load("snac_tiny", device="cpu")
pcm = voice(0.5, 24_000)
tokens = codec.encode(pcm, 24_000)
tokens.save("a.tokens")
bc.write_audio("a.wav", codec.decode(bc.CodecTokens.open("a.tokens")), 24_000)
print(len(bc.read_audio("a.wav")[0]), bc.list_codecs()[0].name)
"""


def test_a_default_device_that_is_not_there(usual):
    if torch.cuda.is_available():
        pytest.skip("it is there")
    codec, (wanted, _) = usual
    with set_to(torch.set_default_device, "cuda", None):
        assert codec.encode(signal(codec), codec.sample_rate) == wanted[0]


THREADS = """
import hashlib, sys, torch, blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
for name in ("snac_tiny", "encodec_tiny", "dac_tiny"):
    codec = bc.load(name, device="cpu")
    tokens = codec.encode(voice(0.25, 24_000), 24_000)
    print(hashlib.sha256(b"".join(code.tobytes() for code in tokens.codes)).hexdigest(), abs(codec.decode(tokens)).sum().round(3))
print(torch.get_num_threads(), file=sys.stderr)
"""


@pytest.mark.slow
def test_openmp_that_gives_fewer_threads_than_it_says():
    """oneDNN leaves undone what threads that are not there should have done."""
    found = []
    for environment in (
        {},
        {"OMP_THREAD_LIMIT": "1"},
        {"OMP_DYNAMIC": "true"},
        {"OMP_THREAD_LIMIT": "2", "OMP_NUM_THREADS": "4"},
    ):
        run = subprocess.run(
            [sys.executable, "-c", THREADS],
            env={**os.environ, "OMP_NUM_THREADS": "3", **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        )
        found.append((run.stdout, run.stderr))
    assert len({out for out, _ in found}) == 1
    assert found[0][1] == found[1][1] == found[2][1]  # the process still has as many threads as it had


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["-OO", "-X", "warn_default_encoding", "-W", "error::EncodingWarning:blazen_codec_core"], {}),
        (
            [],
            {
                "LC_ALL": "C",
                "PYTHONUTF8": "0",
                "PYTHONCOERCECLOCALE": "0",
                "HOME": "/nowhere",
                "XDG_CACHE_HOME": "/nowhere/else",
                "TMPDIR": "/nowhere",
            },
        ),
    ],
    ids=["-OO and default encodings", "no UTF-8 and no place for anything"],
)
def test_other_interpreters(tmp_path, options, environment):
    run = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("1 ")

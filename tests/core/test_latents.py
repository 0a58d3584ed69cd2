"""`encode_latents` and `decode_latents`, and codecs that have nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import blazen_codec_core as bc
from blazen_codec_core.conformance import ContinuousContracts
from blazen_codec_core.nn import ContinuousNetwork, Conv1d, ConvTranspose1d, Sequential, Tanh
from blazen_codec_core.server.catalog import CodecCatalog
from blazen_codec_core.template import write_plugin
from tests.helpers.toy_codec import SPEC, ToyBackend

CONTINUOUS = bc.CodecSpec(
    **SPEC.model_dump(exclude_unset=True, exclude={"name", "strides", "codebook_size", "weights"}),
    name="toy_vae",
    latent_channels=3,
    weights=SPEC.weights,
)


class ToyVae(ContinuousNetwork):
    latent_channels = 3

    def __init__(self):
        super().__init__()
        self.encoder = Sequential([Conv1d(1, 6, 8, stride=4, padding=2)])
        self.decoder = Sequential([ConvTranspose1d(3, 1, 8, stride=4, crop=(2, 2)), Tanh()])


class ToyVaeBackend(ToyBackend):
    def new_network(self):
        return ToyVae()


def vae(**options):
    return ToyVaeBackend(CONTINUOUS, bc.LoadOptions(weights="random:0", device="cpu", **options))


def noise(samples, channels=1):
    return np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32) * 0.1


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny", "encodec_tiny"])
class TestCodecsWithTokens:
    def test_latents_are_what_is_quantized(self, codecs, name):
        codec = codecs(name)
        pcm = noise(2 * codec.sample_rate)
        latents, tokens = codec.encode_latents(pcm, codec.sample_rate), codec.encode(pcm, codec.sample_rate)
        assert latents.shape == (codec.spec.latent_channels, tokens.frames)
        quantizer = codec.backend.loaded().network.quantizer
        with torch.inference_mode():
            state = quantizer.init_state(codec.backend.setup(1), tokens.num_codebooks)
            codes = quantizer.step(torch.from_numpy(latents.T.copy())[None], state)
        assert all(np.array_equal(a.numpy(), b) for a, b in zip(codes, tokens.codes, strict=True))

    def test_the_latent_of_tokens_decodes_as_they_do(self, codecs, name):
        codec = codecs(name)
        tokens = codec.encode(noise(2 * codec.sample_rate + 7), codec.sample_rate)
        with torch.inference_mode():
            codes = [torch.from_numpy(code.astype(np.int64)) for code in tokens.codes]
            latents = codec.backend.loaded().network.latent(codes)[0].T.numpy()
        assert np.array_equal(codec.decode_latents(latents, tokens.num_samples), codec.decode(tokens))

    def test_it_agrees_with_the_whole_network(self, codecs, name):
        codec = codecs(name)
        pcm = noise(codec.spec.block_frames * codec.spec.hop_length * 9)
        with torch.inference_mode():
            z = codec.backend.loaded().network.encoder(torch.from_numpy(pcm[..., None]))
        assert np.allclose(codec.encode_latents(pcm, codec.sample_rate), z[0].T.numpy(), atol=1e-4)


async def test_async_twins(codecs):
    codec = codecs("snac_tiny")
    pcm = noise(5000)
    latents = codec.encode_latents(pcm, 24_000)
    assert np.array_equal(await codec.aencode_latents(pcm, 24_000), latents)
    assert np.array_equal(await codec.adecode_latents(latents, 5000), codec.decode_latents(latents, 5000))


def test_segments_and_other_backends_give_none():
    segments = bc.load("encodec_48khz", weights="random:0", device="cpu")
    for call in (lambda: segments.encode_latents(noise(48_000, 2), 48_000), lambda: segments.decode_latents(noise(10, 128))):
        with pytest.raises(bc.NotYetImplemented, match="encodec_48khz gives no latents"):
            call()
    assert not segments.is_loaded


class TestContinuous:
    def test_the_mean_is_the_latent(self):
        codec, pcm = vae(), noise(400)
        latents = codec.encode_latents(pcm, 8000)
        with torch.inference_mode():
            both = codec.loaded().network.encoder(torch.from_numpy(pcm[..., None]))
        assert latents.shape == (3, 100)
        assert np.allclose(latents, both[0, :, :3].T.numpy(), atol=1e-6)
        assert codec.decode_latents(latents).shape == (1, 400)

    @pytest.mark.parametrize("half", ["encoder", "decoder"])
    def test_halves(self, half):
        codec, pcm = vae(parts=half), noise(40)
        latents = vae().encode_latents(pcm, 8000)
        if half == "encoder":
            assert np.array_equal(codec.encode_latents(pcm, 8000), latents)
            with pytest.raises(bc.InvalidInput, match="cannot decode"):
                codec.decode_latents(latents)
        else:
            assert np.array_equal(codec.decode_latents(latents), vae().decode_latents(latents))
            with pytest.raises(bc.InvalidInput, match="cannot encode"):
                codec.encode_latents(pcm, 8000)

    def test_tokens_are_refused_in_words(self):
        codec, words = vae(), "toy_vae is a continuous codec: it has latents and no tokens; use encode_latents"
        tokens = bc.CodecTokens.from_codes(SPEC, [np.zeros((1, 4), int), np.zeros((1, 8), int)])
        for call in (
            lambda: codec.encode(noise(400), 8000),
            lambda: codec.encode_batch([], 8000),
            lambda: codec.decode(tokens),
            lambda: codec.decode_batch([]),
            lambda: codec.decoded_loudness(tokens),
            lambda: codec.encode_pcm(noise(400)[0], 8000),
            lambda: codec.decode_tokens([1, 2], 1),
            codec.encoder_session,
            codec.decoder_session,
            lambda: bc.CodecTokens.from_codes(CONTINUOUS, [np.zeros((1, 4), int)]),
            lambda: bc.Registry().layout("orpheus").unpack([1, 2], CONTINUOUS),
            CONTINUOUS.codebooks_for,
            lambda: CONTINUOUS.codebooks_for(num_codebooks=1),
        ):
            with pytest.raises(bc.NotYetImplemented, match=words):
                call()

    def test_numbers_of_the_spec(self):
        assert CONTINUOUS.is_continuous
        assert not SPEC.is_continuous
        assert (CONTINUOUS.num_codebooks, CONTINUOUS.used_codebooks, CONTINUOUS.usable_codebooks) == (0, 0, ())
        assert (CONTINUOUS.bandwidth, CONTINUOUS.token_rate, CONTINUOUS.bandwidths) == (0, 0, ())
        assert CONTINUOUS.codebook_numbers == "0"

    @pytest.mark.parametrize(
        "change",
        [
            {"latent_channels": None},
            {"latent_channels": 0},
            {"codebook_size": 4},
            {"codebook_choices": (1,)},
            {"token_extras": ("a",)},
        ],
    )
    def test_specs_that_are_neither(self, change):
        with pytest.raises(ValidationError):
            bc.CodecSpec(**{**CONTINUOUS.model_dump(exclude_unset=True), **change})


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment with what `new-plugin --continuous` writes."""
    folder = tmp_path_factory.mktemp("plugin")
    project = write_plugin("vae", folder, continuous=True)
    metadata = project / "vae_codec-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vae-codec\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[blazen_codec]\nvae = vae_codec.plugin\n")
    places = [str(project), os.environ.get("PYTHONPATH", "")]

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, cwd=project
        )

    return run


COMMANDS = """
import contextlib, io, json, sys
from blazen_codec_core.cli.main import main

done = []
for arguments in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            code = stopped.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""
"""Runs several commands in a process of the environment."""


class TestGenerated:
    @pytest.mark.slow
    def test_its_tests_and_the_kit(self, installed):
        tests = installed("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::RuntimeWarning", "-k", "not anything")
        assert tests.returncode == 0, tests.stdout
        kit = installed("-m", "pytest", "-p", "no:cacheprovider", "--codec", "vae_16khz", "-k", "shapes or tokens")
        assert kit.returncode == 0, kit.stdout
        assert "holds Latents         finite float32" in kit.stdout
        assert "holds Declared        it has no tokens" in kit.stdout

    @pytest.mark.slow
    def test_commands(self, installed, root, tmp_path):
        def commands(*several):
            run = installed("-c", COMMANDS, json.dumps(several))
            assert run.returncode == 0, run.stderr
            return json.loads(run.stdout)

        speech = str(root / "examples" / "speech.flac")
        refused = (
            ("encode", speech, "-c", "vae_16khz", "-o", str(tmp_path / "a.tokens")),
            ("roundtrip", speech, "-c", "vae_16khz", "-o", str(tmp_path / "a.wav")),
            ("tokenize", speech, "-c", "vae_16khz", "-o", str(tmp_path / "out")),
            ("evaluate", "vae_16khz", "--audio", speech, "--no-pesq"),
            ("compare", speech, "-c", "vae_16khz", "-o", str(tmp_path / "a.html")),
            ("serve", "-c", "vae_16khz", "--port", "0"),
        )
        taken = (("list",), ("info", "vae_16khz"), ("info", "vae_16khz", "--json"), ("list", "--json"), ("warm-up", "vae_16khz"))
        done = commands(*taken, *refused)
        assert [code for code, _, _ in done[: len(taken)]] == [0] * len(taken)
        listed, info, _, _, warm_up = (out for _, out, _ in done[: len(taken)])
        assert "latents of 8 channels" in listed
        assert "none; it is a continuous codec" in info
        assert "8 channels at 100.00 Hz" in info
        assert "vae:vae_16khz" in warm_up
        for arguments, (code, _, err) in zip(refused, done[len(taken) :], strict=True):
            assert code, arguments
            assert "it has latents and no tokens" in err, (arguments, err)
        assert not list(tmp_path.iterdir())


def test_the_server_offers_only_codecs_with_tokens():
    assert {entry["name"] for entry in CodecCatalog().offer()["systems"]} >= {"snac_tiny"}


def test_contracts_are_for_one_kind():
    names = {name for name in dir(ContinuousContracts) if name.startswith("test_")}
    assert {"test_there_are_no_tokens", "test_the_shapes_of_latents", "test_constructing"} <= names
    assert "test_encoding_in_pieces" not in names

"""`load(..., parts=...)`: half a model gives what the whole gives, and the other half is neither built nor read."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import blazen_codec_core as bc
from blazen_codec_core.cli.main import main
from blazen_codec_core.dataset.jobs.detokenize import DetokenizeJob
from blazen_codec_core.dataset.jobs.tokenize import TokenizeJob
from blazen_codec_core.nn import halves
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.nn.checkpoints.unread import Unread
from blazen_codec_core.nn.layers.base import StreamingModule
from blazen_codec_core.nn.layers.deferral import deferred_parameters
from blazen_codec_core.torch_backend.backend import TorchCodecBackend
from tests.helpers.toy_codec import SPEC, ToyBackend, ToyNetwork

TINY = ("snac_tiny", "dac_tiny", "encodec_tiny")
HALVES = ("encoder", "decoder")


def noise(codec: bc.DynCodecProvider, seconds: float = 0.5):
    count = int(seconds * codec.sample_rate)
    return np.random.default_rng(0).standard_normal((codec.channels, count)).astype(np.float32) * 0.1


def toy(weights, half=None, kind=ToyBackend):
    return kind(SPEC, bc.LoadOptions(weights=str(weights), device="cpu", parts=half))


@pytest.fixture
def toy_state():
    torch.manual_seed(0)
    return {name: torch.randn_like(tensor) * 0.1 for name, tensor in ToyNetwork().state_dict().items()}


@pytest.fixture(params=["safetensors", "bin", "legacy"])
def toy_file(request, toy_state, tmp_path):
    path = tmp_path / f"model.{'safetensors' if request.param == 'safetensors' else 'bin'}"
    if request.param == "safetensors":
        save_file(toy_state, path)
    else:
        torch.save({"state_dict": toy_state, "epoch": 3}, path, _use_new_zipfile_serialization=request.param == "bin")
    return path


class TestBuild:
    """One half of the network."""

    @pytest.mark.parametrize("name", TINY)
    @pytest.mark.parametrize("weights", [None, "random:3"])
    def test_results_and_labels_are_those_of_the_whole(self, codecs, name, weights):
        whole = codecs(name, weights=weights)
        encoder, decoder = (bc.load(name, weights=weights, device="cpu", parts=half) for half in HALVES)
        pcm = noise(whole)
        tokens = encoder.encode(pcm, whole.sample_rate)
        assert tokens == whole.encode(pcm, whole.sample_rate)
        assert tokens.weights == whole.weights_label == decoder.weights_label
        assert np.array_equal(decoder.decode(tokens), whole.decode(tokens))  # warnings such as OtherWeightsNotice are errors
        assert np.array_equal(decoder.decode_batch([tokens] * 2)[1], whole.decode(tokens))
        kept = [sum(parameter.numel() for parameter in c.backend.loaded().network.parameters()) for c in (encoder, decoder)]
        books = sum(parameter.numel() for parameter in whole.backend.loaded().network.quantizer.parameters())
        assert sum(kept) - books == sum(parameter.numel() for parameter in whole.backend.loaded().network.parameters())

    @pytest.mark.parametrize("name", TINY)
    @pytest.mark.parametrize("half", HALVES)
    def test_the_embedded_models_take_the_short_way(self, name, half, monkeypatch):
        codec = bc.load(name, device="cpu", parts=half)
        monkeypatch.setattr(codec.backend, "_read", lambda *arguments: pytest.fail("everything was read"))
        codec.load()

    @pytest.mark.parametrize("half", HALVES)
    def test_values_of_the_other_half_are_not_read(self, toy_file, half, monkeypatch):
        backend, seen = toy(toy_file, half), {}
        convert = backend.from_published

        def watched(network, content, origin):
            content = content.get("state_dict", content)
            seen.update({name: isinstance(tensor, Unread) for name, tensor in content.items()})
            return convert(network, content, origin)

        monkeypatch.setattr(backend, "from_published", watched)
        network = backend.build(bc.weights.WeightFile(toy_file))
        other = halves.OTHER[half]
        assert seen == {name: name in (f"{other}.layers.0.weight",) for name in seen}  # vectors are small
        for name, parameter in network.named_parameters():
            assert not parameter.is_meta
            assert not name.startswith(other)

    @pytest.mark.parametrize("half", HALVES)
    def test_unread_storages_of_a_pickle_are_not_filled(self, toy_state, tmp_path, half, monkeypatch):
        from blazen_codec_core.nn.checkpoints import reader

        filled, fill = [], reader._fill
        monkeypatch.setattr(reader, "_fill", lambda *arguments: (filled.append(len(arguments[2])), fill(*arguments)))
        torch.save(toy_state, tmp_path / "model.bin")
        state_dicts.read(tmp_path / "model.bin")
        everything, filled[:] = sum(filled), []
        toy(tmp_path / "model.bin", half).load()
        unread = toy_state[f"{halves.OTHER[half]}.layers.0.weight"].nbytes
        assert sum(filled) == everything - unread

    def test_no_heavy_imports(self, root):
        code = (
            "import sys, blazen_codec_core as bc\n"
            "for half in ('encoder', 'decoder'):\n"
            "    for name in ('snac_tiny', 'dac_tiny'):\n"
            "        bc.load(name, device='cpu', parts=half).load()\n"
            "assert not {'sympy', 'torch._dynamo'} & set(sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
        assert run.returncode == 0, run.stderr

    def test_a_network_that_derives_tensors_from_parameters_is_built_whole(self, toy_state, tmp_path):
        class Deriving(ToyNetwork):
            def __init__(self):
                super().__init__()
                self.derived = self.encoder.layers[0].weight.detach()[:1]

        class Backend(ToyBackend):
            def new_network(self):
                return Deriving()

        save_file(toy_state, tmp_path / "model.safetensors")
        pcm = np.random.default_rng(0).standard_normal(400).astype(np.float32) * 0.1
        half = toy(tmp_path / "model.safetensors", "encoder", Backend)
        assert half.encode(pcm, 8000) == toy(tmp_path / "model.safetensors").encode(pcm, 8000)
        with pytest.raises(bc.InvalidInput, match="cannot decode"):
            half.decoder_session()

    def test_a_conversion_that_needs_values_reads_everything(self, toy_state, tmp_path):
        class Backend(ToyBackend):
            def from_published(self, network, content, origin):
                assert all(bool(torch.isfinite(tensor).all()) for tensor in content.values())
                return super().from_published(network, content, origin)

        save_file(toy_state, tmp_path / "model.safetensors")
        half = toy(tmp_path / "model.safetensors", "decoder", Backend)
        codes = [np.zeros((1, frames), np.int64) for frames in (4, 8)]
        tokens = bc.CodecTokens.from_codes(SPEC, codes)
        assert np.array_equal(half.decode(tokens), toy(tmp_path / "model.safetensors").decode(tokens))


class Own(StreamingModule):
    """A module of this package's kind, which has a parameter and modules of PyTorch."""

    def __init__(self, shared: nn.Parameter | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3)) if shared is None else shared
        self.parts = nn.ModuleList([nn.LSTM(3, 3, 2), weight_norm(nn.Conv1d(3, 3, 5))])


class TestDeferral:
    """Parameters without memory, and what refers to them."""

    def test_modules_of_pytorch_are_deferred_when_they_are_assigned(self):
        with deferred_parameters() as deferral:
            plain = nn.LSTM(3, 3)
            assert not plain.weight_ih_l0.is_meta
            network = Own()
        assert len(list(network.parameters())) == 1 + 8 + 3
        assert all(parameter.is_meta for parameter in network.parameters())
        assert halves.can_fill(network, deferral)
        whole = Own()
        halves.fill(network, whole.state_dict())
        x = torch.randn(1, 7, 3)
        for mine, other, signal in zip(network.parts, whole.parts, (x, x.transpose(1, 2)), strict=True):
            result, expected = mine(signal), other(signal)
            assert torch.equal(result[0], expected[0])

    @pytest.mark.parametrize("plain", [False, True])
    def test_tied_weights_stay_tied(self, plain):
        class Tied(StreamingModule):
            def __init__(self):
                super().__init__()
                shared = nn.Parameter(torch.ones(3, 3))
                kinds = (nn.Linear(3, 3), nn.Linear(3, 3)) if plain else (Own(shared), Own(shared))
                for kind in kinds:
                    kind.weight = shared
                self.first, self.second = kinds
                self.again = shared

        with deferred_parameters() as deferral:
            network = Tied()
        assert all(parameter.is_meta for parameter in network.parameters())
        assert halves.can_fill(network, deferral)
        halves.fill(network, Tied().state_dict())
        assert network.first.weight is network.second.weight
        assert network.first.weight is network.again
        assert torch.equal(network.first.weight, torch.ones(3, 3))

    def test_two_names_of_a_parameter_in_one_module(self):
        class Twice(StreamingModule):
            def __init__(self):
                super().__init__()
                self.first = self.second = nn.Parameter(torch.ones(3))

        with deferred_parameters() as deferral:
            network = Twice()
        assert halves.can_fill(network, deferral)
        halves.fill(network, Twice().state_dict())
        assert network.first is network.second
        assert torch.equal(network.second, torch.ones(3))

    @pytest.mark.parametrize(
        "refer",
        [
            lambda linear: [linear.weight],
            lambda linear: {"rows": linear.weight.detach()[:1]},
            lambda linear: linear.weight.view(9),
            lambda linear: nn.Parameter(linear.weight.data),
        ],
    )
    def test_other_references_to_a_replaced_parameter_are_noticed(self, refer):
        class Referring(nn.Linear):
            def __init__(self):
                super().__init__(3, 3)
                self.__dict__["other"] = refer(self)

        with deferred_parameters() as deferral:
            network = Own(Referring().weight)
        assert halves.can_fill(network, deferral)
        with deferred_parameters() as deferral:
            network = Own()
            network.extra = Referring()
        assert not halves.can_fill(network, deferral)

    def test_other_threads_keep_their_parameters(self):
        made = []
        with deferred_parameters():
            thread = threading.Thread(target=lambda: made.append(Own()))
            thread.start()
            thread.join()
            mine = Own()
        assert all(parameter.is_meta for parameter in mine.parameters())
        assert not any(parameter.is_meta for parameter in (*made[0].parameters(), *Own().parameters()))

    def test_pytorch_is_left_as_it_was(self):
        before = dict(torch.nn.modules.module._global_parameter_registration_hooks)
        bc.load("snac_tiny", device="cpu", parts="encoder").load()
        assert before == torch.nn.modules.module._global_parameter_registration_hooks


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_checkpoints_of_enclosing_models_and_trainers(codecs, tmp_path, half, kind, monkeypatch):
    whole = codecs("snac_tiny", weights=None)
    state = state_dicts.read(bc.weights.locate(whole.spec, whole.options).path)
    inside = {f"audio_encoder.{name}": tensor for name, tensor in state.items()} | {"decoder.layers.0.weight": torch.zeros(4, 4)}
    path = tmp_path / f"other.{kind}"
    if kind == "safetensors":
        save_file(inside, path)
    else:
        torch.save({"best_state": {"state_dict": inside}, "epoch": 1}, path)
    codec = bc.load("snac_tiny", weights=path, device="cpu", parts=half)
    monkeypatch.setattr(codec.backend, "_read", lambda *arguments: pytest.fail("everything was read"))
    pcm = noise(whole)
    tokens = whole.encode(pcm, 24_000)
    if half == "encoder":
        assert all(np.array_equal(a, b) for a, b in zip(codec.encode(pcm, 24_000).codes, tokens.codes, strict=True))
    else:
        anonymous = dataclasses.replace(tokens, weights=None)
        assert np.array_equal(codec.decode(anonymous), whole.decode(tokens))


@pytest.mark.parametrize("half", HALVES)
def test_settings_from_the_weights(codecs, tmp_path, half):
    whole = codecs("snac_tiny", weights=None)
    state = state_dicts.read(bc.weights.locate(whole.spec, whole.options).path)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(whole.spec.architecture.model_dump_json())
    codec = bc.load("snac", weights=tmp_path, architecture="from-weights", device="cpu", parts=half)
    assert codec.options.parts == half
    codec.load()
    with pytest.raises(bc.InvalidInput, match="it cannot"):
        (codec.decoder_session if half == "encoder" else codec.encoder_session)()


class TestWrongFiles:
    @pytest.mark.parametrize("half", HALVES)
    @pytest.mark.parametrize("part", ["encoder.layers.0.weight", "quantizer.quantizers.0.codebook", "decoder.layers.0.weight"])
    @pytest.mark.parametrize("change", ["missing", "shape", "unknown"])
    def test_they_are_refused_as_by_the_whole(self, toy_state, tmp_path, half, part, change):
        if change == "missing":
            del toy_state[part]
        elif change == "shape":
            toy_state[part] = torch.zeros(3, 3, 3)
        else:
            toy_state[f"{part}_more"] = torch.zeros(2, 2)
        path = tmp_path / "model.safetensors"
        save_file(toy_state, path)
        with pytest.raises(bc.WeightsUnavailable) as whole:
            toy(path).load()
        with pytest.raises(bc.WeightsUnavailable) as raised:
            toy(path, half).load()
        assert str(raised.value) == str(whole.value)

    @pytest.mark.parametrize("half", HALVES)
    def test_nan_in_the_wanted_half(self, toy_state, tmp_path, half):
        toy_state[f"{half}.layers.0.weight"][0, 0, 0] = float("nan")
        save_file(toy_state, tmp_path / "model.safetensors")
        with pytest.raises(bc.WeightsUnavailable, match="NaN"):
            toy(tmp_path / "model.safetensors", half).load()
        toy(tmp_path / "model.safetensors", halves.OTHER[half]).load()


class TestRefusals:
    @pytest.mark.parametrize("name", TINY)
    def test_methods_of_the_missing_half(self, codecs, name):
        whole = codecs(name, weights=None)
        encoder, decoder = (bc.load(name, device="cpu", parts=half) for half in HALVES)
        pcm, rate = noise(whole, 0.1), whole.sample_rate
        tokens = whole.encode(pcm, rate)
        for call in (
            lambda: decoder.encode(pcm, rate),
            lambda: decoder.encode_batch([pcm], rate),
            lambda: decoder.encode_pcm(pcm[0], rate),
            decoder.encoder_session,
        ):
            with pytest.raises(
                bc.InvalidInput, match=f"{name} was loaded with parts='decoder', so it cannot encode; load it with"
            ):
                call()
        for call in (
            lambda: encoder.decode(tokens),
            lambda: encoder.decode_batch([tokens]),
            lambda: encoder.decode_tokens(tokens.flat(), tokens.num_codebooks),
            lambda: encoder.decoded_loudness(tokens),
            encoder.decoder_session,
        ):
            with pytest.raises(
                bc.InvalidInput, match=f"{name} was loaded with parts='encoder', so it cannot decode; load it with"
            ):
                call()
        assert not decoder.is_loaded
        assert not encoder.is_loaded

    def test_the_network_itself(self):
        network = bc.load("snac_tiny", device="cpu", parts="decoder").backend.loaded().network
        with pytest.raises(bc.InvalidInput, match="cannot encode"):
            network.encoder(torch.zeros(1, 8, 1))

    @pytest.mark.parametrize("wrong", ["both", "", "encode", 1, True])
    def test_other_parts(self, wrong):
        with pytest.raises(bc.InvalidInput, match="parts"):
            bc.load("snac_tiny", parts=wrong)

    def test_a_backend_without_halves_has_both(self):
        class Whole(ToyBackend):
            half = None

        backend = toy("random:0", "decoder", Whole)
        pcm = np.zeros(400, np.float32)
        assert backend.decode(backend.encode(pcm, 8000)).shape == (1, 400)


class TestSharing:
    def test_pickles_keep_the_half(self):
        codec = pickle.loads(pickle.dumps(bc.load("snac_tiny", device="cpu", parts="encoder")))
        assert codec.options.parts == "encoder"
        codec.encode(noise(codec), codec.sample_rate)
        with pytest.raises(bc.InvalidInput, match="cannot decode"):
            codec.decoder_session()

    @pytest.mark.parametrize("device", [None, "cpu"])
    def test_workers_of_datasets_load_one_half(self, tmp_path, device):
        options = bc.LoadOptions(device="cpu", noise_seed=5)
        job = DetokenizeJob("snac:snac_tiny", options, files=(), out=tmp_path, suffix=".wav", strict=False)
        codec = job.start(device).codec
        assert codec.options == options.model_copy(update={"parts": "decoder"})
        assert codec.is_loaded
        assert TokenizeJob.half == "encoder"

    def test_datasets_refuse_the_wrong_half(self, tmp_path):
        pytest.importorskip("pyarrow")
        decoder = bc.load("snac_tiny", device="cpu", parts="decoder")
        with pytest.raises(bc.InvalidInput, match="needs its encoder"):
            bc.tokenize_dataset(tmp_path, decoder, tmp_path / "out")

    def test_commands_load_the_half_that_they_need(self, tmp_path, monkeypatch, root):
        loaded = []
        load = TorchCodecBackend.build
        monkeypatch.setattr(TorchCodecBackend, "build", lambda self, found: (loaded.append(self.half), load(self, found))[1])
        source, tokens, audio = root / "examples" / "speech.flac", tmp_path / "a.tokens", tmp_path / "a.wav"
        for arguments in (
            ["encode", str(source), "-c", "snac_tiny", "-o", str(tokens)],
            ["decode", str(tokens), "-o", str(audio)],
        ):
            with pytest.raises(SystemExit) as stopped:
                main([*arguments, "--quiet"])
            assert not stopped.value.code
        assert loaded == ["encoder", "decoder"]
        assert audio.exists()

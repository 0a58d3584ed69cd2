"""Files in the place of weights are called what they are."""

from __future__ import annotations

import gzip
import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import blazen_codec_core as bc
from blazen_codec_core.nn.checkpoints import conversion, state_dicts

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Settings:
    """As omegaconf's objects in a checkpoint of audiocraft's are: more than plain data."""


def archive(path, *members):
    with zipfile.ZipFile(path, "w") as made:
        for member in members:
            made.writestr(member, "x")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p.write_bytes(b""), "is empty.*fetch it again"),
        (lambda p: p.write_text(POINTER), "pointer of Git LFS.*git lfs pull"),
        (lambda p: p.write_text("\n<!DOCTYPE html><html>Not found</html>"), "web page.*/resolve/"),
        (lambda p: p.write_bytes(gzip.compress(b"x" * 100)), "an archive; unpack"),
        (lambda p: archive(p, "a.txt"), "a zip archive; unpack"),
        (lambda p: archive(p, "dac/.data/extern_modules", "dac/.data/version"), r"torch\.package.*weights\.pth beside"),
        (lambda p: torch.jit.script(Doubled()).save(str(p)), r"TorchScript.*state_dict\(\)"),
        (lambda p: p.write_text('{"model_type": "dac"}'), "JSON and holds no weights"),
        (lambda p: p.write_bytes(b"PK\x03\x04 cut off"), "damaged or incomplete"),
        (lambda p: torch.save({"a": torch.zeros(9), "cfg": Settings()}, p), r"Settings beside tensors.*state dict alone"),
        (lambda p: p.write_bytes(b"\x80\x02garbage"), "is not a file of weights"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(bc.WeightsUnavailable, match=says) as caught:
        bc.load("dac_tiny", weights=tmp_path / name, device="cpu").load()
    assert name in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_file_is_read_by_what_it_holds_not_by_its_suffix(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "w.pth")
    torch.save({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        assert state_dicts.read(tmp_path / name)["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "prefix", ["", "model.", "audio_encoder.", "audio_encoder.model.", "module.codec.", "some.other.decoder_of_sound."]
)
def test_the_prefix_of_a_model_around_the_codec_is_found(prefix):
    own = {f"{part}.{leaf}": torch.zeros(2) for part in ("encoder", "quantizer", "decoder") for leaf in ("a.encoder.b", "c")}
    others = {
        "text_encoder.encoder.block.0.w": torch.zeros(1),
        "decoder.model.decoder.layers.0.w": torch.zeros(1),
        "lm_head.w": torch.zeros(1),
    }
    found = {prefix + name: tensor for name, tensor in own.items()} | (others if prefix else {})
    assert conversion.tensors(found, "w").keys() == own.keys()


def test_several_codecs_in_one_file_are_refused():
    parts = {f"{start}{part}.w": torch.zeros(1) for start in ("a.", "b.") for part in ("encoder", "quantizer", "decoder")}
    with pytest.raises(bc.WeightsUnavailable, match=r"several codecs, a\. and b\."):
        conversion.tensors(parts, "w")


@pytest.mark.parametrize("wrap", [lambda s: {"best_state": {"model": s}, "xp.cfg": "a: 1"}, lambda s: {"best_state": s, "v": 1}])
def test_a_trainers_names_around_a_state_dict_are_looked_through(wrap):
    assert conversion.tensors(wrap({"encoder.w": torch.ones(1)}), "w").keys() == {"encoder.w"}


def test_a_file_that_names_its_weights_says_so():
    with pytest.raises(bc.WeightsUnavailable, match="Load 'facebook/encodec_32khz'"):
        conversion.tensors({"pretrained": "facebook/encodec_32khz"}, "w")


class TestFolders:
    def test_the_only_file_of_weights_is_taken(self, tmp_path):
        (tmp_path / "mine.ckpt").write_bytes(b"")
        (tmp_path / "notes.txt").write_text("")
        with pytest.raises(bc.WeightsUnavailable, match=r"mine\.ckpt is empty"):
            bc.load("dac_tiny", weights=tmp_path).load()

    def test_of_several_one_has_to_be_named(self, tmp_path):
        for name in ("a.ckpt", "b.th"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(bc.WeightsUnavailable, match=r"several weight files: a\.ckpt, b\.th"):
            bc.load("dac_tiny", weights=tmp_path).load()

    def test_a_config_counts_for_a_file_named_in_it_too(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"never read")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        for where in (tmp_path, tmp_path / "model.safetensors"):
            with pytest.raises(bc.WeightsUnavailable, match="model_type is 'bert'; expected dac or dac_on_the_hub"):
                bc.load("dac_tiny", weights=where).load()

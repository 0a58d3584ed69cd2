"""Exported graphs give what the codec gives, and folders are complete or not there."""

from __future__ import annotations

import dataclasses
import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.cli.main import main
from blazen_codec_core.nn import Layer
from blazen_codec_core.onnx import check, export, int8, runtime
from blazen_codec_core.onnx.manifest import Manifest
from blazen_codec_core.onnx.sessions import decoder_inputs, encoder_inputs
from tests.helpers.mixed_codec import MixedBackend, MixedNetwork, mixed_codec

BLOCK = 16
"""Samples of a block."""


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (1, samples)).astype(np.float32)


def test_the_graphs_pass_their_own_check(exported):
    _, report = exported
    assert report.tokens > 100
    assert report.agreement > 0.999
    assert 0 < report.max_pcm_error < 1e-5


@settings(max_examples=15, deadline=None)
@given(blocks=st.integers(1, 40), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_any_length_in_any_chunks(mixed, exported, blocks, cuts, seed):
    folder, _ = exported
    manifest = Manifest.read(folder)
    graphs = runtime.Runtime(folder, manifest)
    pcm = noise(blocks * BLOCK, seed)
    tokens = mixed.encode(pcm, 8000, num_codebooks=2)
    audio = mixed.decode(tokens)
    for part, [inputs] in (("encoder", encoder_inputs(mixed.spec, pcm)), ("decoder", decoder_inputs(mixed.spec, tokens.codes))):
        whole = runtime.run_whole(graphs, manifest.parts[part], inputs, 0)
        stream = runtime.GraphStream(graphs, manifest.parts[part], 0)
        outputs, start = [], 0
        while start < blocks:
            stop = min(start + cuts[len(outputs) % len(cuts)], blocks)
            block = manifest.parts[part].block
            chunk = {
                name: array[..., start * block[name] : stop * block[name]] if name in block else array
                for name, array in inputs.items()
            }
            outputs, start = [*outputs, *stream.run(chunk, stop == blocks)], stop
        streamed = check.joined(outputs)
        for name, array in streamed.items():
            if part == "encoder":
                expected = tokens.codes[int(name[-1])]
                assert check.count_differing(array, expected) + check.count_differing(whole[name], expected) <= 1
            else:
                assert array.shape == whole[name].shape == (1, *audio.shape)
                assert np.abs(array[0] - audio).max() < 1e-5
                assert np.abs(whole[name][0] - audio).max() < 1e-5


def test_weights_are_on_disk_once(mixed, exported):
    folder, _ = exported
    weights = sum(parameter.numel() * 4 for parameter in mixed.backend.loaded().network.state_dict().values())
    assert (folder / "weights.bin").stat().st_size < 1.5 * weights


def test_nothing_of_this_machine_is_in_the_graphs(exported):
    folder, _ = exported
    contents = [graph.read_bytes() for graph in folder.glob("*.onnx")]
    assert len(contents) == 8
    assert not [content for content in contents if b"site-packages" in content or b"mixed_codec.py" in content]


def test_the_driver_of_the_readme_streams(mixed, exported, monkeypatch):
    folder, _ = exported
    driver = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(driver, names)
    tokens = mixed.encode(noise(37 * BLOCK), 8000, num_codebooks=2)
    part = names["manifest"]["parts"]["decoder"]
    [inputs] = decoder_inputs(mixed.spec, tokens.codes)
    stream, start, heard = names["Stream"]("decoder"), 0, []

    def blocks(count):
        block = part["block"]
        return {
            name: array[:, start * block[name] : (start + count) * block[name]] if name in block else array
            for name, array in inputs.items()
        }

    while start + (count := part["stream"]["step" if start else "begin"]["blocks"]) <= 37:
        heard.append(stream.push(blocks(count))["audio"])
        start += count
    heard.append(stream.finish(blocks(37 - start), 37 - start)["audio"])
    assert np.abs(np.concatenate(heard, 2)[0] - mixed.decode(tokens)).max() < 1e-5


def test_a_folder_is_replaced_only_by_force_and_only_if_it_is_an_export(mixed, exported, tmp_path):
    folder, _ = exported
    with pytest.raises(bc.InvalidInput, match="force=True"):
        export.export(mixed, folder)
    (tmp_path / "mine").mkdir()
    with pytest.raises(bc.InvalidInput, match="name a folder that does not exist"):
        export.export(mixed, tmp_path / "mine", force=True)


def test_a_graph_that_differs_leaves_nothing_behind(mixed, tmp_path, monkeypatch):
    monkeypatch.setitem(check.PRECISIONS, "float32", dataclasses.replace(check.PRECISIONS["float32"], most_pcm_error=1e-12))
    with pytest.raises(bc.InferenceError, match=r"audio differs by .* nothing was exported"):
        export.export(mixed, tmp_path / "out", what="whole", parts="decoder")
    assert list(tmp_path.iterdir()) == []


class FixedLength(Layer):
    """A layer whose graph would have the length of the example."""

    def step(self, x, state, last):
        return x.reshape(1, int(x.shape[1]), x.shape[2])


def test_a_length_that_would_be_fixed_is_an_error(tmp_path):
    class FixingBackend(MixedBackend):
        def new_network(self):
            network = MixedNetwork()
            network.decoder = FixedLength()
            network.decoder.weight = MixedNetwork().decoder.layers[0].weight
            return network

    with pytest.raises(bc.InferenceError):
        export.export(mixed_codec(FixingBackend), tmp_path / "out", what="whole", parts="decoder", check=False)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_says_its_error(mixed, tmp_path):
    report = export.export(mixed, tmp_path / "half", what="whole", dtype="float16")
    assert 1e-6 < report.max_pcm_error < 3e-2
    assert 0.5 < report.agreement <= 1
    assert Manifest.read(tmp_path / "half").dtype == "float16"


def test_decoders_in_int8(mixed, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_WEIGHTS", 1 << 6)
    handlers = list(logging.getLogger().handlers)
    report = export.export(mixed, tmp_path / "int8", dtype="int8")
    assert report.agreement > 0.999
    assert 1e-4 < report.max_pcm_error < 0.25
    assert logging.getLogger().handlers == handlers
    sizes = [(folder / "weights.bin").stat().st_size for folder in (tmp_path / "int8", exported[0])]
    assert sizes[0] < sizes[1]
    codec, pcm = bc.load(tmp_path / "int8"), noise(30 * BLOCK + 5)
    tokens = codec.encode(pcm, 8000)
    assert tokens == mixed.encode(pcm, 8000)
    assert np.abs(codec.decode(tokens) - mixed.decode(tokens)).max() < 0.25


@pytest.mark.parametrize("what", ["step", "both"])
def test_segments_have_no_steps(what, tmp_path):
    with pytest.raises(bc.NotYetImplemented, match="segments of 48000 samples, each normalized over all of its samples"):
        bc.export("encodec_48khz", tmp_path / "out", what=what, weights="random:0")


def test_options_that_do_not_exist(mixed, tmp_path):
    for options in (
        {"what": "half"},
        {"dtype": "int4"},
        {"dtype": "int8", "parts": "encoder"},
        {"parts": "both"},
        {"tile_frames": 3},
    ):
        with pytest.raises(bc.InvalidInput):
            export.export(mixed, tmp_path / "out", **options)


def test_the_command_exports_and_reports(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["export", "snac_tiny", "-o", str(tmp_path / "snac"), "--parts", "decoder", "--what", "whole", "--quiet", "--json"])
    assert exit.value.code == 0
    assert '"max_pcm_error"' in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "snac").iterdir()} == {
        "README.md",
        "decoder_whole.onnx",
        "export.json",
        "weights.bin",
    }

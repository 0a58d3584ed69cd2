"""`blazen-codec finetune` on generated recordings, with the smallest network."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.errors import CorruptFile, InvalidInput
from blazen_codec_training import finetune as module
from blazen_codec_training.command import command
from blazen_codec_training.cuts import Cuts, books
from blazen_codec_training.finetune import finetune
from blazen_codec_training.losses import AudioLosses
from blazen_codec_training.recordings import Recordings, find
from blazen_codec_training.settings import Settings
from blazen_codec_training.stopping import StopRequest

MODEL = "encodec_tiny"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Recordings of several rates and channels, one of them damaged, in folders, beside a file of text."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "more").mkdir()
    for number, (rate, channels) in enumerate([(24_000, 1), (24_000, 1), (16_000, 1), (44_100, 2), (24_000, 1)]):
        pcm = np.repeat(voice(0.6 + number / 10, rate)[None], channels, axis=0) * (1 - number / 8)
        soundfile.write(folder / ("more" if number % 2 else "") / f"voice{number}.flac", pcm.T, rate)
    (folder / "damaged.wav").write_bytes(b"RIFF" + b"\0" * 100)
    (folder / "notes.txt").write_text("what was said")
    return folder


@pytest.fixture
def settings(data):
    """Makes settings of a short run."""

    def make(**changes) -> Settings:
        short = {"steps": 4, "batch": 2, "seconds": 0.3, "rate": 1e-3, "device": "cpu", "samples_every": 100}
        return Settings(MODEL, str(data), **short | changes)

    return make


class StopAfter(StopRequest):
    """A request that is made after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def run(settings: Settings, folder, **options) -> list[str]:
    """Runs it, and returns its remarks."""
    remarks: list[str] = []
    assert finetune(settings, folder, remark=remarks.append, quiet=True, **options) <= settings.steps
    return remarks


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / module.MODEL)


def assert_alike(folder, other, atol: float) -> None:
    first, second = weights(folder), weights(other)
    assert set(first) == set(second)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def decoder_only(data, tmp_path_factory):
    """A run that trained the decoder alone; its folder, and what it remarked."""
    folder = tmp_path_factory.mktemp("decoder")
    short = {"steps": 4, "batch": 2, "seconds": 0.3, "rate": 1e-3, "device": "cpu", "samples_every": 2, "adversarial": 2}
    return folder, run(Settings(MODEL, str(data), train="decoder", **short), folder)


def test_a_trained_decoder_changes_the_audio_and_no_token(decoder_only):
    folder, _ = decoder_only
    pcm = voice(0.5, 24_000)
    before, after = bc.load(MODEL), bc.load(MODEL, weights=str(folder))
    tokens = before.encode(pcm, 24_000)
    assert all(map(np.array_equal, tokens.codes, after.encode(pcm, 24_000).codes))
    assert np.abs(before.decode(tokens) - after.decode(after.encode(pcm, 24_000))).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "start"), [("dac_tiny", None), ("snac_tiny", None), ("encodec_48khz", "random:0"), ("snac_24khz", "random:0")]
)
@pytest.mark.parametrize("train", ["whole", "decoder"])
def test_every_family_is_trained(settings, tmp_path, model, start, train):
    run(dataclasses.replace(settings(steps=1, train=train), model=model, weights=start), tmp_path)
    before, after = bc.load(model, weights=start), bc.load(model, weights=str(tmp_path))
    pcm = np.repeat(voice(0.5, before.sample_rate)[None], before.channels, axis=0)
    first, second = (codec.encode(pcm, codec.sample_rate) for codec in (before, after))
    assert train == "whole" or all(map(np.array_equal, first.codes, second.codes))
    assert not np.array_equal(before.decode(first), after.decode(second))


def test_a_run_leaves_samples_a_log_and_its_settings(decoder_only):
    folder, _ = decoder_only
    samples = sorted(path.name for path in (folder / module.SAMPLES).iterdir())
    (original,) = [name for name in samples if name.startswith("original-")]
    name = original.removeprefix("original-")
    assert samples == [original, *(f"step-{step:06d}-{name}" for step in (0, 2, 4))]
    assert len({soundfile.info(folder / module.SAMPLES / sample).frames for sample in samples}) == 1
    assert list((folder / module.LOG).glob("events.*"))
    assert json.loads((folder / "settings.json").read_text())["train"] == "decoder"


def test_damaged_recordings_are_named_and_skipped(decoder_only, data):
    folder, remarks = decoder_only
    assert [remark for remark in remarks if "damaged.wav" in remark] == remarks
    assert len(remarks) == 1
    listed = Recordings.load(folder / module.STATE / module.RECORDINGS)
    assert len(listed.trained) + len(listed.held_out) == 5
    assert [skipped.path for skipped in listed.skipped] == [str(data / "damaged.wav")]


def test_recordings_that_break_later_are_skipped_too(data, tmp_path):
    for path in data.glob("*.flac"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "held").mkdir()
    (tmp_path / "voice0.flac").rename(tmp_path / "held" / "voice0.flac")
    recordings = find(tmp_path, tmp_path / "held", 0.5).trained
    assert len(recordings) == 3  # those in --held-out are below --data here
    (tmp_path / "voice2.flac").write_bytes((data / "voice2.flac").read_bytes()[:2000])
    remarks: list[str] = []
    cuts = Cuts(recordings, rate=24_000, channels=1, samples=4800, seed=0, rows=range(8), remark=remarks.append)
    batches = [cuts(step) for step in range(4)]
    cuts.close()
    assert all(batch.shape == (8, 1, 4800) for batch in batches)
    assert [("voice2.flac" in remark) for remark in remarks] == [True]


def test_cuts_depend_on_the_seed_and_the_step_alone(data):
    recordings = find(data, None, 0.3).trained

    def cuts(rows: range, seed: int = 0) -> Cuts:
        return Cuts(recordings, rate=24_000, channels=1, samples=7200, seed=seed, rows=rows, remark=print)

    whole, half, other = cuts(range(4)), cuts(range(2, 4)), cuts(range(4), seed=1)
    batches = [whole(step) for step in range(3)]
    assert torch.equal(half(2), batches[2][2:])
    assert not torch.equal(other(2), batches[2])
    assert not torch.equal(batches[1], batches[2])
    assert max(float(batch.abs().max()) for batch in batches) <= 1
    for made in (whole, half, other):
        made.close()
    assert torch.equal(books(0, 5, 8, (2, 4, 8), 0.5), books(0, 5, 8, (2, 4, 8), 0.5))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(settings, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = settings(adversarial=2, checkpoint_every=3)
    run(options, whole)
    for steps in (1, 2):
        assert finetune(options, parts, stop=StopAfter(steps), remark=print, quiet=True) in (1, 3)
    run(options, parts)
    assert_alike(whole, parts, atol=1e-6)


def test_parts_of_a_batch_give_the_step_of_all_of_it(settings, tmp_path):
    for count in (1, 2):
        run(settings(adversarial=1, steps=1, accumulate=count), tmp_path / str(count))
    assert_same_step(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_two_processes_give_the_step_of_one(settings, tmp_path):
    for count in (1, 2):
        options = settings(adversarial=1, steps=1, processes=count)
        assert finetune(options, tmp_path / str(count), remark=print, quiet=True) == 1
    assert_same_step(tmp_path / "1", tmp_path / "2")


def assert_same_step(folder, other) -> None:
    """Later steps differ: Adam magnifies the rounding of small gradients, and a quantizer that of near ties."""
    start, first, second = (state_of(where) for where in (None, folder, other))
    moved = torch.stack([(first[name] - start[name]).norm() for name in first])
    apart = torch.stack([(first[name] - second[name]).norm() for name in first])
    assert (moved > 0).all()
    assert (apart / moved).median() < 1e-4
    assert (apart / moved).max() < 0.1


def state_of(folder) -> dict[str, torch.Tensor]:
    """The state of the network of a run; of the published one without a folder."""
    return bc.load(MODEL, weights=folder and str(folder)).module.network.state_dict()


def test_frozen_codebooks_stay(settings, tmp_path):
    run(settings(freeze_codebooks=True, steps=2), tmp_path)
    first, second = state_of(None), state_of(tmp_path)
    same = {name: torch.equal(tensor, second[name]) for name, tensor in first.items()}
    assert all(is_same for name, is_same in same.items() if name.startswith("quantizer."))
    assert not any(is_same for name, is_same in same.items() if name.startswith("encoder.") and name.endswith("weight"))


def test_the_codebooks_of_a_whole_codec_are_trained(settings, tmp_path):
    run(settings(steps=2), tmp_path)
    first, second = state_of(None), state_of(tmp_path)
    books = [name for name in first if name.endswith(".codebook")]
    assert books
    assert not any(torch.equal(first[name], second[name]) for name in books)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100, 48_000])
def test_losses_of_audio_exist_at_every_rate(rate):
    losses, pcm = AudioLosses(rate), torch.from_numpy(voice(0.4, rate))[None]
    for name, term in losses(pcm, pcm).items():
        assert float(term) == pytest.approx(0, abs=0.01), name
    assert all(float(term) > 0.05 for term in losses(pcm.roll(rate // 10, 1), pcm).values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 3, "accumulate": 2}, "3 cuts cannot be divided into 2 parts in each of 1 processes"),
        ({"adversarial": 9}, "9 of 4 steps"),
        ({"device": "cuda:1", "processes": 2}, "leave out its number"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, tmp_path, changes, says):
    with pytest.raises(InvalidInput, match=says):
        finetune(settings(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_another_run_is_refused(settings, tmp_path):
    settings().save(tmp_path)
    with pytest.raises(InvalidInput, match=r"has a run with batch 2, not 4"):
        finetune(settings(batch=4), tmp_path)


def test_a_damaged_checkpoint_is_named(settings, tmp_path):
    (tmp_path / module.STATE).mkdir()
    (tmp_path / module.STATE / module.CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(CorruptFile, match=r"checkpoint\.pt cannot be resumed from"):
        finetune(settings(), tmp_path, remark=print, quiet=True)


def test_one_recording_is_too_few(tmp_path):
    soundfile.write(tmp_path / "only.flac", voice(0.5, 24_000), 24_000)
    with pytest.raises(InvalidInput, match="has 1 recordings that can be read"):
        find(tmp_path, None, 0.1)


def test_held_out_recordings_do_not_depend_on_others(data, tmp_path):
    names = [f"{number}.flac" for number in range(40)]
    for name in names:
        (tmp_path / name).write_bytes((data / "voice0.flac").read_bytes())
    before = {recording.path for recording in find(tmp_path, None, 0.2).held_out}
    (tmp_path / names[0]).unlink()
    after = {recording.path for recording in find(tmp_path, None, 0.2).held_out}
    assert before - {str(tmp_path / names[0])} == after
    assert 2 <= len(after) <= 16


def test_the_command_ends_with_a_report(data, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"steps": 2, "batch": 2, "seconds": 0.3, "device": "cpu"}))
    arguments = [
        MODEL,
        "--data",
        str(data),
        "-o",
        str(tmp_path / "run"),
        "--settings",
        str(tmp_path / "mine.json"),
        "--rate",
        "1e-3",
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (kept["steps"], kept["rate"]) == (2, 1e-3)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    before, after = report["systems"]
    assert (before["system"], after["system"]) == ("before", "after")
    assert before["stoi"] != after["stoi"]
    text = (tmp_path / "run" / "report.md").read_text()
    assert f"| after | {after['stoi']:.3f} |" in text
    assert "damaged.wav" in text
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def start(settings: Settings, folder) -> subprocess.Popen[str]:
    """Starts the command in a process of its own."""
    code = (
        "import sys\nfrom blazen_codec_training.command import command\n"
        "if __name__ == '__main__':\n    command(sys.argv[1:], prog_name='finetune')"
    )
    script = folder.parent / "command.py"
    script.write_text(code)
    options = [
        *("--steps", settings.steps, "--batch", settings.batch, "--seconds", settings.seconds, "--rate", settings.rate),
        *("--device", "cpu", "--checkpoint-every", settings.checkpoint_every, "--processes", settings.processes),
    ]
    arguments = [sys.executable, script, MODEL, "--data", settings.data, "-o", folder, *options, "--evaluated", 1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(list(map(str, arguments)), env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "processes"), [(signal.SIGKILL, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_a_run_that_was_killed_goes_on(settings, tmp_path, number, processes):
    options = settings(steps=24, checkpoint_every=2, processes=processes)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(options, killed)
    wait_for(killed / module.STATE / module.CHECKPOINT, process)
    process.send_signal(number)
    _, remarks = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], remarks
    assert ("the same command resumes the run" in remarks) == (number != signal.SIGKILL)
    options = settings(steps=24, checkpoint_every=2)
    assert finetune(options, killed, remark=print, quiet=True) == 24
    if processes == 1:
        assert finetune(options, whole, remark=print, quiet=True) == 24
        assert_alike(whole, killed, atol=1e-5)

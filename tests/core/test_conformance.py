"""The conformance kit: each contract fails for a codec that breaks it, and the report is a line a contract."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.conformance import Contracts, Subject
from blazen_codec_core.conformance import subject as subject_module
from blazen_codec_core.conformance.subject import Whole
from blazen_codec_core.provider import CodecBackendHandle
from blazen_codec_core.weights import RandomWeights
from tests.helpers.install_site import Site
from tests.helpers.toy_codec import SPEC, ToyBackend

SEEDS = itertools.count()


class DependsOnPieces(ToyBackend):
    def encode_whole(self, pcm, num_codebooks):
        return super().encode_whole(np.roll(pcm, 1, axis=1), num_codebooks)


class DependsOnNeighbours(ToyBackend):
    def encode_batch(self, items, sample_rate, **options):
        return [self.encode(items[0], sample_rate, **options) for _ in items]


class DependsOnNeighboursSideBySide(ToyBackend):
    """One signal at a time, as on a CPU, shows nothing."""

    def _encode_items(self, items, num_codebooks):
        wrong = self.max_batch_size > 1
        return (
            [self.encode_whole(items[0], num_codebooks) for _ in items] if wrong else super()._encode_items(items, num_codebooks)
        )


class WithoutTorch(bc.CodecBackend):
    """Silence, in batches of its own making."""

    is_loaded, device = True, "cpu"
    load = unload = new_encoder_session = new_decoder_session = None

    def encode_whole(self, pcm, num_codebooks):
        frames = (pcm.shape[1] + self.spec.missing_samples(pcm.shape[1])) // self.spec.hop_length
        codes = [np.zeros((len(pcm), frames // stride), np.int32) for stride in self.spec.strides]
        return bc.CodecTokens.from_codes(self.spec, codes, num_samples=pcm.shape[1])

    def decode_whole(self, tokens):
        return np.zeros((tokens.channels, tokens.num_samples), np.float32)


class WithoutTorchDependsOnNeighbours(WithoutTorch):
    """Where it is told to run them side by side."""

    def encode_batch(self, items, sample_rate, **options):
        made = [self.encode(item, sample_rate, **options) for item in items]
        return [made[place // self.max_batch_size * self.max_batch_size] for place in range(len(made))]


class HasItsOwnBatchSize(WithoutTorchDependsOnNeighbours):
    """Whatever it is told."""

    max_batch_size = 2


class SwallowsNan(ToyBackend):
    def check_pcm(self, pcm, sample_rate, *, empty=False):
        return super().check_pcm(np.nan_to_num(pcm) if isinstance(pcm, np.ndarray) else pcm, sample_rate, empty=empty)


class Crashes(ToyBackend):
    def check_pcm(self, pcm, sample_rate, *, empty=False):
        return super().check_pcm(pcm if pcm.ndim else None, sample_rate, empty=empty)

    def check_tokens(self, tokens, *, part=False):
        super().check_tokens(tokens if tokens.frames else None, part=part)


class RaisesAnything(ToyBackend):
    def check_pcm(self, pcm, sample_rate, *, empty=False):
        with warnings.catch_warnings(action="ignore"):
            return super().check_pcm(np.asarray(pcm, np.float32), sample_rate, empty=empty)


class Resamples(ToyBackend):
    def check_pcm(self, pcm, sample_rate, *, empty=False):
        return super().check_pcm(pcm, self.sample_rate, empty=empty)


class Forgets(ToyBackend):
    def build(self, found):
        return super().build(RandomWeights(next(SEEDS)))


class LoadsAgainAndAgain(ToyBackend):
    def loaded(self):
        self._loaded, self._lock = None, threading.Lock()
        return super().loaded()


class RunsAnywhere(ToyBackend):
    device = "cpu"


class IsLateSaying(ToyBackend):
    def encoder_session(self, channels=None, **options):
        session = super().encoder_session(channels, **options)
        session.__class__ = type("Early", (type(session),), {"first_samples": 1})
        return session


class IsLatePlaying(ToyBackend):
    def new_decoder_session(self, tile_frames):
        session = super().new_decoder_session(tile_frames)
        session.__class__ = type("Early", (type(session),), {"first_frames": 1})
        return session


class StaysOpen(ToyBackend):
    def new_encoder_session(self, *arguments):
        session = super().new_encoder_session(*arguments)
        session.__class__ = type("Open", (type(session),), {"close": lambda session: None})
        return session


class Cuts(ToyBackend):
    def decode_whole(self, tokens):
        return super().decode_whole(tokens)[:, :-1]


class LoadsAtOnce(ToyBackend):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.load()


class RunsAheadOfListeners(ToyBackend):
    def new_decoder_pool(self, settings):
        return super().new_decoder_pool(dataclasses.replace(settings, max_queue=1e9))


class TakesAnyTokens(ToyBackend):
    def check_tokens(self, tokens, *, part=False):
        pass


def held(backend, contract, monkeypatch, **changes):
    """Runs one contract on a codec of this class."""
    spec = SPEC.model_copy(update={"capabilities": bc.DeviceCapabilities(**changes)})

    def load(name, **options):
        chosen = bc.LoadOptions.of(**options)
        handle = CodecBackendHandle("toy:toy_8khz", spec, chosen, lambda: backend(spec, chosen))
        return handle.into_dyn(lambda name, options: load(name, **options.model_dump()))

    monkeypatch.setattr(subject_module, "load", load)
    monkeypatch.setattr(Subject, "spec", spec)
    subject = Subject("toy_8khz")
    codec = subject.load()
    method = getattr(Contracts(), contract)
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    given = {"codec": codec, "subject": subject, "monkeypatch": monkeypatch}
    if "some" in names:
        given["some"] = subject.recording(0.05)
    if "apart" in names:
        given["apart"] = [Whole.of(codec, pcm) for pcm in subject.recordings()]
    if "whole" in names:
        given["whole"] = Whole.of(codec, subject.recording())
    method(**{name: given[name] for name in names})


BROKEN = [
    (DependsOnPieces, "test_encoding_in_pieces"),
    (DependsOnPieces, "test_encoding_in_the_smallest_pieces"),
    (DependsOnNeighbours, "test_batches"),
    (DependsOnNeighbours, "test_side_by_side"),
    (DependsOnNeighboursSideBySide, "test_side_by_side"),
    (WithoutTorchDependsOnNeighbours, "test_side_by_side"),
    (HasItsOwnBatchSize, "test_side_by_side"),
    (HasItsOwnBatchSize, "test_batches"),
    (SwallowsNan, "test_samples_that_are_no_numbers"),
    (RaisesAnything, "test_other_types"),
    (Crashes, "test_anything_as_audio"),
    (Resamples, "test_another_rate"),
    (Forgets, "test_reloading"),
    (Forgets, "test_unloading_while_busy"),
    (LoadsAgainAndAgain, "test_threads_load_once"),
    (LoadsAtOnce, "test_constructing"),
    (RunsAnywhere, "test_the_devices"),
    (IsLateSaying, "test_latency"),
    (IsLatePlaying, "test_decoder_latency"),
    (StaysOpen, "test_closing_a_session"),
    (Cuts, "test_the_length"),
    (Cuts, "test_decoding_in_pieces"),
    (TakesAnyTokens, "test_tokens_of_another_model"),
    (Crashes, "test_anything_as_tokens"),
]


@pytest.mark.parametrize(("backend", "contract"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_who_breaks_a_contract_fails_it(backend, contract, monkeypatch):
    held(ToyBackend, contract, monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, AttributeError, LookupError)):
        held(backend, contract, monkeypatch)


@pytest.mark.slow
def test_pools_wait_for_those_who_listen(monkeypatch):
    held(ToyBackend, "test_the_pools", monkeypatch, pools=("encode", "decode"))
    with pytest.raises(AssertionError, match="what nobody takes"):
        held(RunsAheadOfListeners, "test_the_pools", monkeypatch, pools=("decode",))


def test_batches_are_asked_for_of_a_codec_without_torch(monkeypatch):
    held(WithoutTorch, "test_batches", monkeypatch)
    held(WithoutTorch, "test_side_by_side", monkeypatch)


@pytest.mark.parametrize("backend", [DependsOnNeighboursSideBySide, WithoutTorchDependsOnNeighbours])
def test_who_is_not_told_to_run_signals_side_by_side_runs_one_at_a_time(backend, monkeypatch):
    held(backend, "test_batches", monkeypatch)


def test_what_is_not_claimed_is_not_asked_for_but_has_to_be_refused(monkeypatch):
    for contract in ("test_encoding_in_pieces", "test_decoding_in_pieces", "test_sessions", "test_players", "test_other_tiles"):
        with pytest.raises(pytest.skip.Exception, match="not claimed"):
            held(ToyBackend, contract, monkeypatch, streams=())
    with pytest.raises(pytest.skip.Exception, match="one signal at a time"):
        held(ToyBackend, "test_side_by_side", monkeypatch, batches=False)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        held(ToyBackend, "test_the_streams", monkeypatch, streams=("encode",))


def pytest_of(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_report_is_a_line_a_contract():
    chosen = "snac_tiny and (container or empty_audio) or flat_form"
    run = pytest_of("--codec", "snac_tiny", "--codec", "encodec_48khz", "-k", chosen)
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    at = lines.index("snac_tiny against the contracts")
    assert re.fullmatch(r"  holds Declared        mono tokens have a flat uint32 form, codebook after .*", lines[at + 1])
    assert sum(line.startswith("  holds ") for line in lines) == 3
    assert any(re.match(r"  -     Declared .*\(not claimed: flat tokens are for mono audio\)", line) for line in lines)
    assert "3 passed, 1 skipped" in lines[-1]


def test_a_codec_that_is_not_there_is_said_at_once():
    run = pytest_of("--codec", "snac_tinny")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "unknown codec 'snac_tinny'; did you mean snac_tiny" in run.stderr


def test_a_package_that_the_contracts_need_is_named():
    without = "u.find_spec = lambda name, *others: None if name == 'psutil' else find(name, *others)"
    started = "sys.exit(pytest.main(['-p', 'no:cacheprovider', '--codec', 'snac_tiny']))"
    code = f"import importlib.util as u, pytest, sys; find = u.find_spec; {without}; {started}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert re.search(r"--codec needs psutil: pip install '\S*\[conformance\]'", run.stderr)


def installed(root, folder, change=("", "")) -> Site:
    """A place with core and a stranger's codec, one line of which is another."""
    site = Site(folder)
    shutil.copytree(root / "tests" / "fake_plugin", folder / "fake_plugin")
    backend = folder / "fake_plugin" / "fake_codec" / "backend.py"
    assert change[0] in backend.read_text()
    backend.write_text(backend.read_text().replace(*change))
    for project in (root, folder / "fake_plugin"):
        site.install(project)
    return site


@pytest.mark.slow
def test_a_codec_without_torch_holds_every_contract(tmp_path, root):
    run = installed(root, tmp_path).python("-m", "pytest", "--codec", "fake_8khz", folder=tmp_path)
    assert run.returncode == 0, run.stdout
    assert len(re.findall("^  holds", run.stdout, re.MULTILINE)) == 49


@pytest.mark.slow
def test_a_strangers_codec_that_breaks_one(tmp_path, root):
    site = installed(root, tmp_path, ("self.backend.check_tokens(chunk, part=True)", "assert tokens"))
    run = site.python("-m", "pytest", "--codec", "fake_8khz", "-k", "registry or empty_audio or players", folder=tmp_path)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"^  holds Declared        the plugin is in use", run.stdout, re.MULTILINE)
    assert re.search(r"^  FAILS Refuses         invalid input to a decoder session$", run.stdout, re.MULTILINE)


def test_pytest_without_it_is_as_it_was(tmp_path):
    (tmp_path / "test_a.py").write_text("def test_a(): pass\n")
    run = pytest_of(str(tmp_path), "-q")
    assert run.returncode == 0
    assert "1 passed" in run.stdout
    assert "contracts" not in run.stdout

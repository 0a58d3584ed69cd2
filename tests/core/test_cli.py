from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import click
import importlib_metadata
import numpy as np
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.conformance.signals import voice

RANDOM = ["--weights", "random:0", "--device", "cpu"]


@pytest.fixture
def speech(tmp_path):
    audio.write(tmp_path / "in.wav", np.stack([voice(1.3, 44_100, 1), voice(1.3, 44_100, 2)]), 44_100)
    return tmp_path / "in.wav"


def test_list(run):
    code, out, _ = run("list")
    assert code == 0
    assert out.splitlines()[0].split() == ["NAME", "RATE", "CHANNELS", "KBPS", "TOKENS/S", "WEIGHTS", "DESCRIPTION"]
    assert {line.split()[0] for line in out.splitlines()[1:]} == {spec.name for spec in bc.list_codecs()}
    listed = json.loads(run("list", "--json")[1])
    assert {row["name"] for row in listed} == {spec.name for spec in bc.list_codecs()}


def test_info(run):
    _, out, _ = run("info", "snac")
    assert "snac:snac_24khz" in out
    assert "hubertsiuzdak/snac_24khz" in out
    assert json.loads(run("info", "snac_tiny", "--json")[1])["architecture"]["vq_strides"] == [4, 2, 1, 1]
    _, out, _ = run("info", "encodec_48khz")
    for part in ("3 kbps in 2, 6 kbps in 4", "48000 samples every 47520, scaled", "CC BY-NC 4.0", "facebook/encodec_48khz"):
        assert part in out
    assert json.loads(run("info", "encodec", "--json")[1])["bandwidths"] == [1.5, 3, 6, 12, 24]


def test_plugins(run):
    _, out, _ = run("plugins")
    assert out.split()[:3] == ["dac", "blazen-codec-dac", "0.1.0"]
    assert re.search(r"snac +blazen-codec-snac 0\.1\.0", out)
    assert json.loads(run("plugins", "--json")[1])[0]["error"] is None


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "roundtrip" in out
    assert run("--version")[0] == 0
    for command in ("list", "info", "plugins", "encode", "decode", "roundtrip", "verify"):
        assert run(command, "--help")[0] == 0


class EntryPoint:
    """An entry point of another distribution."""

    def __init__(self, name: str, target: object) -> None:
        self.name, self._target = name, target
        self.dist = SimpleNamespace(name="acme-commands")

    def load(self) -> object:
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


@pytest.fixture
def installed(monkeypatch):
    """Pretends that these commands of other distributions are installed."""

    def pretend(**commands: object) -> None:
        points = [EntryPoint(name, target) for name, target in commands.items()]
        monkeypatch.setattr(importlib_metadata, "entry_points", lambda group: points if group == "blazen_codec.commands" else [])

    return pretend


def test_other_distributions_add_commands(run, installed):
    @click.command("greet")
    @click.argument("who")
    def greet(who: str) -> None:
        click.echo(f"hello {who}")

    installed(greet=greet)
    assert run("greet", "you") == (0, "hello you\n", "")
    assert re.search(r"greet +Of another distribution", run("--help")[1])


def test_the_commands_of_core_cannot_be_replaced(run, installed):
    installed(list=RuntimeError("this is never imported"))
    assert run("list")[0] == 0


@pytest.mark.parametrize(("target", "says"), [(ImportError("no acme"), "cannot be imported: no acme"), (3, "is 3; it must be")])
def test_a_broken_command_names_its_distribution(run, installed, target, says):
    installed(greet=target)
    code, _, err = run("greet")
    assert code == 7
    assert err.startswith(f"error: greet of acme-commands {says}")
    assert run("list")[0] == 0


def test_a_command_that_is_not_installed_says_how_to_install_it(run, installed):
    installed()
    for arguments in (("finetune", "snac_24khz", "--data", "here"), ("finetune", "--help"), ("finetune",)):
        code, _, err = run(*arguments)
        assert code == 6
        assert re.match(r"error: finetune needs blazen-codec-training: pip install \S*training", err)
    assert re.search(r"finetune +Fine-tune a model", run("--help")[1])


def test_warm_up(run):
    code, out, _ = run("warm-up", "snac_tiny", "dac_tiny", "--json")
    assert code == 0
    assert [row["codec"] for row in json.loads(out)] == ["snac:snac_tiny", "dac:dac_tiny"]
    assert run("warm-up", "snac_tinny")[0] == 3


@pytest.mark.slow
def test_nothing_is_compiled_after_a_warm_up(tmp_path):
    pytest.importorskip("numba", reason="numba, which compiles the kernels, is not installed")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def warm_up():
        command = [sys.executable, "-m", "blazen_codec_core", "warm-up", "snac_tiny"]
        done = subprocess.run(command, check=True, env=environment, stderr=subprocess.PIPE, text=True)
        said.append(done.stderr.count("notice: compiling kernels"))
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.loop")}

    said: list[int] = []
    compiled = warm_up()
    assert compiled
    assert warm_up() == compiled
    assert said == [1, 0]


def test_tokens_and_back_at_the_rate_and_length_of_the_original(run, speech, tmp_path):
    code, _, err = run("encode", speech, "-c", "snac_tiny", "-o", "a.tokens", *RANDOM)
    assert code == 0
    assert "resampled from 44100 to 24000 Hz" in err
    tokens = bc.CodecTokens.open(tmp_path / "a.tokens")
    assert (tokens.streams, tokens.channels) == (2, 2)
    assert tokens.source == bc.Source(44_100, soundfile.info(speech).frames)
    code, _, err = run("decode", "a.tokens", "-o", "back.wav", "--device", "cpu")
    assert code == 0
    assert "back to 44100 Hz" in err
    info = soundfile.info(tmp_path / "back.wav")
    assert (info.samplerate, info.channels, info.frames) == (44_100, 2, soundfile.info(speech).frames)


def test_the_command_line_gives_the_tokens_of_the_library(run, tmp_path, codecs):
    pcm = voice(1.1, 24_000)
    soundfile.write(tmp_path / "a.wav", pcm, 24_000, subtype="FLOAT")
    run("encode", "a.wav", "-c", "snac_tiny", "-o", "a.tokens", *RANDOM)
    assert bc.CodecTokens.open(tmp_path / "a.tokens") == codecs("snac_tiny").encode(pcm, 24_000)
    run("decode", "a.tokens", "-o", "a.flac")
    wanted = codecs("snac_tiny").decode(codecs("snac_tiny").encode(pcm, 24_000))
    assert np.abs(audio.read(tmp_path / "a.flac")[0] - wanted).max() < 1e-4


def test_roundtrip_measures_and_draws(run, speech, tmp_path):
    code, out, _ = run("roundtrip", speech, "-c", "snac_tiny", "--plot", "p.png", "--json", *RANDOM)
    assert code == 0
    summary = json.loads(out)
    assert {"kbps", "encode_real_time_factor", "decode_real_time_factor", "si_sdr_db", "log_mel_distance"} <= summary.keys()
    assert (tmp_path / "in.snac_tiny.wav").exists()
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("roundtrip", speech, "-c", "snac_tiny", "-o", "b.wav", *RANDOM)
    assert "SI-SDR" in out
    assert run("roundtrip", speech, "-c", "snac_tiny", "--quiet", *RANDOM)[1] == ""


def test_the_authors_engine_from_the_command_line(run, speech):
    for engine in ("native", "upstream"):
        assert run("encode", speech, "-c", "snac_tiny", "-o", f"{engine}.tokens", "--engine", engine, *RANDOM)[0] == 0
        assert run("decode", f"{engine}.tokens", "-o", f"{engine}.wav", "--engine", engine, "--device", "cpu")[0] == 0
    a, b = (audio.read(f"{engine}.wav")[0] for engine in ("native", "upstream"))
    assert bc.CodecTokens.open("native.tokens") == bc.CodecTokens.open("upstream.tokens")
    assert np.abs(a - b).max() < 2e-4


def test_channels_are_made_to_suit_the_codec_and_back(run, tmp_path):
    """One channel is copied for a stereo codec and mixed down again; several are mixed down when that is asked for."""
    mono = voice(0.6, 44_100)
    audio.write(tmp_path / "mono.wav", mono, 44_100)
    audio.write(tmp_path / "stereo.wav", np.stack([mono, -0.5 * mono]), 44_100)
    _, _, err = run("encode", "mono.wav", "-c", "encodec_48khz", "-o", "a.tokens", *RANDOM)
    assert "one channel copied to 2" in err
    tokens = bc.CodecTokens.open("a.tokens")
    assert (tokens.channels, tokens.source) == (2, bc.Source(44_100, mono.size, 1))
    assert "2 channels mixed down to one" in run("decode", "a.tokens", "-o", "back.wav", "--device", "cpu")[2]
    assert audio.read("back.wav")[0].shape == (1, mono.size)

    _, _, err = run("encode", "stereo.wav", "-c", "snac_tiny", "--mono", "-o", "b.tokens", *RANDOM)
    assert "2 channels mixed down to one" in err
    assert bc.CodecTokens.open("b.tokens").channels == 1
    run("encode", "stereo.wav", "-c", "encodec_48khz", "-o", "c.tokens", "-b", "3", *RANDOM)
    stereo = bc.CodecTokens.open("c.tokens")
    assert (stereo.channels, stereo.num_codebooks, stereo.source.channels) == (2, 2, None)
    run("decode", "c.tokens", "-o", "back.wav", "--force", "--device", "cpu")
    assert audio.read("back.wav")[0].shape == (2, mono.size)
    code, out, _ = run("roundtrip", "stereo.wav", "-c", "encodec", "--mono", "--json", *RANDOM)
    assert code == 0
    assert json.loads(out)["kbps"] == pytest.approx(6, abs=0.2)


def test_verify(run, speech):
    code, out, _ = run("verify", "snac_tiny", "--json", *RANDOM)
    assert code == 0
    assert json.loads(out)["passed"]
    assert run("verify", "snac_tiny", "--audio", speech, *RANDOM)[0] == 0


def test_verify_fails_where_they_differ(run, monkeypatch):
    from blazen_codec_snac.upstream import UpstreamSnacBackend

    honest = UpstreamSnacBackend.decode_whole
    monkeypatch.setattr(UpstreamSnacBackend, "decode_whole", lambda self, tokens: honest(self, tokens) + 1e-3)
    code, out, _ = run("verify", "snac_tiny", *RANDOM)
    assert code == 1
    assert "FAILED" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["encode", "in.wav", "-c", "snac_tin", "-o", "a.tokens"], 3, "did you mean snac_tiny"),
        (["encode", "none.wav", "-c", "snac_tiny", "-o", "a.tokens"], 2, "not a file"),
        (["encode", "text.wav", "-c", "snac_tiny", "-o", "a.tokens"], 5, "cannot be read as audio"),
        (["encode", "in.wav", "-c", "snac_tiny", "-o", "a.xyz"], 2, "expected one of .tokens"),
        (["encode", "in.wav", "-c", "snac_tiny", "-o", "none/a.tokens"], 2, "not a directory"),
        (
            ["encode", "in.wav", "-c", "snac_tiny", "-o", "a.tokens", "-b", "99"],
            2,
            "bandwidth is 99.0; snac_tiny supports 2.75 kbps",
        ),
        (["encode", "in.wav", "-c", "snac_tiny", "-o", "a.tokens", "--device", "cuda:99"], 6, "cuda:99"),
        (["encode", "in.wav", "-c", "snac_tiny", "-o", "a.tokens", "--weights", "no/where/else"], 4, "no such file"),
        (["encode", "in.wav", "-c", "snac_24khz", "-o", "a.tokens", "--offline"], 4, "by hand"),
        (
            ["encode", "in.wav", "-c", "snac_tiny", "-o", "a.ecdc"],
            5,
            "tokens are of snac_tiny; an .ecdc file holds encodec_24khz and encodec_48khz",
        ),
        (["encode", "in.wav", "-c", "encodec", "-o", "a.ecdc", "-O", "lm"], 2, "expected NAME=VALUE"),
        (["encode", "in.wav", "-c", "encodec", "-o", "a.ecdc", "-O", "level=9"], 2, "no option 'level'; options are: lm"),
        (
            ["encode", "in.wav", "-c", "encodec", "-o", "a.ecdc", "-b", "5"],
            2,
            "bandwidth is 5.0; encodec_24khz supports 1.5, 3, 6, 12 or 24 kbps",
        ),
        (["encode", "in.wav", "-c", "encodec", "-o", "a.tokens", "-O", "lm=on"], 2, "container files have no option"),
        (["encode", "in.wav", "-c", "encodec", "-o", "a.tokens", "--offline"], 4, "encodec_24khz-d7cc33bc.th is in none of"),
        (["decode", "text.tokens", "-o", "a.wav"], 5, "not a token container"),
        (["decode", "none.tokens", "-o", "a.wav"], 2, "not a file"),
        (["roundtrip", "in.wav"], 2, "--codec"),
        (["nonsense"], 2, "No such command"),
        (["info", "nonsense"], 3, "installed are"),
    ],
)
def test_what_goes_wrong_is_said_and_leaves_nothing(run, speech, tmp_path, arguments, code, says):
    for name in ("text.wav", "text.tokens"):
        (tmp_path / name).write_text("hello")
    before = sorted(os.listdir(tmp_path))
    got, out, err = run(*arguments)
    assert got == code
    assert says in err
    assert out == ""
    assert sorted(os.listdir(tmp_path)) == before


def test_tokens_of_another_codec_need_its_plugin(run, tmp_path):
    tokens = bc.CodecTokens("other:other_8khz", (np.zeros((1, 2), int),), (1,), 8, 8000, 10, 20)
    tokens.save(tmp_path / "a.tokens")
    code, _, err = run("decode", "a.tokens", "-o", "a.wav")
    assert code == 3
    assert "other:other_8khz" in err


def test_an_interrupt_has_its_own_exit_code(run, speech, monkeypatch):
    from blazen_codec_core.cli import files

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "encode_file", interrupted)
    assert run("encode", speech, "-c", "snac_tiny", "-o", "a.tokens", *RANDOM)[0] == 130


def test_outputs_have_names_and_replace_nothing_unasked(run, speech, tmp_path):
    """`encode`, `decode` and `roundtrip` name their outputs by the input, in the current folder."""
    (tmp_path / "elsewhere").mkdir()
    speech = speech.rename(tmp_path / "elsewhere" / "in.wav")
    for arguments, made in (
        (["encode", speech, "-c", "snac_tiny", "--mono", *RANDOM], "in.snac_tiny.tokens"),
        (["decode", "in.snac_tiny.tokens"], "in.snac_tiny.wav"),
    ):
        assert run(*arguments)[0] == 0
        (tmp_path / made).write_bytes((tmp_path / made).read_bytes() + b"mine")
        code, _, err = run(*arguments)
        assert (code, f"{made} exists; --force replaces it" in err) == (2, True)
        assert (tmp_path / made).read_bytes().endswith(b"mine")
        assert run(*arguments, "-f")[0] == 0
        assert not (tmp_path / made).read_bytes().endswith(b"mine")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "in.snac_tiny.tokens", "in.snac_tiny.wav"]
    for command in (["roundtrip", speech, "-c", "snac_tiny"], ["compare", speech, "-c", "snac_tiny", "-o", "in.html"]):
        (tmp_path / "in.html").touch()
        assert "--force replaces it" in run(*command)[2]
    for command in (["encode", "-", "-c", "snac_tiny"], ["decode", "-"]):
        assert "standard input has no name" in run(*command)[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["roundtrip", "in.wav", "-c", "snac_tiny", "-o", "-"],
        ["roundtrip", "in.wav", "-c", "snac_tiny", "--plot", "-"],
        ["evaluate", "snac_tiny", "--audio", "in.wav", "--no-pesq", "--plot", "-"],
    ],
)
def test_what_is_not_written_to_standard_output_says_so(run, speech, arguments):
    code, _, err = run(*arguments)
    assert (code, "not written to standard output" in err) == (2, True)
    assert not os.path.exists("-")


def test_a_report_is_a_web_page(run, speech):
    code, _, err = run("compare", speech, "-c", "snac_tiny", "-o", "report.pdf")
    assert (code, "end it in .html" in err) == (2, True)


def test_audio_and_tokens_in_each_others_place(run, speech, tmp_path):
    bc.CodecTokens("o:o", (np.zeros((1, 2), int),), (1,), 8, 8000, 10, 20).save(tmp_path / "a.tokens")
    for command in ("encode", "roundtrip"):
        code, _, err = run(command, "a.tokens", "-c", "snac_tiny")
        assert (code, "a.tokens is a file of tokens; blazen-codec decode" in err) == (2, True)
    for command in (["decode", "in.wav"], ["info", "in.wav"]):
        code, _, err = run(*command)
        assert (code, "in.wav has the suffix of audio; token files have one of .tokens" in err) == (2, True)


def test_a_number_of_codebooks_in_place_of_a_bandwidth(run, speech, tmp_path):
    assert run("encode", speech, "-c", "dac_tiny", "--num-codebooks", "3", "-o", "a.tokens", "--mono", *RANDOM)[0] == 0
    assert bc.CodecTokens.open(tmp_path / "a.tokens").num_codebooks == 3
    for command in (["encode", speech, "-c"], ["roundtrip", speech, "-c"], ["verify"]):
        code, _, err = run(*command, "dac_tiny", "--num-codebooks", "99", *RANDOM)
        assert (code, "num_codebooks is 99; dac_tiny supports 1 to 8" in err) == (2, True)
        assert "give only one" in run(*command, "dac_tiny", "--num-codebooks", "3", "-b", "3", *RANDOM)[2]


def test_info_of_a_file_of_tokens(run, tmp_path):
    codes = [np.zeros((1, 8 // stride), int) for stride in (4, 2, 1, 1)]
    tokens = bc.CodecTokens.from_codes(bc.Registry().find("snac_tiny").spec, codes, weights="random:7")
    dataclasses.replace(tokens, source=bc.Source(48_000, 3840)).save(tmp_path / "a.tokens")
    code, out, _ = run("info", "a.tokens")
    assert code == 0
    for part in ("snac:snac_tiny", "0.08 s, mono, 24000 Hz", "3840 samples at 48000 Hz", "with 2 4 8 8 tokens", "random:7"):
        assert part in out
    told = json.loads(run("info", "a.tokens", "--json")[1])
    assert (told["codec"], told["tokens"], told["source"]["num_samples"]) == ("snac:snac_tiny", [2, 4, 8, 8], 3840)
    dataclasses.replace(tokens, codec="other:other").save(tmp_path / "b.tokens")
    assert re.search("model +not installed: ", run("info", "b.tokens")[1])


def test_list_says_whether_weights_are_here(run, tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    here = {row["name"]: row["weights_at_hand"] for row in json.loads(run("list", "--json")[1])}
    assert here["snac_tiny"]
    assert not here["snac_24khz"]
    assert re.search(r"on disk +no; the first use downloads them", run("info", "snac_24khz")[1])


def test_roundtrip_measures_the_audio_not_the_16_bits_of_its_file(run, speech, tmp_path):
    scores = [
        json.loads(run("roundtrip", speech, "-c", "snac_tiny", "-o", name, "--json", *RANDOM)[1])["log_mel_distance"]
        for name in ("a.wav", "a.mp3")
    ]
    assert scores[0] == scores[1]


def test_as_a_module_and_its_version():
    done = subprocess.run([sys.executable, "-m", "blazen_codec_core", "-V"], capture_output=True, text=True, check=True)
    assert done.stdout == f"blazen-codec, version {bc.__version__}\n"


def test_doctor_reports_what_an_issue_needs(run, monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kernels"))
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.loop").write_bytes(b"123")
    code, out, _ = run("doctor", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["core"] == bc.__version__
    assert told["packages"]["numpy"] == np.__version__
    assert {row["name"] for row in told["plugins"]} == {record.name for record in bc.discover().records}
    [cpu] = [row for row in told["devices"] if row["device"] == "cpu"]
    assert cpu["error"] is None
    assert cpu["seconds"] > 0
    assert cpu["kernels"][-1] == "AtenBackend"
    assert told["processor"]["threads"] >= 1
    assert {key: told["caches"][-1][key] for key in ("files", "bytes")} == {"files": 1, "bytes": 3}
    assert "snac:snac_tiny" in told["weights"]
    _, out, _ = run("doctor")
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["core", "python", "system", "packages"]
    assert "for a second of audio" in out


def test_doctor_fails_with_a_device_that_does(run, monkeypatch):
    from blazen_codec_core.torch_backend.backend import TorchCodecBackend

    def fail(self):
        raise bc.InferenceError("out of luck")

    monkeypatch.setattr(TorchCodecBackend, "loaded", fail)
    code, out, _ = run("doctor")
    assert code == 1
    assert "FAILS: InferenceError: out of luck" in out


def test_the_shell_completes_commands_and_options():
    environment = {**os.environ, "_BLAZEN_CODEC_COMPLETE": "bash_complete"}

    def completed(words: str) -> str:
        told = environment | {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        command = [sys.executable, "-c", "from blazen_codec_core.cli.main import main; main()"]
        return subprocess.run(command, env=told, capture_output=True, text=True, check=False).stdout

    assert "plain,roundtrip" in completed("blazen-codec round")
    assert "plain,--num-codebooks" in completed("blazen-codec encode --num")

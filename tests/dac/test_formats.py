"""`.dac` files: exchanged with the authors' package, and hostile ones."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import pickletools
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance import strategies
from blazen_codec_core.conformance.signals import voice
from blazen_codec_dac import restricted_unpickler
from blazen_codec_dac.formats import HEAD, ONE_OBJECT, DacFormat
from blazen_codec_dac.specs import WINDOW_FRAMES, WINDOW_PADDED
from tests.helpers.narrow_dac import AUTHORS, BY_NAME
from tests.helpers.upstream_dac import Authors

SMALL = BY_NAME["dac_16khz"]
FORMAT = DacFormat(AUTHORS)
pytestmark = pytest.mark.usefixtures("narrow_networks")


@pytest.fixture(scope="module")
def authors(codecs):
    made: dict[str, Authors] = {}

    def get(name: str) -> Authors:
        if name not in made:
            made[name] = Authors(codecs(name, engine="upstream"))
        return made[name]

    return get


def speech(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """Channels that are not equally loud."""
    return np.stack([voice(seconds, rate, channel) * (0.3 + channel) for channel in range(channels)])


def codes_of(channels: int = 1, books: int = 3, frames: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, (channels, books, frames)).astype(np.uint16)


def artifacts(codes: np.ndarray | None = None, **changes) -> dict:
    """What is in a file of a second at 16 kHz."""
    codes = codes_of() if codes is None else codes
    metadata = {
        "input_db": np.array([-20.5], np.float32),
        "original_length": 16_000,
        "sample_rate": 16_000,
        "chunk_length": codes.shape[2],
        "channels": codes.shape[0],
        "padding": True,
        "dac_version": "1.0.0",
    }
    return {"codes": codes, "metadata": {**metadata, **changes}}


def saved(path: Path, content: dict) -> Path:
    with path.open("wb") as file:
        np.save(file, content)
    return path


def pickled(data: bytes) -> bytes:
    """A file whose pickle is this."""
    header = ONE_OBJECT + b" " * (117 - len(ONE_OBJECT)) + b"\n"
    return HEAD + struct.pack("<H", len(header)) + header + data


EXCHANGED = [
    ("dac_16khz", 1, {"win_duration": None}),
    ("dac_16khz", 2, {"win_duration": 0.7, "n_quantizers": 3}),
    ("dac_16khz", 1, {"win_duration": 5.0, "normalize_db": None}),
    ("dac_24khz", 1, {"win_duration": 0.6, "n_quantizers": 32}),
    ("dac_44khz", 1, {"win_duration": 0.4}),
    ("dac_44khz", 1, {"win_duration": None}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels", "options"), EXCHANGED)
def test_what_the_authors_write_decodes_as_they_decode_it(codecs, authors, tmp_path, name, channels, options):
    codec, theirs = codecs(name), authors(name)
    pcm = speech(codec.sample_rate, 0.91, channels)  # not the end of a frame, where their tool fails
    path = theirs.compress(pcm, tmp_path / "theirs.dac", **options)
    tokens = FORMAT.read(path)
    assert tokens.codec == codec.spec.identity
    assert (tokens.num_samples, tokens.channels) == (pcm.shape[1], channels)
    assert bool(tokens.extra) == (options["win_duration"] is not None and options["win_duration"] < 0.9)
    assert tokens.extra.get(WINDOW_PADDED, False) is False
    audio, wanted = codec.decode(tokens), theirs.decompress(path)
    assert audio.shape == wanted.shape == pcm.shape
    assert np.abs(wanted).max() > 0.01
    assert np.abs(audio - wanted).max() < 1e-5
    if not tokens.extra:
        level = options.get("normalize_db", -16)
        mine = codec.encode(pcm, codec.sample_rate, normalize_db=level)
        assert all(map(np.array_equal, mine.codes, tokens.codes))
        if level is not None:
            assert mine.loudness == pytest.approx(tokens.loudness, abs=1e-3)
    tokens.save(tmp_path / "a.tokens")
    assert bc.CodecTokens.open(tmp_path / "a.tokens") == tokens
    FORMAT.write(tokens, tmp_path / "ours.dac")
    assert (tmp_path / "ours.dac").read_bytes() == path.read_bytes() or channels > 1
    assert FORMAT.read(tmp_path / "ours.dac") == tokens


@pytest.mark.parametrize("normalize_db", [None, -16.0])
@pytest.mark.parametrize(("name", "channels"), [("dac_16khz", 2), ("dac_44khz", 1)])
def test_what_we_write_the_authors_decode_as_we_do(codecs, authors, tmp_path, name, channels, normalize_db):
    """Also where channels are not equally loud: a file says it for each, which the authors' tool understands."""
    codec, theirs = codecs(name), authors(name)
    pcm = speech(codec.sample_rate, 0.6, channels)[:, : codec.spec.hop_length * 24]
    pcm = pcm[:, :-20]  # at the very end of a frame the authors' decoder falls short, and their tool fails
    tokens = codec.encode(pcm, codec.sample_rate, normalize_db=normalize_db, num_codebooks=5)
    FORMAT.write(tokens, tmp_path / "a.dac")
    audio = codec.decode(tokens)
    heard = theirs.decompress(tmp_path / "a.dac")
    assert audio.shape == heard.shape == pcm.shape
    assert np.abs(audio - heard).max() < 1e-4
    back = FORMAT.read(tmp_path / "a.dac")
    assert all(map(np.array_equal, back.codes, tokens.codes))
    assert np.abs(codec.decode(back) - audio).max() < 1e-5
    if normalize_db is not None:
        assert bc.integrated_loudness(audio, codec.sample_rate) == pytest.approx(
            bc.integrated_loudness(pcm, codec.sample_rate), abs=0.1
        )


def test_the_authors_tool_fails_at_the_very_end_of_a_frame_and_ours_does_not(codecs, authors, tmp_path):
    codec, theirs = codecs("dac_16khz"), authors("dac_16khz")
    pcm = speech(16_000, 0.5)[:, : 320 * 20]
    path = theirs.compress(pcm, tmp_path / "a.dac", win_duration=None)
    with pytest.raises(RuntimeError):
        theirs.decompress(path)
    assert codec.decode(FORMAT.read(path)).shape == pcm.shape


def test_recordings_at_another_rate(codecs, authors, tmp_path):
    codec, theirs = codecs("dac_16khz"), authors("dac_16khz")
    path = theirs.compress(speech(22_050, 0.8), tmp_path / "a.dac", rate=22_050, win_duration=0.7)
    tokens = FORMAT.read(path)
    assert tokens.codec == "dac:dac_16khz"
    assert tokens.source == bc.Source(22_050, 17_640)
    wanted = theirs.decompress(path)
    import julius  # with which the authors resample
    import torch

    audio = julius.resample_frac(torch.from_numpy(codec.decode(tokens)), 16_000, 22_050)[:, : wanted.shape[1]]
    assert audio.shape == wanted.shape
    assert np.abs(audio.numpy() - wanted).max() < 1e-4


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("chunk", [50, 25, 30, 80])
def test_windows_of_any_kind(tmp_path, chunk, padding):
    made = SMALL.architecture
    samples = [made.window_samples(n, padded=padding) for n in ((chunk, 50 - chunk) if chunk < 50 else (50,)) if n]
    plain = padding and chunk >= 50
    length = 16_000 if plain else sum(max(0, n) for n in samples)
    tokens = FORMAT.read(saved(tmp_path / "a.dac", artifacts(chunk_length=chunk, padding=padding, original_length=length)))
    assert tokens.extra == ({} if plain else {WINDOW_FRAMES: chunk, WINDOW_PADDED: padding})
    assert tokens.num_samples == length
    assert tokens.loudness == (-20.5,)


def test_which_model_a_file_is_of(tmp_path):
    """By what its frames can hold, the models of higher rates first."""
    for spec in AUTHORS:
        frames = round(spec.frame_rate)
        content = artifacts(
            codes_of(books=spec.num_codebooks, frames=frames),
            original_length=frames * spec.hop_length,
            sample_rate=spec.sample_rate,
        )
        assert FORMAT.read(saved(tmp_path / "a.dac", content)).codec == spec.identity
    content = artifacts(codes_of(books=9, frames=86), original_length=44_032, sample_rate=44_100)
    path = saved(tmp_path / "a.dac", content)
    assert FORMAT.read(path).codec == "dac:dac_44khz"
    assert FORMAT.read(path, model="dac_44khz_16kbps").codec == "dac:dac_44khz_16kbps"
    short = saved(tmp_path / "b.dac", artifacts(original_length=9000))
    assert FORMAT.read(short, model="dac_16khz").num_samples == 9000
    with pytest.raises(bc.InvalidInput, match="expected one of dac_44khz, "):
        FORMAT.read(path, model="dac_48khz")
    with pytest.raises(
        bc.CorruptFile, match="does not fit dac_24khz: 50 frames decode to 16000 samples, but the recording has 24000"
    ):
        FORMAT.read(saved(tmp_path / "a.dac", artifacts()), model="dac_24khz")


def test_what_cannot_be_written(tmp_path, codecs):
    tokens = bc.CodecTokens.from_codes(SMALL, [[1, 2, 3]])
    for wrong, says in (
        (dataclasses.replace(tokens, codec="snac:snac_24khz"), "tokens are of snac:snac_24khz; a .dac file holds dac_44khz, "),
        (dataclasses.replace(tokens, num_samples=0), "at least one frame"),
        (dataclasses.replace(tokens, source=bc.Source(8000, 100, 2)), "1 channels were 2"),
    ):
        with pytest.raises(bc.InvalidTokens, match=says):
            FORMAT.write(wrong, tmp_path / "a.dac", input_db="-20")
    for option, says in (({"input_db": "x"}, "LUFS"), ({"input_db": "nan"}, "LUFS"), ({"loud": "1"}, "no option 'loud'")):
        with pytest.raises(bc.InvalidInput, match=says):
            FORMAT.write(tokens, tmp_path / "a.dac", **option)
    with pytest.raises(bc.WeightsUnavailable):
        FORMAT.write(tokens, tmp_path / "a.dac", loading=bc.LoadOptions(offline=True, cache_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())
    FORMAT.write(tokens, tmp_path / "a.dac", input_db="-20")
    assert FORMAT.read(tmp_path / "a.dac", model="dac_16khz").loudness == (-20.0,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_numpy_has_written(tmp_path, protocol):
    content = artifacts()
    content["metadata"]["channels"] = np.int64(1)
    wrapped = np.array(content, dtype=object)
    path = tmp_path / "a.dac"
    path.write_bytes(pickled(pickle.dumps(wrapped, protocol=protocol)))
    if protocol in (3, 4):  # the ones of NumPy's own writer
        assert np.array_equal(FORMAT.read(path).codes[2], content["codes"][:, 2])
    else:
        with pytest.raises(bc.CorruptFile):
            FORMAT.read(path)


class TouchesAFile:
    """A pickle of this creates a file when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def payloads(trap: Path) -> dict[str, object]:
    code = f"open({str(trap)!r}, 'w').close()"
    return {
        "system": TouchesAFile(os.system, f"touch {trap}"),
        "exec": TouchesAFile(exec, code),
        "eval": TouchesAFile(eval, f"open({str(trap)!r}, 'w')"),
        "open": TouchesAFile(open, str(trap), "w"),
        "popen": TouchesAFile(subprocess.Popen, ["touch", str(trap)]),
        "mkdir": TouchesAFile(os.mkdir, str(trap)),
    }


KINDS = ["system", "exec", "eval", "open", "popen", "mkdir"]


@pytest.mark.filterwarnings("ignore")  # of the files and processes that the payloads leave open
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["alone", "codes", "input_db", "extra"])
def test_hostile_pickles_run_nothing(tmp_path, kind, place):
    trap = tmp_path / "trap"
    bomb = payloads(trap)[kind]
    path = tmp_path / "a.dac"
    if place == "alone":
        path.write_bytes(pickled(pickle.dumps(bomb, protocol=4)))
    else:
        content = artifacts()
        if place == "codes":
            content["codes"] = bomb
        else:
            content["metadata"][place] = bomb
        saved(path, content)
    with pytest.raises(bc.CorruptFile, match=r"it names|which neither arrays"):
        FORMAT.read(path)
    assert not trap.exists()
    np.load(path, allow_pickle=True)  # which is what the authors' tool does
    for _ in range(6000):  # some payloads run in a process of their own
        if trap.exists():
            break
        time.sleep(0.01)
    assert trap.exists(), "the payload is harmless, so the test shows nothing"


def test_hostile_names_written_by_hand(tmp_path):
    trap = tmp_path / "trap"
    touch = f"touch {trap}".encode()
    text = pickle.SHORT_BINUNICODE + bytes([len(touch)]) + touch
    programs = {
        "global": b"cposix\nsystem\n" + text + b"\x85R.",
        "inst": b"(" + text + b"iposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + text + b"o.",
        "newobj": b"csubprocess\nPopen\n" + text + b"\x85\x81.",
        "ext": b"\x82\x01.",
        "persid": b"Pposix\n.",
        "dotted": b"cnumpy\nf2py.os.system\n" + text + b"\x85R.",
        "stack": b"\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.",
        "unnamed": b"}]\x93.",
        "build": b"cnumpy\nndarray\n}(\x8c\x08__call__cnumpy\ndtype\nub.",
        "twice": b"cnumpy\ndtype\n\x8c\x02u2\x88\x89\x87RR.",
        "next buffer": b"\x97.",
    }
    for name, program in programs.items():
        (tmp_path / "a.dac").write_bytes(pickled(b"\x80\x04" + program))
        with pytest.raises(bc.CorruptFile):
            FORMAT.read(tmp_path / "a.dac")
        assert not trap.exists(), name


CHANGES = {
    "version": ({"dac_version": "2.0.0"}, "version is '2.0.0'"),
    "no padding": ({"padding": None}, "padding: Field required"),
    "length": ({"original_length": 0}, "original_length: Input should be greater"),
    "longer": ({"original_length": 16_322}, "50 frames decode to 16000 samples"),
    "huge": ({"original_length": 2**62}, "original_length: Input should be less"),
    "float": ({"original_length": 16_000.0}, "original_length: Input should be a valid integer"),
    "text": ({"sample_rate": "16000"}, "sample_rate: Input should be a valid integer"),
    "rate": ({"sample_rate": 1}, "frames decode to"),
    "chunk": ({"chunk_length": 0}, "chunk_length: Input should be greater"),
    "short windows": ({"chunk_length": 5, "padding": False}, "decode to 0 samples"),
    "channels": ({"channels": 2}, "has 2 channels, but its codes have 1"),
    "loudness": ({"input_db": np.array([np.nan], np.float32)}, "input_db.0: Input should be a finite number"),
    "too loud": ({"input_db": np.array([1e30], np.float32)}, "expected a number in LUFS"),
    "too high": ({"sample_rate": 2**33, "original_length": 2**33}, "sample_rate: Input should be less"),
    "levels": ({"input_db": np.zeros(3, np.float32)}, "input_db"),
    "no level": ({"input_db": "loud"}, "input_db: Input should be a valid"),
    "unknown": ({"more": 1}, "more: Extra inputs"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_lying_metadata(tmp_path, change):
    values, says = CHANGES[change]
    with pytest.raises(bc.CorruptFile, match=says):
        FORMAT.read(saved(tmp_path / "a.dac", artifacts(**values)))


CODES = {
    "floats": np.zeros((1, 3, 50)),
    "flat": np.zeros(150, np.uint16),
    "empty": np.zeros((1, 3, 0), np.uint16),
    "too large": np.full((1, 3, 50), 1024, np.uint16),
    "negative": np.full((1, 3, 50), -1, np.int16),
    "too many books": np.zeros((1, 33, 50), np.uint16),
    "texts": np.full((1, 3, 50), "a"),
    "objects": np.full((1, 3, 50), None),
    "dates": np.zeros((1, 3, 50), "M8[s]"),
    "fields": np.zeros((1, 3, 50), [("a", "u2")]),
}


@pytest.mark.parametrize("kind", CODES)
def test_codes_that_are_none(tmp_path, kind):
    content = artifacts()
    content["codes"] = CODES[kind]
    with pytest.raises(bc.CorruptFile):
        FORMAT.read(saved(tmp_path / "a.dac", content))


@pytest.mark.parametrize("content", [[1], {"codes": 1}, {"codes": codes_of(), "metadata": 3}, 7, "text", None])
def test_other_content(tmp_path, content):
    with pytest.raises(bc.CorruptFile):
        FORMAT.read(saved(tmp_path / "a.dac", content))


def test_arrays_of_other_orders_and_types(tmp_path):
    codes = codes_of(channels=2)
    for array in (np.asfortranarray(codes), codes.astype(">u2"), codes.astype(np.int64), codes[::-1][:, ::-1][::-1, ::-1]):
        tokens = FORMAT.read(saved(tmp_path / "a.dac", artifacts(array)))
        assert np.array_equal(np.stack(tokens.codes, axis=1), codes)


def test_files_that_are_none(tmp_path):
    with pytest.raises(bc.InvalidInput, match="is not a file"):
        FORMAT.read(tmp_path)
    for data in (b"", HEAD, HEAD + b"\xff\xff", b"RIFF", pickled(b""), pickled(b"."), pickled(b"\x80\x04"), pickled(b"N.N.")):
        (tmp_path / "a.dac").write_bytes(data)
        with pytest.raises(bc.CorruptFile):
            FORMAT.read(tmp_path / "a.dac")


BOMBS = """
import pickle, resource, struct, sys, time
from pathlib import Path
import blazen_codec_core as bc
from blazen_codec_dac.formats import DacFormat
from tests.dac.test_formats import pickled
path = Path(sys.argv[1])
def laughs(before, after):
    return before + b"]" + b"(" + b"\\x8c\\x03lol" * 10 + b"e" + b"".join(
        b"\\x94](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"e" for n in range(60)) + after
bombs = {
    "laughs as a name": laughs(b"\\x80\\x04", b"\\x8c\\x01a\\x93."),
    "laughs as a value": laughs(b"\\x80\\x04}\\x8c\\x05codesK\\x01s}\\x8c\\x0foriginal_length", b"s."),
    "a far memo": b"\\x80\\x04]r\\xff\\xff\\xff\\x7f.",
    "a long text": b"\\x80\\x04\\x8d" + struct.pack("<Q", 2**40) + b"a.",
    "long bytes": b"\\x80\\x04\\x8e" + struct.pack("<Q", 2**62) + b"a.",
    "a long number": b"\\x80\\x04\\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "a long number in digits": b"L" + b"9" * 4000 + b"L\\n.",
    "nested": b"\\x80\\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "nested tuples": b"\\x80\\x04)" + b"\\x85" * 200_000 + b"\\x8c\\x01a\\x93.",
    "a frame": b"\\x80\\x04\\x95" + struct.pack("<Q", 2**63) + b"N.",
    "many marks": b"\\x80\\x04" + b"(" * 300_000 + b".",
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, data in bombs.items():
    path.write_bytes(pickled(data))
    started = time.process_time()
    try:
        DacFormat().read(path)
    except bc.CorruptFile:
        pass
    else:
        raise SystemExit(f"{name} was read")
    if time.process_time() - started > 10:
        raise SystemExit(f"{name} took long")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_bombs_take_neither_memory_nor_time(tmp_path, root):
    run = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path / "a.dac")],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    print(f"MiB taken by all bombs: {float(run.stdout):.1f}")
    assert float(run.stdout) < 128


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_noticed_or_gives_tokens(data):
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder) / "a.dac", artifacts(codes_of(frames=5), original_length=1600, chunk_length=5))
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["change", "cut", "insert", "drop"]))
            place = data.draw(st.integers(0, max(0, len(whole) - 1)))
            if kind == "change" and whole:
                whole[place] = data.draw(st.integers(0, 255))
            elif kind == "cut":
                del whole[place:]
            elif kind == "insert":
                whole[place:place] = data.draw(st.binary(max_size=8))
            elif whole:
                del whole[place]
        path.write_bytes(whole)
        try:
            tokens = FORMAT.read(path)
        except bc.CorruptFile:
            return
        assert tokens.num_codebooks <= 32


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda some: st.lists(some, max_size=4) | st.tuples(some, some) | st.dictionaries(st.text(max_size=5), some, max_size=4),
    max_leaves=12,
)
PROTOCOLS = st.integers(2, pickle.HIGHEST_PROTOCOL)


@given(value=PLAIN, protocol=PROTOCOLS)
def test_plain_values_are_read_as_they_are(value, protocol):
    assume(protocol > 2 or not re.search("b['\"]", repr(value)))  # whose bytes are made by a function
    assert repr(restricted_unpickler.load(pickle.dumps(value, protocol))) == repr(value)


class WithoutNames(pickle.Unpickler):
    """Python's own, which calls nothing."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"{module}.{name} is asked for")


@settings(max_examples=1000)
@given(data=st.data())
def test_any_bytes_are_the_value_that_python_reads_or_a_value_error(data):
    whole = pickle.dumps(data.draw(PLAIN), data.draw(PROTOCOLS))
    damaged = data.draw(st.binary(max_size=200) | strategies.damaged(whole))
    try:
        found = restricted_unpickler.load(damaged)
    except (ValueError, RecursionError):
        return
    assume(not {"EMPTY_SET", "FROZENSET"} & {opcode.name for opcode, _, _ in pickletools.genops(damaged)})  # read as lists
    try:
        wanted = WithoutNames(io.BytesIO(damaged), encoding="latin1").load()
    except Exception:  # of frames and protocols that ours passes over
        assert isinstance(found, None | bool | int | float | str | bytes | bytearray | list | tuple | dict)
    else:
        assert repr(found) == repr(wanted)

"""`.ecdc` files: exchanged with the authors' package, and hostile ones."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.conformance import strategies
from blazen_codec_core.conformance.signals import recording
from blazen_codec_encodec import arithmetic_coding
from blazen_codec_encodec.formats import HEAD, EcdcFormat
from tests.helpers.upstream_encodec import BY_NAME, LM_SEED, Authors

ENTROPY = [False, True]
FORMAT = EcdcFormat()  # loads each language model once for all tests


@pytest.fixture(scope="module")
def authors(codecs):
    made: dict[str, Authors] = {}

    def get(name: str) -> Authors:
        if name not in made:
            made[name] = Authors(codecs(name, engine="upstream"))
        return made[name]

    return get


def written(tokens: bc.CodecTokens, path: Path, entropy: bool) -> bytes:
    FORMAT.write(tokens, path, lm="on" if entropy else "off", lm_weights=LM_SEED)
    return path.read_bytes()


def read(data: bytes, path: Path) -> bc.CodecTokens:
    path.write_bytes(data)
    return FORMAT.read(path, lm_weights=LM_SEED)


@pytest.mark.slow
@pytest.mark.parametrize("coded", ENTROPY)
@pytest.mark.parametrize(
    ("name", "bandwidth", "samples"),
    [
        ("encodec_24khz", 1.5, 1),
        ("encodec_24khz", 1.5, 31_000),
        ("encodec_24khz", 6.0, 319),
        ("encodec_24khz", 24.0, 8_000),
        ("encodec_48khz", 3.0, 1),
        ("encodec_48khz", 6.0, 47_521),
        ("encodec_48khz", 24.0, 8_000),
    ],
)
def test_files_are_the_authors_both_ways(codecs, authors, monkeypatch, tmp_path, name, bandwidth, samples, coded):
    codec, theirs = codecs(name), authors(name)
    pcm = recording(codec.spec, 1.4)[:, :samples]
    tokens = codec.encode(pcm, codec.sample_rate, bandwidth=bandwidth)
    ours = written(tokens, tmp_path / "ours.ecdc", coded)
    reference = theirs.compress(pcm, bandwidth, coded)
    assert ours == reference

    back = read(reference, tmp_path / "theirs.ecdc")
    assert all(map(np.array_equal, back.codes, tokens.codes))
    assert (back.num_samples, back.codec) == (samples, tokens.codec)
    assert (back.scales is None) == (tokens.scales is None)
    assert back == dataclasses.replace(tokens, weights=None)
    heard = theirs.decompress(ours, monkeypatch)
    audio = codec.decode(back)
    assert audio.shape == heard.shape
    assert np.abs(audio - heard).max() < 1e-4


def test_lengths_that_the_authors_reader_gets_wrong(codecs, authors, monkeypatch, tmp_path):
    """Theirs counts 22 frames in 6720 samples of 320, for want of precision, and runs out of data in its own file."""
    codec, theirs = codecs("encodec_24khz"), authors("encodec_24khz")
    pcm = recording(codec.spec, 1)[:, :6720]
    data = theirs.compress(pcm, 6.0, False)
    with pytest.raises(EOFError):
        theirs.decompress(data, monkeypatch)
    assert read(data, tmp_path / "a.ecdc").frames == 21


def test_the_language_model_earns_its_time(codecs, tmp_path):
    """Where the model knows what comes, codes take fewer bits. An untrained one knows nothing: about 10 bits each."""
    tokens = codecs("encodec_24khz").encode(recording(BY_NAME["encodec_24khz"], 0.5), 24_000)
    plain, coded = (len(written(tokens, tmp_path / "a.ecdc", entropy)) for entropy in ENTROPY)
    assert plain < coded < 1.1 * plain
    import torch

    sure = torch.full((1024, 1), 1e-9)
    sure[7] = 1.0
    ends = arithmetic_coding.shares(sure)[:, 0].tolist()
    coder = arithmetic_coding.ArithmeticEncoder()
    for _ in range(5000):
        coder.push(ends[6], ends[7])
    data = coder.finish()
    assert len(data) <= 8
    assert arithmetic_coding.fewest_bits(5000, 1024) / 8 <= len(data)
    decoder = arithmetic_coding.ArithmeticDecoder(data, 0)
    assert [decoder.pull(ends) for _ in range(5000)] == [7] * 5000


@given(values=st.lists(st.integers(0, 1023), max_size=200), bits=st.just(10))
def test_packed_values_come_back(values, bits):
    data = arithmetic_coding.pack(np.array(values, np.int32), bits)
    assert len(data) == arithmetic_coding.packed_size(len(values), bits)
    assert arithmetic_coding.unpack(data, len(values), bits).tolist() == values


def test_many_packed_values_come_back():
    values = np.random.default_rng(0).integers(0, 1024, 3 * arithmetic_coding.BLOCK + 5)
    assert np.array_equal(arithmetic_coding.unpack(arithmetic_coding.pack(values, 10), values.size, 10), values)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 80), sharp=st.sampled_from([0.1, 1.0, 8.0]))
def test_arithmetically_coded_values_come_back(seed, count, sharp):
    import torch

    generator = torch.Generator().manual_seed(seed)
    tables = torch.softmax(sharp * torch.randn(count, 32, generator=generator), dim=1)
    ends = [arithmetic_coding.shares(table[:, None])[:, 0].tolist() for table in tables]
    codes = torch.multinomial(tables, 1, generator=generator)[:, 0].tolist()
    coder = arithmetic_coding.ArithmeticEncoder()
    for end, code in zip(ends, codes, strict=True):
        coder.push(end[code - 1] if code else 0, end[code])
    data = coder.finish() + b"more"
    decoder = arithmetic_coding.ArithmeticDecoder(data, 0)
    assert [decoder.pull(end) for end in ends] == codes
    assert decoder.end == len(data) - 4


class TestWhatAFileCannotHold:
    def test_another_codec(self, codecs, tmp_path):
        tokens = codecs("snac_tiny").encode(recording(codecs("snac_tiny").spec, 0.1), 24_000)
        with pytest.raises(bc.InvalidTokens, match=r"an .ecdc file holds encodec_24khz and encodec_48khz"):
            FORMAT.write(tokens, tmp_path / "a.ecdc")
        assert not list(tmp_path.iterdir())

    def test_several_streams(self, codecs, tmp_path):
        spec = BY_NAME["encodec_24khz"]
        tokens = codecs(spec.name).encode(recording(spec, 0.1, channels=2), 24_000)
        with pytest.raises(bc.InvalidTokens, match=r"there are 2 channels; an .ecdc file of encodec_24khz holds 1"):
            FORMAT.write(tokens, tmp_path / "a.ecdc")

    def test_frames_beyond_the_audio_and_missing_scales(self, tmp_path):
        short, stereo = BY_NAME["encodec_24khz"], BY_NAME["encodec_48khz"]
        long = bc.CodecTokens.from_codes(short, [np.zeros(5, int)] * 2, num_samples=320)
        with pytest.raises(bc.InvalidTokens, match="5 frames in 2 codebooks; 320 samples of encodec_24khz have 1 frames"):
            FORMAT.write(long, tmp_path / "a.ecdc")
        with pytest.raises(bc.InvalidTokens, match="file have scales"):
            FORMAT.write(bc.CodecTokens.from_codes(stereo, [np.zeros(5, int)] * 2), tmp_path / "a.ecdc")
        odd = bc.CodecTokens.from_codes(short, [np.zeros(5, int)] * 3)
        with pytest.raises(bc.InvalidTokens, match="2, 4, 8, 16 or 32 codebooks"):
            FORMAT.write(odd, tmp_path / "a.ecdc")

    def test_options_it_does_not_know(self, tmp_path):
        tokens = bc.CodecTokens.from_codes(BY_NAME["encodec_24khz"], [np.zeros(5, int)] * 2)
        with pytest.raises(bc.InvalidInput, match="no option 'level'; options are: lm, lm_weights"):
            FORMAT.write(tokens, tmp_path / "a.ecdc", level="9")
        with pytest.raises(bc.InvalidInput, match="is 'maybe'; expected on or off"):
            FORMAT.write(tokens, tmp_path / "a.ecdc", lm="maybe")
        with pytest.raises(bc.WeightsUnavailable, match=r"encodec_lm_24khz-1608e3c0\.th"):
            FORMAT.write(tokens, tmp_path / "a.ecdc", lm="on", loading=bc.LoadOptions(offline=True, cache_dir=str(tmp_path)))
        assert not list(tmp_path.glob("*.ecdc"))


def small(name: str, seed: int = 0) -> bc.CodecTokens:
    """Random tokens of a quarter of a second; of the stereo model two segments, of 1 s and less."""
    spec = BY_NAME[name]
    rng = np.random.default_rng(seed)
    samples = 6000 if spec.segment is None else 47_900
    frames = spec.segment.frames(samples, 320) if spec.segment else -(-samples // 320)
    scales = rng.uniform(0.01, 1, (1, spec.segment.count(samples))) if spec.segment else None
    codes = [rng.integers(0, 1024, frames) for _ in range(2)]
    return bc.CodecTokens.from_codes(spec, codes, num_samples=samples, scales=scales)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[tuple[str, bool], bytes]:
    folder = tmp_path_factory.mktemp("ecdc")
    return {(name, coded): written(small(name), folder / "a.ecdc", coded) for name in BY_NAME for coded in ENTROPY}


def with_header(data: bytes, **changes: object) -> bytes:
    """The file with other claims in its header."""
    size = HEAD.unpack_from(data)[2]
    header = {**json.loads(data[HEAD.size : HEAD.size + size]), **changes}
    text = json.dumps({name: value for name, value in header.items() if value is not None}).encode()
    return HEAD.pack(b"ECDC", 0, len(text)) + text + data[HEAD.size + size :]


LIES = [
    {"al": 2**62},
    {"al": 10**300},
    {"al": 10**9},
    {"al": 0},
    {"al": -5},
    {"al": 1.5},
    {"al": True},
    {"al": "6000"},
    {"al": None},
    {"al": 6001 + 320},
    {"al": 320},
    {"nc": 0},
    {"nc": 3},
    {"nc": 2**40},
    {"nc": -2},
    {"nc": None},
    {"nc": 4},
    {"m": "encodec_96khz"},
    {"m": None},
    {"m": 7},
    {"m": "x" * 10_000},
    {"lm": "yes"},
    {"lm": None},
    {"extra": [[[[[[]]]]]] * 10, "al": 7},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie)[:30])
@pytest.mark.parametrize("coded", ENTROPY)
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_lies_in_the_header(files, tmp_path, name, coded, lie):
    with pytest.raises(bc.CorruptFile, match=r"a\.ecdc is not an \.ecdc file, or is damaged"):
        read(with_header(files[name, coded], **lie), tmp_path / "a.ecdc")


@pytest.mark.parametrize("coded", ENTROPY)
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_files_that_break_off_or_go_on(files, tmp_path, name, coded):
    data = files[name, coded]
    body = HEAD.size + HEAD.unpack_from(data)[2]
    for cut in (0, 3, 8, 9, 20, body - 1, body, body + 1, body + 5, len(data) - 1):
        with pytest.raises(bc.CorruptFile):
            read(data[:cut], tmp_path / "a.ecdc")
    with pytest.raises(bc.CorruptFile):
        read(data + b"\0", tmp_path / "a.ecdc")
    if not coded:  # coded bits mean something to any model
        other = "encodec_48khz" if name == "encodec_24khz" else "encodec_24khz"
        with pytest.raises(bc.CorruptFile, match="take"):
            read(with_header(data, m=other), tmp_path / "a.ecdc")


@pytest.mark.parametrize("head", [b"", b"ECDC", b"RIFF" + bytes(40), b"ECDC\1" + bytes(40), HEAD.pack(b"ECDC", 0, 2**32 - 1)])
def test_what_is_no_such_file(tmp_path, head):
    with pytest.raises(bc.CorruptFile):
        read(head, tmp_path / "a.ecdc")


@pytest.mark.parametrize("text", [b"{", b"[" * 10_000, b"null", b"\xff\xfe", b'{"m":1}', b"{}" + b" " * 20_000])
def test_headers_that_are_none(tmp_path, text):
    with pytest.raises(bc.CorruptFile):
        read(HEAD.pack(b"ECDC", 0, len(text)) + text, tmp_path / "a.ecdc")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_none(files, tmp_path, scale):
    data = bytearray(files["encodec_48khz", False])
    struct.pack_into("!f", data, HEAD.size + HEAD.unpack_from(data)[2], scale)
    with pytest.raises(bc.CorruptFile, match="scales are invalid"):
        read(bytes(data), tmp_path / "a.ecdc")


def test_a_path_that_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.ecdc"):
        with pytest.raises(bc.InvalidInput, match="is not a file"):
            FORMAT.read(path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damage_is_an_error_or_other_tokens(files, data):
    """Bits flipped, bytes put in or taken out, anywhere: a `CodecError`, or tokens that this model can have."""
    name = data.draw(st.sampled_from(sorted(BY_NAME)))
    raw = data.draw(strategies.damaged(files[name, data.draw(st.sampled_from([False, False, True]))]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            tokens = read(raw, Path(folder) / "a.ecdc")
        except bc.CorruptFile:
            pass
        else:
            assert tokens.codec.removeprefix("encodec:") in BY_NAME
            assert all(code.min() >= 0 and code.max() < 1024 for code in tokens.codes)


HOSTILE = """
import sys, time
from pathlib import Path
import numpy as np
import blazen_codec_core as bc
from blazen_codec_encodec.formats import EcdcFormat
folder = Path(sys.argv[1])
reader = EcdcFormat()
good = sorted(folder.glob("good*"))
for path in good:
    reader.read(path, lm_weights="random:3")
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of loading, does not count
before, longest, count = peak(), 0.0, 0
for path in sorted(folder.glob("bad*")):
    began = time.perf_counter()
    try:
        reader.read(path, lm_weights="random:3")
    except bc.CorruptFile:
        count += 1
    longest = max(longest, time.perf_counter() - began)
print(count, peak() - before, longest)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
def test_hostile_files_take_little_memory_and_time(files, tmp_path):
    """Beyond the model, which the good files load first."""
    number = 0
    for (name, coded), data in files.items():
        (tmp_path / f"good-{name}-{coded}.ecdc").write_bytes(data)
        for lie in LIES:
            (tmp_path / f"bad-{number}.ecdc").write_bytes(with_header(data, **lie))
            number += 1
        for claim in (10**7, 10**8, 10**9):  # more samples, and data enough to be believed at first
            (tmp_path / f"bad-{number}.ecdc").write_bytes(with_header(data, al=claim) + bytes(300))
            number += 1
    run = subprocess.run([sys.executable, "-c", HOSTILE, str(tmp_path)], capture_output=True, text=True, check=True)
    refused, mebibytes, seconds = map(float, run.stdout.split())
    print(f"{refused:.0f} files refused, {mebibytes:.1f} MiB beyond the model, {seconds:.2f} s at most")
    assert refused == number
    assert mebibytes < 64


@pytest.mark.slow
def test_from_the_command_line(codecs, authors, monkeypatch, tmp_path):
    """`blazen-codec encode x.wav -c encodec_24khz -b 6 -o x.ecdc` makes what the authors' own code decodes, and the other way."""
    soundfile = pytest.importorskip("soundfile")
    pcm = recording(BY_NAME["encodec_24khz"], 0.7)
    soundfile.write(tmp_path / "x.wav", pcm[0], 24_000, subtype="FLOAT")

    def command(*arguments: str) -> None:
        program = [sys.executable, "-m", "blazen_codec_core.cli.main", *arguments, "--weights", "random:0", "--device", "cpu"]
        subprocess.run(program, check=True, cwd=tmp_path, capture_output=True)

    command("encode", "x.wav", "-c", "encodec_24khz", "-b", "6", "-o", "x.ecdc")
    data = (tmp_path / "x.ecdc").read_bytes()
    assert data == authors("encodec_24khz").compress(pcm, 6.0, False)
    heard = authors("encodec_24khz").decompress(data, monkeypatch)
    command("decode", "x.ecdc", "-o", "back.wav")
    back, rate = bc.read_audio(tmp_path / "back.wav")
    assert rate == 24_000
    assert np.abs(back - np.clip(heard, -1, 1)).max() < 1e-4 + 2 / 2**15

    stereo = np.stack([pcm[0], 0.5 * pcm[0]], axis=1)
    soundfile.write(tmp_path / "s.wav", stereo, 24_000, subtype="FLOAT")
    command("encode", "s.wav", "-c", "encodec_24khz", "-O", "lm=on", "-O", f"lm_weights={LM_SEED}", "-o", "s.ecdc")
    assert FORMAT.read(tmp_path / "s.ecdc", lm_weights=LM_SEED).num_codebooks == 8
    assert (tmp_path / "s.ecdc").read_bytes() == authors("encodec_24khz").compress(stereo.mean(axis=1)[None], 6.0, True)

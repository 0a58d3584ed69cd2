"""What small files may become: each is read in a process that may not have more memory than this."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import tarfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.dataset import shards, sources, tar_member
from blazen_codec_core.dataset.items import AudioItem, Fault
from blazen_codec_core.dataset.rows import Row

MOST = 900
"""MiB that a process may take, of which 300 are the libraries."""


def within(code: str, *arguments: object) -> str:
    """What a script prints; it may take so much memory, and a minute."""
    measured = "\nprint([int(line.split()[1]) >> 10 for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    command = [sys.executable, "-c", textwrap.dedent(code) + measured, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    *said, peak = done.stdout.splitlines()
    assert int(peak) < MOST, f"it took {peak} MiB"
    return "\n".join(said)


LISTING = """
    import sys, pathlib
    import blazen_codec_core as bc
    from blazen_codec_core.dataset import sources
    from blazen_codec_core.dataset.items import AudioItem
    from blazen_codec_core.dataset.parquet_cells import ParquetCells
    root, count, faults, cells = pathlib.Path(sys.argv[1]), 0, [], ParquetCells()
    try:
        found = sources.find(root, sys.argv[2:])
        for entry in found.entries:
            count += 1
            if isinstance(entry, AudioItem):
                try:
                    entry.open(found.root, cells)
                except bc.CodecError as error:
                    faults += [str(error)] if "page" in str(error) else []
            else:
                faults.append(entry.error)
    except bc.CodecError as error:
        faults.append(f"{type(error).__name__}: {error}")
    print(count, sorted(set(faults))[:1])
"""
TOKENS = """
    import sys
    import blazen_codec_core as bc
    try:
        for number, _ in enumerate(bc.read_tokens(sys.argv[1])):
            pass
        print(number)
    except bc.CodecError as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(autouse=True)
def nothing_kept():
    """Gives the memory back that large files were made in."""
    yield
    pa.default_memory_pool().release_unused()


@pytest.fixture(scope="module")
def tokens() -> bc.CodecTokens:
    return bc.load("snac_tiny", device="cpu").encode(voice(0.2, 24_000), 24_000)


def copies(count: int, size: int, kind: pa.DataType | None = None) -> pa.Array:
    """As many times the same text, which a file has once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * size], kind or pa.string()))


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_text_that_is_there_thousands_of_times_does_not_fill_the_memory(tmp_path, dictionary):
    """30 kB that were 7.6 GiB, and less for the sake of this test."""
    count = 800 if dictionary else 300
    text = copies(count, 1 << 20)
    table = pa.table(
        {"path": [f"{number}.wav" for number in range(count)], "text": text if dictionary else text.cast(pa.string())}
    )
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=dictionary, store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 400_000
    said = within(LISTING, tmp_path / "a.parquet", "text")
    assert said.startswith("800 ") if dictionary else "has a page of" in said


def test_a_list_of_a_text_is_not_copied_out(tmp_path):
    inner = pa.ListArray.from_arrays(pa.array([0, 800]), copies(800, 1 << 20))
    table = pa.table({"path": ["a.wav"], "words": inner})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert "a row has 801 list values of 838860800 bytes" in within(LISTING, tmp_path / "a.parquet", "words")
    assert within(LISTING, tmp_path / "a.parquet") == "1 []"  # what nobody asked for is not read


def test_seventy_million_values_in_a_few_bytes_are_refused(tmp_path):
    """A list of 70 000 000 zeros of 8 bits, as pyarrow writes it with zstd; making it takes a gigabyte."""
    bomb = Path(__file__).with_name("seventy_million_values.parquet")
    assert bomb.stat().st_size < 1000
    assert "70000000 list values; at most 67108864 are read" in within(LISTING, bomb, "numbers")
    few = pa.table({"path": ["a.wav", "b.wav"], "numbers": [np.zeros(2_000_000, np.uint8), [1]]})
    pq.write_table(few, tmp_path / "b.parquet")
    assert "b.parquet, row 1: a row has 2000001 list values" in within(LISTING, tmp_path / "b.parquet", "numbers")


def test_audio_that_a_file_has_once_for_many_rows_does_not_fill_the_memory(tmp_path):
    """2 kB that were 4 GiB."""
    audio = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array([b"R" + bytes(20 << 20)]))
    table = pa.table({"id": [str(number) for number in range(200)], "audio_bytes": audio})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    del audio, table
    assert (tmp_path / "a.parquet").stat().st_size < 5000
    assert within(LISTING, tmp_path / "a.parquet", "all") == "200 []"


def test_texts_that_repeat_the_begin_of_those_before_are_bounded_by_how_much_they_repeat(tmp_path):
    options = {"use_dictionary": False, "column_encoding": {"words.list.element": "DELTA_BYTE_ARRAY"}}
    for version, compression in (("1.0", "none"), ("1.0", "zstd"), ("2.0", "none"), ("2.0", "zstd")):
        words = [[f"word{number * place % 9973:08d}" for place in range(50)] for number in range(4000)]
        table = pa.table({"path": [f"{number}.wav" for number in range(4000)], "words": words})
        path = tmp_path / f"{version} {compression}.parquet"
        pq.write_table(table, path, data_page_version=version, compression=compression, **options)
        assert [entry.carried["words"] for entry in sources.find(path, ["words"]).entries] == words
    many = pa.ListArray.from_arrays(pa.array([0, 400]), pa.array(["x" * (1 << 20)] * 400))
    pq.write_table(pa.table({"path": ["a.wav"], "words": many}), tmp_path / "bomb.parquet", compression="zstd", **options)
    del many
    said = within(LISTING, tmp_path / "bomb.parquet", "words")
    assert "words.list.element takes 145 bytes, and a row may have 419430" in said


def test_a_row_of_very_many_names_takes_no_longer_than_it_is(tmp_path):
    row = {"path": "a.wav", **{f"key{number}": number for number in range(100_000)}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    begin = time.process_time()
    assert len(list(sources.find(tmp_path / "a.jsonl").entries)) == 1
    assert time.process_time() - begin < 3.5


@pytest.mark.slow  # the files are large while they are made
def test_cells_of_audio_that_grow_without_bound_are_refused(tmp_path):
    many = pa.StructArray.from_arrays([copies(250, 1 << 20, pa.binary()), pa.nulls(250, pa.string())], names=["bytes", "path"])
    pq.write_table(pa.table({"audio": many}), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert within(LISTING, tmp_path / "a.parquet").startswith("250 ")
    del many
    pa.default_memory_pool().release_unused()
    size = 260 << 20
    one = pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(np.array([0, size], np.int32)), pa.py_buffer(bytes(size))])
    pq.write_table(
        pa.table({"audio": pa.StructArray.from_arrays([one, pa.nulls(1, pa.string())], names=["bytes", "path"])}),
        tmp_path / "b.parquet",
        compression="zstd",
        use_dictionary=False,
    )
    assert "has a page of 272629" in within(LISTING, tmp_path / "b.parquet")


@pytest.mark.slow  # the files are large while they are made
def test_a_dataset_of_tokens_does_not_fill_the_memory_either(tmp_path, tokens):
    row = Row("a", "a.wav", tokens, 0.0, 24_000, 4800, 1)
    shards.FORMATS["parquet"].write(tmp_path / "good.parquet", bc.load("snac_tiny").spec, [row])
    good = pq.read_table(tmp_path / "good.parquet")
    codes = pa.ListArray.from_arrays(pa.array([0, 70_000_000]), pa.array(np.zeros(70_000_000, np.uint16)))
    bad = {
        "codes": ("codes", pa.ListArray.from_arrays(pa.array([0, 1]), codes), "list values; at most 67108864 are read"),
        "remarks": (
            "remarks",
            pa.ListArray.from_arrays(pa.array([0, 800]), copies(800, 1 << 20)),
            "values of 838860800 bytes",
        ),
    }
    for name, (column, values, says) in bad.items():
        path = tmp_path / f"{name}.parquet"
        table = good.set_column(good.schema.get_field_index(column), column, values)
        pq.write_table(table, path, compression="zstd", store_schema=False)
        assert path.stat().st_size < 500_000
        said = within(TOKENS, path)
        assert said.startswith("CorruptFile: ")
        assert says in said
    many = pa.concat_tables([good] * 800)
    many = many.set_column(many.schema.get_field_index("id"), "id", copies(800, 1 << 20))
    pq.write_table(many, tmp_path / "ids.parquet", compression="zstd", store_schema=False)
    assert within(TOKENS, tmp_path / "ids.parquet") == "799"


def test_rows_of_very_many_tokens_are_read_again(tmp_path, monkeypatch, tokens):
    """Silence of many hours: tokens that are all the same, which Parquet would pack into next to nothing."""
    from blazen_codec_core.dataset import parquet_pages

    same = dataclasses.replace(tokens, codes=tuple(np.full((code.shape[0], 2000 * code.shape[1]), 7) for code in tokens.codes))
    same = dataclasses.replace(same, num_samples=2000 * tokens.num_samples)
    few, many = (Row(name, "a.wav", own, 0.0, 24_000, 4800, 1) for name, own in (("few", tokens), ("many", same)))
    for limit in ("MOST_VALUES", "ROOM", "LARGEST_PAGE"):
        monkeypatch.setattr(parquet_pages, limit, 8 * few.values)
    shards.FORMATS["parquet"].write(tmp_path / "a.parquet", bc.load("snac_tiny").spec, [few, few, many, few])
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert [found for _, found in bc.read_tokens(tmp_path / "a.parquet")] == [tokens, tokens, same, tokens]


@pytest.mark.parametrize("options", [{"data_page_version": "2.0"}, {"use_dictionary": False}, {"compression": "none"}, {"x": 1}])
def test_files_of_all_kinds_are_read_as_before(tmp_path, options):
    names = [f"{number}.wav" for number in range(5000)]
    encoding = {"column_encoding": {"path": "DELTA_BYTE_ARRAY", "words.list.element": "DELTA_LENGTH_BYTE_ARRAY"}}
    if "x" in options:
        options = {**encoding, "use_dictionary": False}
    table = pa.table({"path": names, "words": [["a", name] for name in names], "n": [[1, number] for number in range(5000)]})
    pq.write_table(table, tmp_path / "a.parquet", data_page_size=999, row_group_size=1999, **options)
    found = list(sources.find(tmp_path / "a.parquet", ["words", "n"]).entries)
    assert [entry.path for entry in found] == names
    assert [entry.carried for entry in found] == [{"words": ["a", name], "n": [1, number]} for number, name in enumerate(names)]


def compressed_json(path: Path, text: bytes) -> Path:
    import gzip

    path.write_bytes(gzip.compress(text))
    return path


def test_a_line_of_json_is_no_more_than_so_many_objects(tmp_path):
    text = b'{"path": "a.wav", "x": [' + b"[]," * 1_100_000 + b'[]]}\n{"path": "b.wav"}\n'
    said = within(LISTING, compressed_json(tmp_path / "a.jsonl.gz", text))
    assert said.startswith("2 ['InvalidInput: a.jsonl.gz, row 1: the row holds more than 1048576 values")
    said = within(LISTING, compressed_json(tmp_path / "b.json.gz", b"[" + text.replace(b"\n", b",", 1) + b"]"))
    assert said.startswith("2 ['InvalidInput: b.json.gz, row 1: the row holds more than 1048576 values")


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, content: bytes = b"", **more: object) -> bytes:
    """A member of a tar, whose header may claim anything."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size or len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def negative(name: str, size: int = -512) -> bytes:
    block = bytearray(header(name))
    block[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(**told: str) -> bytes:
    records = b""
    for key, value in told.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + 1
        while length != len(body) + len(str(length)):
            length = len(body) + len(str(length))
        records += str(length).encode() + body
    return header("pax", tarfile.XHDTYPE, content=records)


def flac() -> bytes:
    content = io.BytesIO()
    soundfile.write(content, voice(0.1, 24_000), 24_000, format="FLAC")
    return content.getvalue()


GOOD = header("good.flac", content=flac())
END = bytes(1024)


@pytest.mark.parametrize(
    ("middle", "says"),
    [
        (negative("a.flac"), "'a.flac' has a size of -512 bytes"),
        (negative("a.txt", -1536), "'a.txt' has a size of -1536 bytes"),
        (pax(size="-512") + header("a.flac"), "'a.flac' has a size of -1 bytes"),
        (header("a.flac", size=10**12), "is truncated in a.flac"),
        (pax(size=str(10**12)) + header("a.flac"), "is truncated in a.flac"),
        (header("pax", tarfile.XHDTYPE, size=4 << 30), "a header extension has 4294967296 bytes"),
        (header("pax", tarfile.XGLTYPE, size=2 << 20), "a header extension has 2097152 bytes"),
        (header("long", tarfile.GNUTYPE_LONGNAME, size=2 << 20), "a header extension has 2097152 bytes"),
        (header("pax", tarfile.XHDTYPE, content=b"99 path=x\n"), "a header extension is damaged"),
        (header("s.wav", tarfile.LNKTYPE, linkname="good.flac"), "is a link to 'good.flac'"),
        (header("s.wav", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link to '/etc/passwd'"),
        (header("s.wav", tarfile.CHRTYPE), "a device or a pipe"),
        (header("s.wav", tarfile.FIFOTYPE), "a device or a pipe"),
        (header("s.wav", tarfile.GNUTYPE_SPARSE, content=flac()), "it is sparse"),
        (pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="s.wav", GNU__sparse__realsize=str(10**12))
         + header("x/GNUSparseFile.0/s.wav", content=b"1\n0\n5\n".ljust(512, b"\0") + flac()), "it is sparse"),
        (pax(GNU__sparse__map="0,5", GNU__sparse__size="99") + header("s.wav", content=flac()), "it is sparse"),
        (pax(GNU__sparse__major="2") + header("s.wav", content=flac()), "it is sparse"),
        (header("good.flac", content=flac()), "has the id 'good.flac'"),
    ],
)  # fmt: skip
def test_a_member_of_a_tar_that_is_not_what_it_says_costs_a_row(tmp_path, middle, says):
    (tmp_path / "a.tar").write_bytes(GOOD + middle + header("last.flac", content=flac()) + END)
    summary = bc.tokenize_dataset(tmp_path / "a.tar", "snac_tiny", tmp_path / "out", executor=bc.Executor(workers=1))
    assert says in summary.failures.read_text()
    is_int = "s.wav" in summary.failures.read_text() or "has the id" in says
    assert (summary.rows, summary.failed) == ((2, 1) if is_int else (1, 1))


def test_ten_thousand_headers_that_extend_each_other_are_read_in_order(tmp_path):
    (tmp_path / "a.tar").write_bytes(pax(comment="x") * 10_000 + pax(path="b.flac") + GOOD + END)
    assert [member.name for member in tar_member.members(tmp_path / "a.tar")] == ["b.flac"]


def test_tars_are_read_as_pythons_own_reader_does(tmp_path):
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            for name in ("a.flac", "f/" + "x" * 90 + "/b.flac", "ü.flac", *(["y" * 200 + ".flac"] if kind else [])):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(flac()), 0.5 if kind == tarfile.PAX_FORMAT else 0
                tar.addfile(info, io.BytesIO(flac()))
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        with tarfile.open(path) as tar:
            expected = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
        assert [member[:3] for member in tar_member.members(path)] == expected


def test_a_tar_of_tokens_has_no_holes_and_no_links(tmp_path, tokens):
    path = tmp_path / "a.tar"
    shards.FORMATS["tar"].write(path, bc.load("snac_tiny").spec, [Row("a", "a.wav", tokens, 0.0, 24_000, 4800, 1)])
    whole = path.read_bytes()
    assert len(list(bc.read_tokens(path))) == 1
    for bad, says in (
        (header("000001.json", tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link"),
        (pax(GNU__sparse__major="1", GNU__sparse__realsize=str(10**12)) + header("000001.tokens", content=b"x"), "sparse"),
        (negative("000001.tokens"), "has a size of -512 bytes"),
        (header("000001.json", content=b"[" * 100_000), "nested too deeply"),
        (
            header("000001.json", content=b'{"id": 3, "duration": 1}') + header("000001.tokens", content=b"x"),
            "id is int 3; expected text",
        ),
    ):
        path.write_bytes(bad + (header("000001.tokens", content=b"x") if b"[[" in bad else b"") + whole)
        with pytest.raises(bc.CorruptFile, match=says):
            list(shards.FORMATS["tar"].listing(path))


def test_faults_are_what_is_yielded_for_links(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + header("s.wav", tarfile.SYMTYPE, linkname="x") + END)
    found = list(sources.find(tmp_path / "a.tar").entries)
    assert [type(entry) for entry in found] == [AudioItem, Fault]


FOOTERS = """
    import pathlib, random, sys
    import blazen_codec_core as bc
    from blazen_codec_core.dataset import shards, sources
    path, refused = pathlib.Path(sys.argv[1]), 0
    good = path.read_bytes()
    begin = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for seed in range(2500):
        draw, data = random.Random(seed), bytearray(good)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(begin, len(good) - 8)] = draw.randrange(256)
        path.write_bytes(data)
        for read in (lambda: list(bc.read_tokens(path)), lambda: list(sources.find(path).entries)):
            try:
                read()
            except bc.CodecError:
                refused += 1
    print(refused > 2500)
"""


def test_a_damaged_footer_ends_no_process(tmp_path):
    """Arrow's own reader of where columns lie does, in one of some hundred."""
    columns = {
        "id": ["a", "b"],
        "path": ["a.wav", "b.wav"],
        "codes": [[[1, 2]], [[3]]],
        "header": ["x", "y"],
        "text": [["a"], ["b"]],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert within(FOOTERS, tmp_path / "a.parquet") == "True"

"""Whatever comes in at a public entry, nothing but `CodecError`s come out, in bounded time and memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import resource
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

import blazen_codec_core as bc
from blazen_codec_core.cli import files
from blazen_codec_core.comparison import compare, serialize, systems
from blazen_codec_core.conformance import strategies
from blazen_codec_core.conformance.signals import voice
from blazen_codec_core.data import Sample, TokenDataset, collate
from blazen_codec_core.dataset import codebook_usage, plan, run_state, seals, shards, sources
from blazen_codec_core.dataset.destination import Destination
from blazen_codec_core.dataset.items import AudioItem
from blazen_codec_core.dataset.rows import Row
from blazen_codec_core.evaluation import evaluate
from blazen_codec_core.nn.checkpoints.state_dicts import read_config
from blazen_codec_core.server.catalog import CodecCatalog, asked
from blazen_codec_core.tokens import container, flat
from tests.helpers.fuzzing import CASES, REFUSED, forget_peak, peak, throw
from tests.helpers.toy_codec import SPEC, ToyBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::blazen_codec_core.errors.OtherWeightsNotice"),  # tokens that are made up say anything
    pytest.mark.filterwarnings("ignore::blazen_codec_core.errors.ManyChannelsNotice"),  # so do shapes
]
MEMORY = 700
"""MiB that the process may grow by at its peak over all cases; two copies of a codec of 60 MB are among them."""
SNAC, ENCODEC = (bc.Registry().find(name).spec for name in ("snac_tiny", "encodec_24khz"))
JUNK = strategies.junk


@pytest.fixture(scope="module", autouse=True)
def memory(codecs):
    for name in ("snac_tiny", "encodec_24khz", "dac_16khz"):
        codecs(name).load()
    forget_peak()
    before = peak()
    yield
    grown = peak() - before
    assert grown < MEMORY, f"the process grew by {grown:.0f} MiB"


@pytest.fixture(scope="module")
def toy():
    return ToyBackend(SPEC, bc.LoadOptions(weights="random:0", device="cpu"))


PCM = np.random.default_rng(0).standard_normal(100).astype(np.float32) * 0.1


def fine(audio) -> None:
    assert np.isfinite(audio).all()


class TestAudio:
    def test_encode(self, toy):
        cases = st.tuples(strategies.pcm(SPEC), strategies.sample_rates(SPEC))
        throw("encode", 1500, cases, lambda case: fine(toy.decode(toy.encode(*case))))

    def test_encode_batch(self, toy):
        cases = st.tuples(st.one_of(st.lists(strategies.pcm(SPEC), max_size=3), JUNK), strategies.sample_rates(SPEC))
        throw("encode_batch", 500, cases, lambda case: toy.encode_batch(*case))

    def test_flat(self, toy):
        throw("encode_pcm", 300, strategies.pcm(SPEC), lambda pcm: toy.encode_pcm(pcm, 8000))

    def test_options(self, toy):
        options = st.fixed_dictionaries({}, optional=dict.fromkeys(("bandwidth", "num_codebooks", "normalize_db"), JUNK))
        throw("options of encode", 500, options, lambda chosen: toy.encode(PCM, 8000, **chosen))

    def test_sessions(self, toy):
        number = st.one_of(JUNK, st.integers(-3, 40))

        def work(case):
            channels, tile, pushes = case
            session = toy.encoder_session(channels, tile_frames=tile)
            for pcm in pushes:
                session.push(pcm)
            session.finish()

        throw("encoder sessions", 600, st.tuples(number, number, st.lists(strategies.pcm(SPEC), max_size=3)), work)

    def test_one_of_every_plugin(self, codecs):
        for name in ("snac_tiny", "encodec_24khz", "dac_16khz"):
            codec = codecs(name)
            cases = st.tuples(strategies.pcm(codec.spec), strategies.sample_rates(codec.spec))
            throw(f"encode of {name}", 120, cases, lambda case, codec=codec: codec.encode(*case))

    def test_resample(self):
        rates = st.one_of(st.integers(-2, 10), st.sampled_from([8000, 44_100, 2**31, 2**70]), JUNK)
        cases = st.tuples(strategies.pcm(SPEC), rates, rates)
        throw("resample", 500, cases, lambda case: bc.resample(*case))

    def test_loudness(self):
        cases = st.tuples(strategies.pcm(SPEC), st.one_of(st.integers(-1, 50_000), JUNK))
        throw("integrated_loudness", 300, cases, lambda case: bc.integrated_loudness(*case))

    def test_write_audio(self, tmp_path):
        suffixes = st.sampled_from([".wav", ".flac", ".ogg", ".mp3", ".xyz", ""])
        rates = st.one_of(st.sampled_from([8000, 0, -1, 2**40]), JUNK)

        def work(case):
            pcm, rate, suffix = case
            bc.write_audio(tmp_path / f"a{suffix}", pcm, rate)

        throw("write_audio", 300, st.tuples(strategies.pcm(SPEC), rates, suffixes), work)
        assert {path.stem for path in tmp_path.iterdir()} <= {"a"}


class TestTokens:
    def test_decode(self, toy):
        throw("decode", 1500, st.one_of(strategies.tokens(SPEC), JUNK), lambda tokens: fine(toy.decode(tokens)))

    def test_decode_batch(self, toy):
        items = st.one_of(st.lists(st.one_of(strategies.tokens(SPEC), JUNK), max_size=3), JUNK)
        throw("decode_batch", 500, items, toy.decode_batch)

    def test_flat(self, toy):
        cases = st.tuples(strategies.flat(SPEC), st.one_of(st.integers(-1, 3), JUNK))
        throw("decode_tokens", 700, cases, lambda case: fine(toy.decode_tokens(*case)))

    def test_sessions(self, toy):
        def work(case):
            tile, pushes = case
            player = toy.decoder_session(tile_frames=tile)
            for tokens in pushes:
                player.push(tokens)
            player.finish()

        tile = st.one_of(st.none(), st.integers(-2, 5), JUNK)
        throw("decoder sessions", 500, st.tuples(tile, st.lists(strategies.tokens(SPEC), max_size=3)), work)

    def test_making_them(self):
        number = st.one_of(st.integers(-2, 10**7), JUNK)
        cases = st.tuples(st.one_of(strategies.codes(SPEC), JUNK), number, st.one_of(st.none(), strategies.arrays(20), JUNK))
        throw(
            "from_codes", 700, cases, lambda case: bc.CodecTokens.from_codes(SPEC, case[0], num_samples=case[1], scales=case[2])
        )

    def test_their_fields(self, toy):
        tokens = toy.encode(PCM, 8000)
        names = [field.name for field in dataclasses.fields(tokens)]
        cases = st.dictionaries(st.sampled_from(names), st.one_of(JUNK, st.integers(-2, 20)), min_size=1, max_size=2)
        throw("CodecTokens", 700, cases, lambda changes: toy.decode(dataclasses.replace(tokens, **changes)))

    def test_their_methods(self, toy):
        tokens = toy.encode(np.stack([PCM, PCM]), 8000)
        for name in ("parts", "stream"):
            throw(
                f"CodecTokens.{name}", 100, st.one_of(JUNK, st.integers(-3, 9)), lambda x, n=name: list_of(getattr(tokens, n)(x))
            )
        lists = st.one_of(st.lists(st.one_of(strategies.tokens(SPEC), JUNK), max_size=3), JUNK)
        throw("CodecTokens.concat", 300, lists, bc.CodecTokens.concat)

    @pytest.mark.parametrize("name", ["orpheus", "musicgen_delay", "mini_omni", "bark_coarse"])
    def test_layouts(self, name):
        layout, spec = bc.Registry().layout(name), SNAC if name in ("orpheus", "mini_omni") else ENCODEC
        base = layout.vocabulary(spec).base
        ids = st.one_of(
            strategies.flat(spec),
            st.lists(st.integers(base - 1, base + 2 * spec.codebook_size + 1), max_size=20),
            st.lists(st.integers(), max_size=9),
        )
        cases = st.tuples(ids, st.one_of(st.none(), st.integers(-1, 9), JUNK), st.sampled_from(["refuse", "drop"]))
        throw(f"{name} unpacks", 400, cases, lambda case: layout.unpack(case[0], spec, num_codebooks=case[1], ragged=case[2]))
        throw(f"{name} packs", 300, st.one_of(strategies.tokens(spec), JUNK), layout.pack)
        pieces = st.lists(st.one_of(ids, JUNK, st.text(alphabet="<custom_token_1290>", max_size=40)), max_size=6)

        def reads(case):
            reader = layout.reader(spec, errors=case[1])
            for piece in case[0]:
                reader.push(piece)
            reader.finish()

        throw(f"{name} reads", 400, st.tuples(pieces, st.sampled_from(["raise", "drop", "repeat"])), reads)
        vocabulary = layout.vocabulary(spec)
        for method in (vocabulary.locate, vocabulary.mask, vocabulary.to_text):
            throw(f"{name} {method.__name__}", 100, st.one_of(JUNK, st.integers(-1, 200_000)), method)

    def test_unflatten(self):
        cases = st.tuples(strategies.flat(SPEC), st.lists(st.integers(1, 9), min_size=1, max_size=3))
        throw("unflatten", 200, cases, lambda case: flat.unflatten(*case))


def list_of(found):
    return list(found) if hasattr(found, "__next__") else found


class TestNames:
    def test_look_up(self):
        registry = bc.Registry()
        names = st.one_of(
            JUNK, st.text(max_size=30), st.sampled_from(["snac:", ":", "snac_tiny\0", "../snac", "SNAC_TINY", "a" * 10**5])
        )
        for kind, look in (("find", registry.find), ("format_for", registry.format_for), ("layout", registry.layout)):
            throw(kind, 200, names, look)

    def test_load_options(self):
        names = st.sampled_from([*bc.LoadOptions.model_fields, "nonsense", "wieghts"])
        options = st.dictionaries(
            names,
            st.one_of(JUNK, st.sampled_from(["random:0", "random:x", "cuda:99", "meta", "\0", "~nobody-here/x"])),
            max_size=3,
        )

        def work(chosen):
            ToyBackend(SPEC, bc.LoadOptions.of(**{"weights": "random:0", "offline": True, **chosen})).load()

        throw("LoadOptions", 500, options, work)


class TestFiles:
    """Files changed byte by byte, as they come out of a disk, a network, or the hands of somebody who means harm."""

    def test_containers(self, toy, tmp_path):
        path = tmp_path / "a.tokens"
        tokens = toy.encode(np.stack([PCM, PCM]), 8000)
        dataclasses.replace(tokens, source=bc.Source(44_100, 555), loudness=(-20.0, -30.0)).save(path)

        def work(data):
            path.write_bytes(data)
            toy.decode(bc.CodecTokens.open(path))

        throw("containers", 1500, strategies.damaged(path.read_bytes()), work)

    def test_headers_that_lie(self, tmp_path):
        """A container's metadata, and the sizes in its safetensors header, with absurd numbers."""
        path = tmp_path / "a.tokens"
        number = st.one_of(st.sampled_from([-1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 10**30]), st.floats(), JUNK.filter(is_json))
        fields = (
            "version",
            "codec",
            "strides",
            "codebook_size",
            "sample_rate",
            "hop_length",
            "num_samples",
            "channels",
            "segment",
        )
        header = {
            "version": 1, "codec": "toy:toy_8khz", "strides": [2, 1], "codebook_size": 16, "sample_rate": 8000, "hop_length": 4,
            "num_samples": 16, "channels": 1,
        }  # fmt: skip

        def work(case):
            changes, offsets, shape, size = case
            metadata = {"blazen_codec": json.dumps({**header, **changes})}
            sizes = {"codes.0": {"dtype": "U8", "shape": [1, 2], "data_offsets": [0, 2]}}
            sizes["codes.1"] = {"dtype": "U8", "shape": shape, "data_offsets": offsets}
            text = json.dumps({"__metadata__": metadata, **sizes}).encode()
            path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + bytes(6))
            bc.CodecTokens.open(path)

        pair = st.one_of(st.just([2, 6]), st.lists(st.integers(-1, 2**62), min_size=1, max_size=3))
        shape = st.one_of(st.just([1, 4]), st.lists(st.integers(0, 2**62), max_size=4))
        sizes = st.one_of(st.none(), st.none(), st.integers(0, 2**64 - 1))
        throw(
            "lying headers",
            700,
            st.tuples(st.dictionaries(st.sampled_from(fields), number, max_size=2), pair, shape, sizes),
            work,
        )

    def test_what_tokens_say_of_their_source(self, codecs, tmp_path):
        codec = codecs("snac_tiny")
        tokens = codec.encode(voice(0.1, 24_000), 24_000)
        odd = st.sampled_from([0, 1, -1, 2, 2400, 24_000, 44_100, 2**31, 2**63, 2**70])

        def work(source):
            out = tmp_path / "a.wav"
            files.decode_to_file(codec, dataclasses.replace(tokens, source=bc.Source(*source)), out, quiet=True)

        throw("sources", 200, st.tuples(odd, odd, st.one_of(st.none(), odd)), work)

    @pytest.mark.parametrize("suffix", [".ecdc", ".dac", ".qnt.pt"])
    def test_the_authors_formats(self, codecs, tmp_path, suffix):
        codec = codecs("dac_44khz" if suffix == ".dac" else "encodec_24khz")
        path = tmp_path / f"a{suffix}"
        rng = np.random.default_rng(0)
        codes = [rng.integers(0, 1024, (1, 40)) for _ in range(codec.spec.usable_codebooks[0])]
        registry = bc.Registry()
        options = {"input_db": "-16"} if suffix == ".dac" else {}
        registry.format_for(path).write(bc.CodecTokens.from_codes(codec.spec, codes), path, **options)

        def work(data):
            path.write_bytes(data)
            registry.format_for(path).read(path)

        throw(suffix, 800, strategies.damaged(path.read_bytes()), work)

    @pytest.mark.parametrize("suffix", [".parquet", ".tar"])
    def test_shards_of_datasets(self, toy, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        tokens = dataclasses.replace(toy.encode(np.stack([PCM, PCM]), 8000), source=bc.Source(44_100, 555))
        rows = [Row(f"{number}.wav", "a.wav", tokens, 0.0, 44_100, 555, 2) for number in range(3)]
        shards.format_of(path).write(path, SPEC, rows)

        def work(data):
            path.write_bytes(data)
            for _ in shards.format_of(path).listing(path):
                pass
            for _, found in bc.read_tokens(path):
                toy.decode(found)

        throw(f"shards {suffix}", 600, strategies.damaged(path.read_bytes()), work)

    @pytest.mark.parametrize("suffix", [".parquet", ".tar"])
    def test_shards_as_training_data(self, toy, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        rows = [Row(f"{number}.wav", "a.wav", toy.encode(PCM, 8000), 0.0, 8000, 100, 1) for number in range(3)]
        shards.format_of(path).write(path, SPEC, rows)
        layout = bc.Registry().layout("snac_interleaved")

        def work(data):
            path.write_bytes(data)
            collate(list(TokenDataset(path, layout=layout, columns=["id"]).iterable(epochs=2, pack=500)))

        throw(f"training data {suffix}", 400, strategies.damaged(path.read_bytes()), work)

    def test_options_of_training_data(self, toy, tmp_path):
        path = tmp_path / "a.parquet"
        shards.format_of(path).write(path, SPEC, [Row("a", "a.wav", toy.encode(PCM, 8000), 0.0, 8000, 100, 1)])
        value = st.one_of(JUNK, st.integers(-2, 9))
        names = ("layout", "frames", "crop", "columns", "num_codebooks", "stream", "codec", "seed")
        ordered = ("shuffle", "buffer", "epochs", "pack", "even", "rank", "ranks")
        made = st.tuples(*(st.fixed_dictionaries({}, optional=dict.fromkeys(own, value)) for own in (names, ordered)), value)

        def work(case):
            options, orders, prompt = case
            dataset = TokenDataset(path, **{"layout": "snac_interleaved", **options})
            found = list(itertools.islice(dataset.iterable(**orders), 9))
            collate([own.prompted(prompt) if isinstance(own, Sample) else own for own in found], pad=prompt)

        throw("options of training data", 500, made, work)

    def test_rows_of_datasets(self, toy):
        tokens = toy.encode(np.stack([PCM, PCM]), 8000)
        columns = Row("a", "a.wav", tokens, 0.0, 8000, 100, 2).columns
        lists = st.lists(st.one_of(st.lists(st.integers(-1, 99), max_size=9), JUNK), max_size=5)
        changes = st.dictionaries(st.sampled_from(["codes", "scales", "header"]), st.one_of(JUNK, lists), min_size=1, max_size=3)
        throw("from_row", 500, st.one_of(changes.map(lambda some: {**columns, **some}), JUNK), bc.tokens_from_row)

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".tar"])
    def test_lists_of_recordings(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        soundfile.write(tmp_path / "a.wav", voice(0.1, 8000), 8000)
        row = {"path": "a.wav", "start": 0.01, "end": 0.05, "id": "x"}
        if suffix == ".tar":
            with tarfile.open(path, "w") as tar:
                tar.add(tmp_path / "a.wav", "a.wav")
        elif suffix == ".parquet":
            shards.parquet().write_table(shards.arrow().Table.from_pylist([row]), path)
        else:
            lines = [json.dumps(row)] if suffix == ".jsonl" else [",".join(row), ",".join(map(str, row.values()))]
            path.write_text("\n".join(lines) + "\n")

        def work(data):
            path.write_bytes(data)
            found = sources.find(path, ["all"])
            for item in found.entries:
                if isinstance(item, AudioItem):
                    item.seconds(found.root)
                    with item.open(found.root) as reader:
                        list(reader.blocks())

        throw(f"lists {suffix}", 300, strategies.damaged(path.read_bytes()), work)

    def test_rows_of_lists(self, tmp_path):
        path = tmp_path / "a.jsonl"
        names = ("path", "audio_filepath", "id", "start", "end", "duration")
        rows = st.dictionaries(st.sampled_from(names), st.one_of(st.floats(), st.text(max_size=5), JUNK.filter(is_json)))

        def work(case):
            path.write_text("\n".join(map(json.dumps, case)))
            found = sources.find(path, ["all"])
            planned = plan.make(tmp_path, found, columns=["all"], shard_seconds=None, planned=lambda _: None)
            for item in planned.items(0):
                if isinstance(item, AudioItem):
                    item.open(found.root)

        throw("rows of lists", 400, st.lists(st.one_of(rows, JUNK.filter(is_json)), max_size=3), work)

    @pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
    def test_audio(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        soundfile.write(path, voice(0.1, 8000), 8000)

        def work(data):
            path.write_bytes(data)
            bc.read_audio(path)

        throw(f"audio {suffix}", 300, strategies.damaged(path.read_bytes()), work)


DEEP = "[" * 5000
NESTED = st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth)
ODD_JSON = st.one_of(
    st.sampled_from([DEEP, '{"a":' * 5000, "9" * 5000, "NaN", "-Infinity", "1e999", '"\\ud800"', "", "\0", "null", "true"]),
    NESTED,
    st.text(max_size=9),
    st.deferred(lambda: JUNK.filter(is_json)).map(json.dumps),
)
"""Texts that are no JSON, or more of it than is wanted."""


@st.composite
def with_odd_json(draw, text: str):
    """An object in JSON with something odd in place of a value, or beside the others."""
    found = json.loads(text)
    names = [*found, "more"]
    odd = draw(st.lists(st.tuples(st.sampled_from(names), ODD_JSON), min_size=1, max_size=2))
    parts = {name: json.dumps(value) for name, value in found.items()} | dict(odd)
    made = "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in parts.items()) + "}"
    return draw(st.sampled_from([made, made, made, draw(ODD_JSON)]))


class TestWhatFilesSay:
    """JSON, tars, Parquet and ids by somebody who knows how they are read."""

    def test_headers_of_tokens(self, toy, tmp_path):
        path = tmp_path / "a.tokens"
        tokens = toy.encode(PCM, 8000)
        codes = [code[0].tolist() for code in tokens.codes]

        def work(text):
            raw = json.dumps({"__metadata__": {"blazen_codec": text}}).encode()
            path.write_bytes(struct.pack("<Q", len(raw)) + raw)
            for read in (lambda: bc.CodecTokens.open(path), lambda: bc.tokens_from_row({"header": text, "codes": codes})):
                with contextlib.suppress(bc.CodecError):
                    toy.decode(read())
            bc.CodecTokens.open(path)

        throw("JSON of containers", 500, with_odd_json(container.header_of(tokens.fields)), work)

    def test_configs(self, tmp_path):
        path = tmp_path / "config.json"

        def work(text):
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            read_config(path)

        throw("JSON of configs", 400, with_odd_json('{"sampling_rate": 24000, "rates": [2, 4]}'), work)

    def test_rows(self, tmp_path):
        row = with_odd_json('{"path": "a.wav", "id": "x", "start": 0.1, "end": 0.2}')

        def work(case):
            rows, suffix, brackets = case
            path = tmp_path / f"a{suffix}"
            text = f"[{', '.join(rows)}]" if brackets else "\n".join(rows)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
            found = sources.find(path, ["all"])
            planned = plan.make(tmp_path, found, columns=["all"], shard_seconds=None, planned=lambda _: None)
            list(plan.read(tmp_path).items(0))
            for item in planned.items(0):
                if isinstance(item, AudioItem):
                    item.open(found.root)

        cases = st.tuples(st.lists(row, min_size=1, max_size=3), st.sampled_from([".json", ".jsonl"]), st.booleans())
        throw("JSON of lists", 500, cases, work)

    def test_journals(self, tmp_path):
        with run_state.open_run(tmp_path / "out") as kept:
            kept.note_asked({})
            for number in range(3):
                kept.note(run_state.ShardResult(number, 1, 2.0, 0.5, (run_state.Failure("a", "b", "c"),), ("AAAA",)))
            path = kept.folder / "journal.jsonl"
            whole = path.read_bytes()
            lines = whole.splitlines(keepends=True)
            key = kept._key

            def work(line):
                path.write_bytes(line)
                for done in kept.journal(3):
                    run_state.Totals(codebook_usage.CodebookUsage(16)).add(done)

            odd = with_odd_json(lines[0].decode()).map(lambda text: text.encode("utf-8", "surrogatepass") + b"\n" + lines[1])
            right = {key: value for key, value in json.loads(lines[0]).items() if key != "check"}
            values = st.dictionaries(st.sampled_from([*right, "more"]), JUNK.filter(is_json), min_size=1, max_size=2)
            resealed = values.map(lambda some: seals.sealed({**right, **some}, key) + b"\n")
            throw("journals", 700, st.one_of(strategies.damaged(whole), odd, resealed), work)

    def test_plans(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"path": "a.wav", "text": "x"}\n{"path": "b.wav"}\n')
        found = sources.find(tmp_path / "a.jsonl", ["text"])
        plan.make(tmp_path, found, columns=["text"], shard_seconds=None, planned=lambda _: None)
        cuts, items = (tmp_path / "plan.json").read_bytes(), (tmp_path / "items.jsonl").read_bytes()

        def work(case):
            name, data = case
            (tmp_path / "plan.json").write_bytes(cuts)
            (tmp_path / "items.jsonl").write_bytes(items)
            (tmp_path / name).write_bytes(data)
            list(plan.read(tmp_path).items(0))
            plan.read(tmp_path).check()

        right = json.loads(cuts)
        del right["check"]
        values = st.dictionaries(st.sampled_from([*right]), JUNK.filter(is_json), min_size=1, max_size=2)
        resealed = values.map(lambda some: ("plan.json", seals.sealed({**right, **some})))
        damaged = strategies.damaged(items).map(lambda data: ("items.jsonl", data))
        throw("plans", 500, st.one_of(resealed, damaged), work)

    def test_tars(self, tmp_path):
        path = tmp_path / "a.tar"
        content = io.BytesIO()
        soundfile.write(content, voice(0.1, 8000), 8000, format="FLAC")
        kinds = st.sampled_from([*b"01234567SLKxgXVMDN\0?"]).map(lambda kind: bytes([kind]))
        sizes = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.sampled_from([-512, -1, 10**12, 2**33]))
        keys = st.sampled_from(["path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "mtime"])
        told = st.dictionaries(
            keys, st.one_of(st.sampled_from(["-512", "1000000000000", "x", "1"]), st.text(max_size=5)), max_size=2
        )
        names = st.sampled_from(["a.flac", "b.flac", "a.txt", "../x.flac", "x" * 90])

        @st.composite
        def tars(draw):
            made = b""
            for _ in range(draw(st.integers(1, 5))):
                for key, value in draw(told).items():
                    body = f" {key}={value}\n".encode("utf-8", "surrogatepass")
                    record = str(len(body) + draw(st.integers(0, 3))).encode() + body
                    made += member(tarfile.TarInfo("pax"), b"x", None, record)
                made += member(tarfile.TarInfo(draw(names)), draw(kinds), draw(sizes), content.getvalue())
            return draw(st.one_of(st.just(made + bytes(1024)), strategies.damaged(made + bytes(1024))))

        def work(data):
            path.write_bytes(data)
            for entry in sources.find(path).entries:
                if isinstance(entry, AudioItem):
                    entry.seconds(tmp_path)
            list(shards.FORMATS["tar"].listing(path))

        throw("tars", 700, tars(), work)

    def test_columns_of_other_types(self, toy, tmp_path):
        path = tmp_path / "a.parquet"
        columns = Row("a", "a.wav", toy.encode(PCM, 8000), 0.0, 8000, 100, 1).columns
        good = shards.arrow().Table.from_pylist([columns], schema=shards.schema(SPEC))
        cells = st.one_of(
            st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.booleans(),
            st.lists(st.integers(-9, 99), max_size=5), st.lists(st.lists(st.integers(0, 20), max_size=5), max_size=5),
            st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.just("a"), st.integers(0, 9), min_size=1),
        )  # fmt: skip
        changes = st.dictionaries(st.sampled_from([*columns]), cells, min_size=1, max_size=2)

        def work(some):
            table = good
            for name, value in some.items():
                with contextlib.suppress(shards.arrow().ArrowInvalid, UnicodeEncodeError):  # of what cannot be written at all
                    table = table.set_column(table.schema.get_field_index(name), name, shards.arrow().array([value]))
            shards.parquet().write_table(table, path)
            for _ in shards.format_of(path).listing(path):
                pass
            for _, found in bc.read_tokens(path):
                toy.decode(found)

        throw("columns of other types", 600, changes, work)

    def test_ids(self, toy, tmp_path):
        into = Destination(tmp_path / "out")
        (tmp_path / "out" / "link").mkdir(parents=True)
        (tmp_path / "out" / "link").rmdir()
        (tmp_path / "out" / "link").symlink_to(tmp_path)
        part = st.one_of(
            st.text(max_size=6),
            st.sampled_from(
                ["..", ".", "", ".run", ".RUN", ".tokens-a", "C:", "\\", "link", "n" * 250, "n" * 300, "\0", "\ud800"]
            ),
        )
        ids = st.tuples(st.lists(part, max_size=4), st.sampled_from(["/", "\\"])).map(lambda pair: pair[1].join(pair[0]))

        def work(id):
            path = into.audio(id, ".wav")
            inside = path.relative_to(tmp_path / "out").parts
            assert not {"..", ""} & set(inside)
            assert inside[0].lower() not in (".run", "link")
            assert os.path.realpath(path) == str(path)
            os.fsencode(path)

        throw("ids", 700, ids, work)


def member(info: tarfile.TarInfo, kind: bytes, size: int | None, content: bytes) -> bytes:
    """A member of a tar whose header claims whatever it is told to."""
    info.type, info.size = kind, len(content)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size is not None:
        block[124:136] = (b"\x80" if size >= 0 else b"\xff") + (size % 256**11).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


@pytest.fixture(scope="module")
def provide():
    return systems.cached_providers(bc.Registry(), bc.LoadOptions(device="cpu"))


class TestComparing:
    def test_what_is_asked_for(self, provide):
        names = st.one_of(st.text(max_size=12), st.sampled_from(["snac_tiny", "encodec_tiny", "opus", "nothing"]))
        numbers = st.one_of(st.none(), st.floats(), st.integers(-1, 300), st.text(max_size=4))
        asked = st.tuples(names, numbers).map(lambda pair: pair[0] if pair[1] is None else f"{pair[0]}@{pair[1]}")
        throw("systems", 500, st.lists(asked, max_size=3), lambda case: systems.systems(case, provide))

    def test_recordings(self, provide, tmp_path):
        """Of any length, rate, channels and samples, infinite ones too, damaged or whole."""
        snac = [systems.system("snac_tiny", provide)]
        judge = evaluate.Scorer(["si_sdr_db", "log_mel_distance", "stoi"])

        @st.composite
        def recorded(draw):
            rng = np.random.default_rng(draw(st.integers(0, 99)))
            shape = (draw(st.integers(0, 6000)), draw(st.sampled_from([1, 1, 1, 2, 2, 3, 6])))
            pcm = rng.standard_normal(shape) * draw(st.sampled_from([0, 1e-9, 0.1, 1, 1e30]))
            pcm[: draw(st.integers(0, 3))] = draw(st.sampled_from([0, np.nan, np.inf, -1e38]))
            file = io.BytesIO()
            rate = draw(st.sampled_from([1, 50, 4000, 8000, 11_025, 48_000, 192_000, 2**31 - 1]))
            soundfile.write(file, pcm.astype(np.float32), rate, format="WAV", subtype="FLOAT")
            return draw(st.one_of(st.just(file.getvalue()), strategies.damaged(file.getvalue())))

        def work(content):
            made = compare.compare(compare.Clip("a.wav", content=io.BytesIO(content)), snac, judge)
            json.dumps(serialize.page_data(made), allow_nan=False)

        throw("compare", 300, recorded(), work)

    def test_what_visitors_say(self):
        house = CodecCatalog(("snac_tiny",), bc.LoadOptions(device="cpu"))
        plain = st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.text(max_size=9), max_size=9)
        )
        fields = st.fixed_dictionaries({}, optional=dict.fromkeys(("systems", "name", "size", "mono", "more"), plain))
        right = {"systems": ["snac_tiny"], "name": "a.wav", "size": 9}
        cases = st.one_of(st.text(max_size=30), fields.map(lambda said: json.dumps({**right, **said})))
        throw("asked", 500, cases, lambda said: house.check(asked(said)))


class TestWeights:
    def test_bytes(self, toy, tmp_path):
        """Checkpoints, in both formats, changed, cut off and padded."""
        state = toy.loaded().network.state_dict()
        torch.save(state, tmp_path / "a.bin")
        data = {".safetensors": safetensors_bytes(state), ".bin": (tmp_path / "a.bin").read_bytes()}
        for suffix, whole in data.items():
            path = tmp_path / f"w{suffix}"

            def work(damaged, path=path):
                path.write_bytes(damaged)
                ToyBackend(SPEC, bc.LoadOptions(weights=str(path), device="cpu")).load()

            cut = st.integers(0, len(whole)).map(functools.partial(lambda whole, n: whole[:n], whole))
            throw(f"weights {suffix}", 500, st.one_of(strategies.damaged(whole), cut), work)

    def test_contents(self, toy, tmp_path):
        """Tensors missing, too many, of other shapes and types, with NaN, or none at all."""
        state = toy.loaded().network.state_dict()
        path = tmp_path / "w.bin"

        @st.composite
        def states(draw):
            made = dict(state)
            for _ in range(draw(st.integers(0, 3))):
                name = draw(st.sampled_from(sorted(state)))
                match draw(st.sampled_from(["gone", "more", "shape", "type", "nan", "inf", "junk", "renamed"])):
                    case "gone":
                        made.pop(name, None)
                    case "more":
                        made[draw(st.text(max_size=5))] = torch.zeros(draw(st.integers(0, 4)))
                    case "shape":
                        made[name] = torch.zeros(draw(st.lists(st.integers(0, 5), max_size=4)))
                    case "type":
                        made[name] = state[name].to(
                            draw(st.sampled_from([torch.float16, torch.int64, torch.bool, torch.complex64]))
                        )
                    case "nan" | "inf" as what:
                        made[name] = torch.full_like(state[name], float(what))
                    case "junk":
                        made[name] = draw(st.one_of(st.none(), st.integers(-(2**60), 2**60), st.text(max_size=3)))
                    case "renamed":
                        made[f"module.{name}"] = made.pop(name, state[name])
            return draw(st.sampled_from([made, made, {"state_dict": made}, list(made.values()), None, 3, "text"]))

        def work(found):
            torch.save(found, path)
            backend = ToyBackend(SPEC, bc.LoadOptions(weights=str(path), device="cpu"))
            fine(backend.decode(backend.encode(PCM, 8000)))

        throw("contents of weights", 500, states(), work)

    @pytest.mark.parametrize("name", ["snac_tiny", "encodec_24khz", "dac_16khz"])
    def test_of_another_model(self, toy, tmp_path, name):
        """Each plugin's own reading of what is published: files of other models, and configs with absurd numbers beside them."""
        (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(toy.loaded().network.state_dict()))
        spec = bc.Registry().find(name).spec
        fields = json.loads(spec.architecture.model_dump_json())
        number = st.one_of(st.sampled_from([-1, 0, 2**40, 1e308, -1.5]), st.floats(), st.lists(st.integers(), max_size=3), JUNK)
        changes = st.dictionaries(st.sampled_from(sorted(fields)), number.filter(is_json), max_size=3)
        whole = st.one_of(changes.map(lambda changed: {**fields, **changed}), JUNK.filter(is_json))

        def work(config):
            (tmp_path / "config.json").write_text(json.dumps(config))
            bc.load(name, weights=tmp_path, device="cpu").load()

        throw(f"configs of {name}", 60, whole, work)
        assert REFUSED[f"configs of {name}"] == CASES[f"configs of {name}"]


def is_json(value) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


class TestPaths:
    """What may stand where a file is expected."""

    @pytest.fixture
    def places(self, tmp_path):
        (tmp_path / "file").write_bytes(b"text")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "folder.tokens").mkdir()
        os.mkfifo(tmp_path / "pipe.tokens")
        (tmp_path / "secret.tokens").write_bytes(b"x")
        (tmp_path / "secret.tokens").chmod(0)
        odd = [
            "",
            "file/below",
            "loop",
            "dangling",
            "folder.tokens",
            "pipe.tokens",
            "no/such/folder/a.tokens",
            "n" * 300 + ".tokens",
        ]
        return [*(str(tmp_path / name) for name in odd), "\0.tokens", str(tmp_path / "secret.tokens")]

    def test_reading(self, places):
        registry = bc.Registry()

        def work(place):
            path, suffix = place
            for read in (
                bc.CodecTokens.open,
                bc.read_audio,
                registry.format_for("a" + suffix).read,
                lambda path: bc.load("snac_tiny", weights=path, offline=True, device="cpu").load(),
            ):
                with pytest.raises(bc.CodecError):
                    read(path)
            raise bc.CorruptFile("all of them were refused")

        odd, suffixes = [*places, "/dev/full", "/proc/self/mem"], [".tokens", ".ecdc", ".dac"]
        cases = st.tuples(st.sampled_from(odd), st.sampled_from(suffixes))
        throw("reading from odd places", 60, cases, work, least=len(odd) * len(suffixes))

    def test_writing(self, toy, places):
        tokens = toy.encode(PCM, 8000)
        odd = [place for place in places if not place.endswith(("dangling", "secret.tokens"))]  # which can be written

        def work(place):
            for write in (tokens.save, lambda path: bc.write_audio(path, PCM, 8000)):
                with pytest.raises(bc.CodecError):
                    write(place)
            raise bc.InvalidInput("all of them were refused")

        throw("writing to odd places", 40, st.sampled_from(odd), work, least=len(odd))
        pipe = Path(next(place for place in places if "pipe" in place))
        assert pipe.is_fifo()
        assert not {path.name for path in pipe.parent.iterdir()} - {Path(place).name for place in places} - {"file"}

    @pytest.mark.parametrize("room", [0, 1, 100, 1000])
    def test_a_full_disk(self, codecs, tmp_path, room):
        """Writes break off after so many bytes, for whoever writes, in C or Python; the old file is still there, and no other."""
        codec = codecs("snac_tiny")
        tokens = codec.encode(voice(2, 24_000), 24_000)
        ecdc = bc.CodecTokens.from_codes(ENCODEC, [np.zeros((1, 4000), int)] * 8)
        dac = bc.CodecTokens.from_codes(bc.Registry().find("dac_44khz").spec, [np.zeros((1, 400), int)] * 9)
        registry = bc.Registry()
        writers = {
            "a.tokens": tokens.save,
            "a.wav": lambda path: bc.write_audio(path, voice(2, 24_000), 24_000),
            "a.flac": lambda path: bc.write_audio(path, voice(2, 24_000), 24_000),
            "a.ecdc": lambda path: registry.format_for(path).write(ecdc, path),
            "a.dac": lambda path: registry.format_for(path).write(dac, path, input_db="-16"),
        }
        for name in writers:
            (tmp_path / name).write_bytes(b"old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for name, write in writers.items():
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
            try:
                with pytest.raises(bc.InvalidInput, match="cannot be written"):
                    write(tmp_path / name)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            CASES["a full disk"] += 1
            REFUSED["a full disk"] += 1
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(writers, b"old")

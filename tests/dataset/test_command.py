"""`blazen-codec tokenize` and `detokenize`."""

from __future__ import annotations

import json
import re

import numpy as np

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards

ONE = ["--workers", "1", "--device", "cpu"]


def test_there_and_back(run, recordings, tmp_path):
    code, _, err = run("tokenize", recordings, "-c", "encodec_tiny", "-o", "tokens", "-b", "3", "--mono", *ONE)
    assert code == 0
    assert re.search(r"tokens: 10 recordings, [1-9][\d.]* s, in 1 shard\n", err)
    assert re.search(r"\d+\.\d s in \d+\.\d s, [\d.]+x real time", err)
    assert "nothing was left to do" not in err
    assert "codebook entries used:" in err
    assert "2 failed; reasons in tokens/.run/failures.jsonl" in err
    tokens = dict(bc.read_tokens(tmp_path / "tokens"))
    assert len(tokens) == 10
    assert {own.num_codebooks for own in tokens.values()} == {4}
    code, out, err = run("tokenize", recordings, "-c", "encodec_tiny", "-o", "tokens", "-b", "3", "--mono", "--json", "-q", *ONE)
    assert (code, err) == (0, "")
    assert (
        "nothing was left to do"
        in run("tokenize", recordings, "-c", "encodec_tiny", "-o", "tokens", "-b", "3", "--mono", *ONE)[2]
    )
    report = json.loads(out)
    assert (report["recordings"], report["failed"], report["shards"]) == (10, 2, 1)
    code, _, err = run("detokenize", "tokens", "-o", "audio", "--suffix", ".flac", *ONE)
    assert code == 0
    assert "10 recordings" in err
    assert len(list((tmp_path / "audio").rglob("*.flac"))) == 10


def test_exit_codes_and_messages(run, recordings, tmp_path):
    code, _, err = run("tokenize", recordings, "-c", "snac_tiny", "-o", "out", "--strict", *ONE)
    assert code == 5
    assert "cannot be read as audio" in err
    code, _, err = run("tokenize", recordings, "-c", "snac_tiny", "-o", "out", "--mono", *ONE)
    assert code == 2
    assert "mono False → True" in err
    assert run("tokenize", recordings, "-c", "snack", "-o", "other")[0] == 3
    assert run("tokenize", recordings, "-c", "snac_tiny", "-o", "other", "--address", "here")[0] == 2
    assert run("detokenize", tmp_path, "-o", "other")[0] == 2


def test_shards_can_be_tars(run, recordings, tmp_path):
    assert run("tokenize", recordings, "-c", "snac_tiny", "-o", "out", "--format", "tar", "--shard-minutes", "0.05", *ONE)[0] == 0
    assert {path.suffix for path in shards.files(tmp_path / "out")} == {".tar"}


def test_the_authors_package_tokenises_too(run, recordings, tmp_path):
    """`--engine` is who computes, `--executor` who runs shards."""
    made = []
    for engine in ("native", "upstream"):
        assert (
            run("tokenize", recordings, "-c", "snac_tiny", "-o", engine, "--engine", engine, "--executor", "local", *ONE)[0] == 0
        )
        made.append({name: tokens.codes for name, tokens in bc.read_tokens(tmp_path / engine)})
    native, upstream = made
    assert native.keys() == upstream.keys()
    pairs = [pair for name in native for pair in zip(native[name], upstream[name], strict=True)]
    assert np.mean(np.concatenate([np.ravel(mine == theirs) for mine, theirs in pairs])) > 0.999

"""The language model behind `.ecdc` files gives the same probabilities on any number of threads."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_core.nn.kernels.thread_counts import one_thread
from blazen_codec_encodec import language_model
from blazen_codec_encodec.formats import EcdcFormat
from tests.helpers.upstream_encodec import BY_NAME, LM_SEED

SPEC = BY_NAME["encodec_24khz"]
FRAMES, BOOKS = 40, 2


@pytest.fixture(scope="module")
def tokens() -> bc.CodecTokens:
    return bc.CodecTokens.from_codes(SPEC, list(np.random.default_rng(0).integers(0, 1024, (BOOKS, 1, FRAMES))))


@pytest.fixture
def threads():
    """Sets how many threads this process has, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_files_are_the_same_on_any_number_of_threads(tokens, threads, tmp_path):
    """With each number, what was written with those before it is read as well."""
    written = []
    for number in (1, 2, 3):
        threads(number)
        EcdcFormat().write(tokens, tmp_path / f"{number}.ecdc", lm="on", lm_weights=LM_SEED)
        assert torch.get_num_threads() == number
        for path in sorted(tmp_path.iterdir()):
            assert EcdcFormat().read(path, lm_weights=LM_SEED) == tokens, path
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_what_the_authors_package_wrote_on_several_threads_is_read(tokens, threads, tmp_path, monkeypatch):
    """Its arithmetic is then another one, which the same number of threads repeats."""
    threads(2)
    with monkeypatch.context() as patch:
        patch.setattr(language_model, "one_thread", nullcontext)
        EcdcFormat().write(tokens, tmp_path / "theirs.ecdc", lm="on", lm_weights=LM_SEED)
    EcdcFormat().write(tokens, tmp_path / "ours.ecdc", lm="on", lm_weights=LM_SEED)
    if (tmp_path / "theirs.ecdc").read_bytes() == (tmp_path / "ours.ecdc").read_bytes():
        pytest.skip("two threads add as one does on this processor")
    assert EcdcFormat().read(tmp_path / "theirs.ecdc", lm_weights=LM_SEED) == tokens
    threads(1)
    with pytest.raises(bc.CorruptFile, match="another number of threads"):
        EcdcFormat().read(tmp_path / "theirs.ecdc", lm_weights=LM_SEED)


def test_other_weights_of_the_language_model_are_noticed(tokens, tmp_path):
    EcdcFormat().write(tokens, tmp_path / "a.ecdc", lm="on", lm_weights=LM_SEED)
    with pytest.raises(bc.CorruptFile, match="other weights of the language model"):
        EcdcFormat().read(tmp_path / "a.ecdc", lm_weights="random:4")


def test_only_the_calling_thread_computes_alone(threads):
    from concurrent.futures import ThreadPoolExecutor

    threads(3)
    with ThreadPoolExecutor(1) as pool, one_thread():
        assert torch.get_num_threads() == 1
        assert pool.submit(torch.get_num_threads).result() == 3
    assert torch.get_num_threads() == 3

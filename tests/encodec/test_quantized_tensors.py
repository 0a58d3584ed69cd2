"""VALL-E's files of codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import blazen_codec_core as bc
from blazen_codec_encodec.specs import SPECS

SPEC, STEREO, *_ = SPECS


def codes(books: int = 8, frames: int = 7) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 1024, (1, books, frames)))


def test_a_file_of_the_authors_command_is_read(tmp_path):
    made = codes()
    torch.save(made, tmp_path / "a.qnt.pt")
    tokens = bc.Registry().format_for(tmp_path / "a.qnt.pt").read(tmp_path / "a.qnt.pt")
    assert tokens.codec == SPEC.identity
    assert np.array_equal(np.concatenate(tokens.codes), made[0].numpy())


def test_what_is_written_is_what_the_authors_save(tmp_path):
    tokens = bc.CodecTokens.from_codes(SPEC, list(codes()[0].numpy()))
    file = bc.Registry().format_for("a.QNT.pt")
    file.write(tokens, tmp_path / "a.qnt.pt")
    found = torch.load(tmp_path / "a.qnt.pt", weights_only=True)
    assert (found.dtype, found.tolist()) == (torch.int64, codes().tolist())
    assert file.read(tmp_path / "a.qnt.pt") == tokens


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (codes(3), r"shape \(1, 3, 7\)"),
        (codes().expand(2, 8, 7).clone(), r"shape \(2, 8, 7\)"),
        (codes() + 1, "damaged: codebook 0 has a token outside"),
        (codes().float(), "no tensor of codes"),
        ({"codes": codes()}, "no tensor of codes"),
        (bc.Source(1000, 5), "are never created"),
    ],
)
def test_other_content_is_refused(tmp_path, content, says):
    if says.startswith("damaged"):
        content[0, 0, 0] = 1024
    torch.save(content, tmp_path / "a.qnt.pt")
    with pytest.raises(bc.CorruptFile, match=says):
        bc.Registry().format_for("a.qnt.pt").read(tmp_path / "a.qnt.pt")


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.qnt.pt").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(bc.CorruptFile, match=r"is no \.qnt\.pt file"):
        bc.Registry().format_for("a.qnt.pt").read(tmp_path / "a.qnt.pt")
    with pytest.raises(bc.InvalidInput, match="not a file"):
        bc.Registry().format_for("a.qnt.pt").read(tmp_path / "b.qnt.pt")
    with pytest.raises(bc.InvalidInput, match="no known suffix"):
        bc.Registry().format_for("a.pt")


def test_other_tokens_are_refused(tmp_path):
    file = bc.Registry().format_for("a.qnt.pt")
    for spec, shape in ((STEREO, (4, 1, 150)), (SPEC, (8, 2, 5))):
        tokens = bc.CodecTokens.from_codes(spec, list(np.zeros(shape, int)))
        with pytest.raises(bc.InvalidTokens, match=r"Use \.tokens"):
            file.write(tokens, tmp_path / "a.qnt.pt")
    with pytest.raises(bc.InvalidTokens, match=r"Use \.tokens"):
        file.check(STEREO, 2)
    file.check(SPEC, 1)

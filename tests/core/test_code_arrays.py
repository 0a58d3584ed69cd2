"""Codes as other packages give them: which axis is what, and what cannot be known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import blazen_codec_core as bc

DAC = bc.Registry().find("dac_tiny").spec  # 1 to 8 codebooks, mono
ENCODEC = bc.Registry().find("encodec_24khz").spec  # 2, 4, 8, 16 or 32 codebooks, mono
STEREO = bc.Registry().find("encodec_48khz").spec


def codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1024, shape)


@pytest.mark.parametrize(
    ("spec", "shape", "books", "streams"),
    [
        (DAC, (8, 40), 8, 1),
        (DAC, (1, 8, 40), 8, 1),
        (DAC, (1, 5, 40), 5, 1),
        (DAC, (1, 1, 40), 1, 1),
        (DAC, (5, 1, 40), 5, 1),
        (DAC, (8, 2, 40), 8, 2),
        (DAC, (10, 8, 40), 8, 10),
        (ENCODEC, (1, 1, 8, 40), 8, 1),
        (ENCODEC, (3, 8, 40), 8, 3),
        (ENCODEC, (8, 3, 40), 8, 3),
    ],
)
def test_axes_of_one_array(spec, shape, books, streams):
    given = codes(*shape)
    tokens = bc.CodecTokens.from_codes(spec, given)
    assert (tokens.num_codebooks, tokens.streams, tokens.channels, tokens.frames) == (books, streams, streams, 40)
    batch_first = len(shape) > 2 and shape[-2] == books
    wanted = given.reshape(streams, books, 40).swapaxes(0, 1) if batch_first else given.reshape(books, streams, 40)
    assert np.array_equal(tokens.codes, wanted)
    assert bc.CodecTokens.from_codes(spec, given.tolist()) == tokens


def test_an_array_of_transformers_is_one_recording():
    codec = bc.load("dac_tiny", device="cpu")
    given = codes(1, 8, 5)
    assert codec.decode(bc.CodecTokens.from_codes(codec.spec, given)).shape == (1, 5 * DAC.hop_length)


@pytest.mark.parametrize(
    ("spec", "shape", "says"),
    [
        (ENCODEC, (2, 8, 40), r"2 codebooks of 8 streams, or 8 codebooks of 2 streams. Pass list\(codes\)"),
        (DAC, (2, 8, 40), r"list\(codes.swapaxes\(0, 1\)\)"),
        (DAC, (40, 8), r"shape \(40, 8\).*\(frames, codebooks\).*codes\.T"),
        (DAC, (1, 40, 8), r"\(frames, codebooks\).*swapaxes"),
        (DAC, (9, 40), r"1 to 8 codebooks of dac_tiny"),
        (DAC, (1, 12, 40), r"1 to 8 codebooks of dac_tiny"),
        (STEREO, (3, 4, 150), r"batch of 3.*codes\[0\]"),
        (DAC, (320,), "Use decode_tokens for flat tokens"),
        (DAC, (2, 1, 8, 40), "codes have shape"),
    ],
)
def test_what_axes_cannot_be_known_is_asked_about(spec, shape, says):
    with pytest.raises(bc.InvalidTokens, match=says):
        bc.CodecTokens.from_codes(spec, codes(*shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint16])
def test_tensors_of_any_integers_are_taken(dtype):
    given = codes(1, 8, 40)
    wanted = bc.CodecTokens.from_codes(DAC, given)
    tensor = torch.from_numpy(given).to(dtype)
    assert bc.CodecTokens.from_codes(DAC, tensor) == wanted
    assert bc.CodecTokens.from_codes(DAC, list(tensor[0])) == wanted


def test_a_tensor_on_another_device_is_brought_over():
    class Far:
        """As a tensor on a GPU is: it is an array only once it has been copied."""

        shape = (1, 8, 40)

        def __array__(self, *arguments, **options):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def detach(self):
            return self

        def cpu(self):
            return codes(1, 8, 40)

    assert bc.CodecTokens.from_codes(DAC, Far()) == bc.CodecTokens.from_codes(DAC, codes(1, 8, 40))


def test_tensors_that_are_no_tokens_are_refused():
    with pytest.raises(bc.InvalidTokens, match="float32; expected integers"):
        bc.CodecTokens.from_codes(DAC, torch.zeros(8, 40, requires_grad=True))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_tokens_are_bytes_and_back(kind):
    tokens = bc.CodecTokens.from_codes(DAC, codes(8, 40), num_samples=40 * 320 - 7, weights="random:1")
    assert bc.CodecTokens.from_bytes(kind(tokens.to_bytes())) == tokens


@pytest.mark.parametrize(("data", "kind"), [(b"", bc.CorruptFile), (b"no tokens", bc.CorruptFile), ("text", bc.InvalidInput)])
def test_bytes_that_are_no_tokens(data, kind):
    with pytest.raises(kind):
        bc.CodecTokens.from_bytes(data)


@pytest.mark.parametrize("given", [[], ()])
def test_no_codes_at_all(given):
    with pytest.raises(bc.InvalidTokens, match="codes are empty; expected one array per codebook"):
        bc.CodecTokens.from_codes(DAC, given)

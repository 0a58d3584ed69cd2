"""The `.qnt.pt` files of VALL-E, a tensor of EnCodec 24 kHz codes for each recording.

https://github.com/enhuiz/vall-e, vall_e/emb/qnt.py, saves int64 `(1, codebooks, frames)` with `torch.save`, of 8 codebooks.
"""

from __future__ import annotations

from os import PathLike

import numpy as np

from blazen_codec_core import CodecSpec, CodecTokens, CorruptFile, InvalidInput, InvalidTokens, LoadOptions, TokenFormat
from blazen_codec_core.errors import WeightsUnavailable, reason
from blazen_codec_core.files import existing, replacing

from .specs import AUTHORS, EncodecSpec


class QuantizedTensorFormat(TokenFormat):
    """VALL-E's files of codes. They hold no number of samples, so decoding gives whole frames."""

    name = "qnt.pt"
    suffixes = (".qnt.pt",)
    streams = 1

    def __init__(self, spec: EncodecSpec = AUTHORS[0]) -> None:
        self._spec = spec

    def check(self, spec: CodecSpec, channels: int) -> None:
        if spec.identity != self._spec.identity or channels != 1:
            raise InvalidTokens(
                f"tokens are of {spec.name} with {channels} channels; a .qnt.pt file holds one of {self._spec.name}. Use .tokens"
            )

    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        import torch

        self.check_options(options)
        if tokens.codec != self._spec.identity or tokens.streams != 1:
            raise InvalidTokens(f"tokens are {tokens!r}; a .qnt.pt file holds one stream of {self._spec.name}. Use .tokens")
        codes = torch.from_numpy(np.stack([code[0] for code in tokens.codes]).astype(np.int64))
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(codes[None], file)

    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        import torch

        from blazen_codec_core.nn.checkpoints import state_dicts

        self.check_options(options)
        try:
            codes = state_dicts.read(existing(path))
        except WeightsUnavailable as error:
            raise CorruptFile(f"{path} is no .qnt.pt file: {reason(error)}") from error
        books = self._spec.usable_codebooks
        if not isinstance(codes, torch.Tensor) or codes.dtype.is_floating_point or codes.ndim not in (2, 3):
            raise CorruptFile(f"{path} has no tensor of codes; expected integers of shape (1, codebooks, frames)")
        codes = codes if codes.ndim == 3 else codes[None]
        if codes.shape[0] != 1 or codes.shape[1] not in books:
            raise CorruptFile(
                f"{path} has codes of shape {tuple(codes.shape)}; expected (1, {self._spec.codebook_numbers}, frames)"
            )
        try:
            return CodecTokens.from_codes(self._spec, list(codes[0].numpy()))
        except (InvalidTokens, InvalidInput) as error:
            raise CorruptFile(f"{path} is damaged: {error}") from error

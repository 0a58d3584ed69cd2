"""The tokens of one signal as they come to a decoder, also as tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import InvalidTokens
from ..nn.layers.quantization import VectorQuantizer
from ..token_stream import TokenStream
from ..tokens.tokens import CodecTokens
from .tensor_checks import check_codes
from .tensor_tokens import TensorTokens


class TensorTokenStream(TokenStream):
    """`TokenStream` that also takes `TensorTokens`."""

    def accept_tensors(
        self, tokens: CodecTokens | TensorTokens, quantizers: Iterable[VectorQuantizer], device: torch.device
    ) -> tuple[CodecTokens, list[Tensor]]:
        """`accept` of tokens whose codes are on any device; return also their codes in int64 on this one.

        The host waits for the range of codes that come as tensors.
        """
        if not isinstance(tokens, TensorTokens):
            return self.accept(tokens), [torch.tensor(code, dtype=torch.int64, device=device) for code in tokens.codes]
        spec = self._backend.spec
        if tokens.spec != spec:
            raise InvalidTokens(f"the tokens are of {tokens.spec.identity}, and this is {spec.identity}")
        codes = [code.to(device, copy=True) if isinstance(code, Tensor) else code for code in tokens.codes]
        if not all(isinstance(code, Tensor) and code.dim() == 2 and not code.numel() for code in codes):
            codes = check_codes(quantizers, spec, codes, device)
        if len(set(tokens.lengths)) != 1 or {len(tokens.lengths), *map(len, codes)} != {tokens.streams}:
            raise InvalidTokens(
                f"tokens are a batch of lengths {tokens.lengths} with {tokens.streams} streams each; a stream takes one signal"
            )
        return self.accept(tokens.outline()), codes

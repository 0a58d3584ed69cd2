"""Codecs on their authors' own packages, behind the same trait: the oracles that the networks here are held to."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import threading
import types
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch

from ..backend import CodecBackend
from ..errors import DeviceUnavailable, InferenceError, NotYetImplemented
from ..forks import Anew
from ..nn.kernels.aten.conv import tf32_scope
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .backend import TFLOAT32, Loaded, TorchCodecBackend
from .guard import inference_guard

Contents = Mapping[str, Any]


@contextmanager
def stand_in(name: str, contents: Contents | None = None) -> Iterator[None]:
    """For the time of an import: where the module `name` does not load, one that holds nothing but `contents` takes its place.

    Packages import others for what inference never touches, and some of those do not load beside every torch.
    """
    if _loads(name):
        yield
        return
    empty = types.ModuleType(name)
    empty.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(empty).update(contents or {})
    sys.modules[name] = empty
    try:
        yield
    finally:
        del sys.modules[name]


def _loads(name: str) -> bool:
    """Tell whether a module can be imported; nothing of it is left behind if not."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        for left_over in [key for key in sys.modules if f"{key}.".startswith(f"{name}.")]:
            del sys.modules[left_over]
        return False
    return True


@contextmanager
def stand_ins(modules: Mapping[str, Contents]) -> Iterator[None]:
    """Several of them; a package before the modules in it."""
    with ExitStack() as stack:
        for name, contents in modules.items():
            stack.enter_context(stand_in(name, contents))
        yield


class UpstreamBackend(TorchCodecBackend):
    """Whole signals, one by one and one at a time: the authors' code does not stream, and may keep settings in its model."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._alone = Anew(threading.Lock)

    @property
    def dtype(self) -> torch.dtype:
        if self.options.dtype not in {"float32", TFLOAT32}:
            raise DeviceUnavailable(f"the authors' own package runs in float32 or {TFLOAT32} here, not {self.options.dtype}")
        return super().dtype

    def loaded(self) -> Loaded:
        default = torch.get_default_dtype()
        if default != torch.float32:  # their code says no dtype
            raise InferenceError(
                f"the authors' own package computes in PyTorch's default dtype, which is {default} here: "
                "call torch.set_default_dtype(torch.float32) first, or load the codec with engine='native'"
            )
        return super().loaded()

    @contextmanager
    def inference_guard(self) -> Iterator[None]:
        """`inference_guard`, with such products as the options say."""
        with inference_guard(), tf32_scope(torch.device(self.device), self.allows_tf32):
            yield

    @abstractmethod
    def encode_whole(self, pcm: Pcm, books: int) -> CodecTokens:
        """As `CodecBackend.encode_whole`."""

    @abstractmethod
    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        """As `CodecBackend.decode_whole`."""

    encode_batch = CodecBackend.encode_batch
    decode_batch = CodecBackend.decode_batch

    def encoder_session(self, channels: int | None = None, **options: Any) -> Any:
        self._refuse()

    def decoder_session(self, **options: Any) -> Any:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotYetImplemented(
            f"the authors' own package for {self.spec.name} does not stream; load the codec with engine='native'"
        )

"""Codecs on their authors' packages, behind the same trait: the references that our networks are tested against."""

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
    """Context for an import, in which a module that cannot be imported is replaced by a stub.

    The authors' packages import modules that inference never uses, and some of those fail beside some versions of PyTorch.

    Args:
        name: Name of the module.
        contents: Attributes of the stub; none if `None`.
    """
    if _is_importable(name):
        yield
        return
    stub = types.ModuleType(name)
    stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(stub).update(contents or {})
    sys.modules[name] = stub
    try:
        yield
    finally:
        del sys.modules[name]


def _is_importable(name: str) -> bool:
    """Tell whether a module can be imported. A failed import leaves no modules behind."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        for left_over in [key for key in sys.modules if f"{key}.".startswith(f"{name}.")]:
            del sys.modules[left_over]
        return False
    return True


@contextmanager
def stand_ins(modules: Mapping[str, Contents]) -> Iterator[None]:
    """Context with several stubs; see `stand_in`.

    Args:
        modules: Contents by name, with a package before the modules in it.
    """
    with ExitStack() as stack:
        for name, contents in modules.items():
            stack.enter_context(stand_in(name, contents))
        yield


class UpstreamBackend(TorchCodecBackend):
    """Base of backends on an authors' package, which encode and decode whole signals, one after the other.

    The authors' code does not stream, and may keep settings of a call in its model; `_model_lock` guards such calls.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._model_lock = Anew(threading.Lock)

    @property
    def dtype(self) -> torch.dtype:
        if self.options.dtype not in {"float32", TFLOAT32}:
            raise DeviceUnavailable(f"dtype is {self.options.dtype}; engine='upstream' runs in float32 or {TFLOAT32}")
        return super().dtype

    def loaded(self) -> Loaded:
        default = torch.get_default_dtype()
        if default != torch.float32:  # the authors' code names no dtype
            raise InferenceError(
                f"PyTorch's default dtype is {default}, in which the authors' own package would compute; expected torch.float32. "
                "Call torch.set_default_dtype(torch.float32), or load the codec with engine='native'"
            )
        return super().loaded()

    @property
    def half(self) -> None:
        """Both halves are loaded, whatever the options say: the authors' models have both."""

    @contextmanager
    def inference_guard(self) -> Iterator[None]:
        """Context as `guard.inference_guard`, with TF32 on or off as in the options."""
        with inference_guard(), tf32_scope(torch.device(self.device), self.allows_tf32):
            yield

    @abstractmethod
    def encode_whole(self, pcm: Pcm, num_codebooks: int) -> CodecTokens:
        """See `CodecBackend.encode_whole`."""

    @abstractmethod
    def decode_whole(self, tokens: CodecTokens) -> Pcm:
        """See `CodecBackend.decode_whole`."""

    def other_decodings(self, tokens: CodecTokens) -> Mapping[str, Pcm]:
        """Audio of the authors' other ways to decode than that of `decode_whole`, by a description; none by default."""
        return {}

    encode_batch = CodecBackend.encode_batch
    decode_batch = CodecBackend.decode_batch

    def new_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> NoReturn:
        self._refuse()

    def new_decoder_session(self, tile_frames: int) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotYetImplemented(
            f"the authors' own package for {self.spec.name} does not stream; load the codec with engine='native'"
        )

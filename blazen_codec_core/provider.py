"""Handle and provider of a codec, for callers that know the class of its backend and for those that do not."""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial, wraps
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from . import cancellation
from .errors import ManyChannelsNotice
from .forks import Anew, held_off
from .specs import CodecSpec, LoadOptions

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .backend import CodecBackend, EncodeOptions, SizeOptions
    from .pools import DecoderPool, DecoderPoolOptions, EncoderPool, EncoderPoolOptions
    from .sessions import DecoderSession, EncoderSession
    from .streaming import DecoderSessionOptions, EncoderSessionOptions
    from .tokens.tokens import CodecTokens
    from .torch_backend.module import CodecModule
    from .torch_backend.tensor_tokens import TensorTokens
    from .validation import Latents, Pcm

B = TypeVar("B", bound="CodecBackend")
P = ParamSpec("P")
R = TypeVar("R")
STEREO = 2
REFERENCE = re.compile(r"See `\w+\.\w+`(\. |\.$)")
WORKERS = 4
"""Threads of a provider; each runs a network, which in turn uses all cores."""
Twin = Coroutine[Any, Any, R]
Restore = Callable[[str, LoadOptions], "DynCodecProvider"]


class CodecBackendHandle(Generic[B]):
    """One backend of a known type, shared by all holders of the handle.

    Args:
        name: Name for the registry, `plugin:name`.
        create: Constructs the backend, when it is first needed.
    """

    def __init__(self, name: str, spec: CodecSpec, options: LoadOptions, create: Callable[[], B]) -> None:
        self.name, self.spec, self.options = name, spec, options
        self._create = create
        self._backend: B | None = None
        self._lock = Anew(threading.Lock)

    @property
    def backend(self) -> B:
        """Backend behind this handle, for access beyond the interface, such as its network.

        It is constructed at the first access, and loads its weights at the first use.
        """
        with self._lock.own:
            if self._backend is None:
                self._backend = self._create()
            return self._backend

    @property
    def is_loaded(self) -> bool:
        """True if the weights are loaded. It does not construct the backend."""
        return self._backend is not None and self._backend.is_loaded

    def into_dyn(self, restore: Restore) -> DynCodecProvider:
        """Provider of the same backend, with its type erased.

        Args:
            restore: Constructs a provider from the name and the options, when one is unpickled.
        """
        return DynCodecProvider(cast("CodecBackendHandle[CodecBackend]", self), restore)

    def __repr__(self) -> str:
        return f"<CodecBackendHandle {self.name}>"


def _new_workers(name: str) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(WORKERS, thread_name_prefix=f"blazen-codec {name}")


def _notice_many_channels(spec: CodecSpec, pcm: Any) -> None:
    """Warn with `ManyChannelsNotice` if an array of two axes has more channels than most recordings."""
    shape = tuple(getattr(pcm, "shape", ()))
    if spec.channels == 1 and len(shape) == 2 and shape[0] > STEREO:
        warnings.warn(
            f"audio of shape {shape} is taken as one recording of {shape[0]} channels; encode a batch with encode_batch",
            ManyChannelsNotice,
            stacklevel=3,
        )


def _async_twin(method: Callable[Concatenate[DynCodecProvider, P], R]) -> Callable[Concatenate[DynCodecProvider, P], Twin[R]]:
    """Coroutine method that runs `method` in one of the provider's threads."""

    @wraps(method)
    async def twin(provider: DynCodecProvider, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await cancellation.run_in_thread(partial(method, provider, *args, **kwargs), provider._workers.own)

    twin.__name__, twin.__qualname__ = f"a{method.__name__}", f"DynCodecProvider.a{method.__name__}"
    return twin


@cache
def _adopt_docstrings() -> None:
    """Replace references to the trait's docstrings by these, for `help`. The trait is not imported before a provider is made."""
    if sys.flags.optimize > 1:  # which removes docstrings
        return
    with held_off():
        from .backend import CodecBackend

    for name in [name for name in vars(DynCodecProvider) if f"a{name}" in vars(DynCodecProvider)]:
        method, twin = getattr(DynCodecProvider, name), getattr(DynCodecProvider, f"a{name}")
        own = REFERENCE.sub("", method.__doc__)
        method.__doc__ = "\n\n".join(filter(None, (getdoc(getattr(CodecBackend, name)), own)))
        twin.__doc__ = f"Coroutine that runs `{name}` in one of the provider's threads.\n\n{method.__doc__}"


class DynCodecProvider:
    """A codec of which only the trait is visible.

    Every method that does work has an `async` twin with the prefix `a`, which runs in one of the provider's `WORKERS` threads.
    If its task is cancelled, work that waits for a thread never begins, and work in progress ends at the next tile.
    In a forked child a provider keeps the same weights and runs on one thread.
    A provider can be pickled as its name and options; the receiver loads its own weights.
    """

    def __init__(self, handle: CodecBackendHandle[CodecBackend], restore: Restore) -> None:
        _adopt_docstrings()
        self._handle = handle
        self._restore = restore
        self._workers = Anew(partial(_new_workers, handle.name))

    @property
    def backend(self) -> CodecBackend:
        """Backend behind this provider, for access beyond the interface, such as its network.

        Its class belongs to the plugin, so callers that use it work only with that plugin's codecs.
        """
        return self._handle.backend

    @property
    def name(self) -> str:
        """Name for the registry, `plugin:name`."""
        return self._handle.name

    @property
    def options(self) -> LoadOptions:
        """Options that the codec was loaded with."""
        return self._handle.options

    @property
    def spec(self) -> CodecSpec:
        """Description of the model."""
        return self._handle.spec

    @property
    def id(self) -> str:
        """Identifier `family:model`. Constructs the backend."""
        return self.backend.id

    @property
    def provider_kind(self) -> str:
        """Kind of the backend, `codec`."""
        return self.backend.provider_kind

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.spec.sample_rate

    @property
    def channels(self) -> int:
        """Channels of the network; a mono codec takes more, as separate streams."""
        return self.spec.channels

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks, of which fewer may be used."""
        return self.spec.num_codebooks

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.spec.frame_rate

    @property
    def preferred_chunk_frames(self) -> int:
        """See `CodecBackend.preferred_chunk_frames`."""
        return self.backend.preferred_chunk_frames

    @property
    def max_frames_per_step(self) -> int:
        """See `CodecBackend.max_frames_per_step`."""
        return self.backend.max_frames_per_step

    @property
    def max_batch_size(self) -> int:
        """See `CodecBackend.max_batch_size`."""
        return self.backend.max_batch_size

    @property
    def short_samples(self) -> int:
        """See `CodecBackend.short_samples`."""
        return self.backend.short_samples

    @property
    def weights_label(self) -> str | None:
        """See `CodecBackend.weights_label`."""
        return self.backend.weights_label

    @property
    def device(self) -> str:
        """Device of the model, such as `cpu` or `cuda:0`. Raises `DeviceUnavailable` if it is not available."""
        return self.backend.device

    @property
    def module(self) -> CodecModule:
        """See `CodecBackend.module`."""
        return self.backend.module

    @property
    def is_loaded(self) -> bool:
        """True if the weights are loaded."""
        return self._handle.is_loaded

    def load(self) -> None:
        """See `AudioBackend.load`."""
        self.backend.load()

    aload = _async_twin(load)

    def unload(self) -> None:
        """See `AudioBackend.unload`."""
        self.backend.unload()

    aunload = _async_twin(unload)

    @overload
    def encode(
        self, pcm: Any, sample_rate: int, *, as_tensors: Literal[False] = False, **options: Unpack[EncodeOptions]
    ) -> CodecTokens: ...
    @overload
    def encode(
        self, pcm: Any, sample_rate: int, *, as_tensors: Literal[True], **options: Unpack[SizeOptions]
    ) -> TensorTokens: ...
    def encode(self, pcm: Any, sample_rate: int, *, as_tensors: bool = False, **options: Any) -> CodecTokens | TensorTokens:
        """See `CodecBackend.encode`. With `as_tensors`, codes stay on the device, as by `CodecBackend.encode_tensors`."""
        run = self.backend.encode_tensors if as_tensors else self.backend.encode
        tokens = run(pcm, sample_rate, **options)
        _notice_many_channels(self.spec, pcm)  # of valid audio
        return tokens

    aencode = _async_twin(encode)

    @overload
    def decode(self, tokens: CodecTokens, *, as_tensors: Literal[False] = False) -> Pcm: ...
    @overload
    def decode(self, tokens: CodecTokens | TensorTokens, *, as_tensors: Literal[True]) -> Tensor: ...
    def decode(self, tokens: Any, *, as_tensors: bool = False) -> Pcm | Tensor:
        """See `CodecBackend.decode`. With `as_tensors`, audio stays on the device, as by `CodecBackend.decode_tensors`."""
        return self.backend.decode_tensors(tokens) if as_tensors else self.backend.decode(tokens)

    adecode = _async_twin(decode)

    def decoded_loudness(self, tokens: CodecTokens) -> tuple[float, ...]:
        """See `CodecBackend.decoded_loudness`."""
        return self.backend.decoded_loudness(tokens)

    adecoded_loudness = _async_twin(decoded_loudness)

    def encode_batch(self, items: Sequence[Any], sample_rate: int, **options: Unpack[EncodeOptions]) -> list[CodecTokens]:
        """See `CodecBackend.encode_batch`."""
        return self.backend.encode_batch(items, sample_rate, **options)

    aencode_batch = _async_twin(encode_batch)

    def decode_batch(self, items: Sequence[CodecTokens]) -> list[Pcm]:
        """See `CodecBackend.decode_batch`."""
        return self.backend.decode_batch(items)

    adecode_batch = _async_twin(decode_batch)

    def encode_latents(self, pcm: Any, sample_rate: int) -> Latents:
        """See `CodecBackend.encode_latents`."""
        return self.backend.encode_latents(pcm, sample_rate)

    aencode_latents = _async_twin(encode_latents)

    def decode_latents(self, latents: Any, num_samples: int | None = None) -> Pcm:
        """See `CodecBackend.decode_latents`."""
        return self.backend.decode_latents(latents, num_samples)

    adecode_latents = _async_twin(decode_latents)

    def encode_pcm(self, samples: Any, sample_rate: int) -> NDArray[np.uint32]:
        """See `CodecBackend.encode_pcm`."""
        return self.backend.encode_pcm(samples, sample_rate)

    aencode_pcm = _async_twin(encode_pcm)

    def decode_tokens(self, tokens: Any, num_codebooks: int) -> Pcm:
        """See `CodecBackend.decode_tokens`."""
        return self.backend.decode_tokens(tokens, num_codebooks)

    adecode_tokens = _async_twin(decode_tokens)

    def encoder_session(self, channels: int | None = None, **options: Unpack[EncoderSessionOptions]) -> EncoderSession:
        """See `CodecBackend.encoder_session`."""
        return self.backend.encoder_session(channels, **options)

    aencoder_session = _async_twin(encoder_session)

    def decoder_session(self, **options: Unpack[DecoderSessionOptions]) -> DecoderSession:
        """See `CodecBackend.decoder_session`."""
        return self.backend.decoder_session(**options)

    adecoder_session = _async_twin(decoder_session)

    def decoder_pool(self, max_streams: int = 64, **options: Unpack[DecoderPoolOptions]) -> DecoderPool:
        """See `CodecBackend.decoder_pool`."""
        return self.backend.decoder_pool(max_streams, **options)

    adecoder_pool = _async_twin(decoder_pool)

    def encoder_pool(self, max_streams: int = 64, **options: Unpack[EncoderPoolOptions]) -> EncoderPool:
        """See `CodecBackend.encoder_pool`."""
        return self.backend.encoder_pool(max_streams, **options)

    aencoder_pool = _async_twin(encoder_pool)

    def __reduce__(self) -> tuple[Restore, tuple[str, LoadOptions]]:
        return self._restore, (self.name, self.options)

    def __repr__(self) -> str:
        state = f"loaded on {self.device}" if self._handle.is_loaded else "not loaded"
        return f"<{type(self).__name__} {self.name}, {self.spec.summary}, {state}>"

"""Codec trait over a PyTorch network: devices, loading and unloading, sessions and batches."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, Unpack, cast

import numpy as np
import torch

from .. import weights
from ..architectures import Architecture, check_config
from ..backend import CodecBackend
from ..checks import LONGEST_TILE, check_blocks, check_items, check_latents
from ..errors import (
    CodecError,
    DeviceUnavailable,
    InvalidInput,
    InvalidTokens,
    NotYetImplemented,
    SlowerNotice,
    WeightsUnavailable,
)
from ..forks import Anew
from ..nn import halves
from ..nn.checkpoints import conversion, state_dicts, weight_files
from ..nn.checkpoints.file_kinds import kind_of
from ..nn.checkpoints.unread import Select
from ..nn.codec_network import CodecNetwork
from ..nn.kernels.dispatch import is_batch_exact
from ..nn.kernels.thread_counts import one_thread
from ..nn.layers.base import StreamSetup, prepare, reset_parameters
from ..nn.layers.deferral import deferred_parameters
from ..nn.layers.noise import CounterNoise
from ..pools import DecoderPool, EncoderPool, PoolSettings
from ..sessions import DecoderSession, EncoderSession
from ..specs import CodecSpec, Half, LoadOptions
from ..streaming import DecoderSessionOptions, EncoderSessionOptions, offline_tile_frames
from ..tokens.tokens import CodecTokens
from ..validation import Latents, Pcm, is_int
from . import compiling
from .batching import by_similar_length, run_batches
from .cpu_threads import usable_threads
from .cuda_graphs import CaptureFn, GraphedNetwork, capture_fn_for
from .guard import inference_guard, network_guard
from .latents import TiledRun
from .module import CodecModule
from .pools.batched import PoolNetwork
from .pools.decoder import BatchedDecoderPool
from .pools.encoder import BatchedEncoderPool
from .pools.segments import SegmentDecoderPool, SegmentEncoderPool
from .ragged_batch import decode_ragged, encode_ragged
from .segments import SegmentCoder, SegmentDecoderSession, SegmentEncoderSession, decode_segments, encode_segments
from .sessions import StreamingDecoder, TileDecoderSession, TileEncoderSession, inherits, runs_in_steps
from .side_by_side import DecodeSideBySide, EncodeSideBySide
from .tensor_checks import check_codes, check_lengths, check_signals
from .tensor_runs import TensorRunner
from .tensor_sessions import TensorDecoderSession, TensorEncoderSession
from .tensor_tokens import TensorTokens, longest_signal

T = TypeVar("T")
R = TypeVar("R")
SHORT_PER_TILE = 4
"""Short signals that share a tile in a batch."""
TILES_PER_PUSH = 32
"""Tiles of a push that runs in several threads, which begin and end together."""
LONGEST_BESIDE = 60
"""Seconds of the longest recordings that are gathered to run side by side."""
BYTES_PER_SAMPLE = 1 << 12
"""GPU memory budgeted for each sample of a batch. The largest models need less than half; large steps are efficient."""
MIN_WEIGHT_BYTES = 2
"""Least size of a weight in a file, in bytes."""
SLOW_HALF = (
    "{name} runs in {dtype} on a CPU, which takes up to 25 times as long as float32 and is less exact; it only halves the memory "
    "of the weights. Load it with dtype='float32'"
)
TUNED = "tuned"
"""Label of weights that a module was trained to."""
TFLOAT32 = "tfloat32"
"""Value of the option `dtype` for float32 computed in TF32; it is not a dtype of PyTorch."""


@dataclass(frozen=True)
class Loaded:
    """A prepared network and the label of its weights."""

    network: CodecNetwork
    weights: str


def pick_device(spec: CodecSpec, requested: str) -> torch.device:
    """Choose the device to run on.

    Args:
        requested: Name of a PyTorch device, or `auto` for the first of the spec's devices that is available.

    Raises:
        DeviceUnavailable: The device is not available, or the model does not run on it.
    """
    supported = spec.capabilities.devices
    if requested == "auto":
        available = [kind for kind in supported if is_available(torch.device(kind))]
        if not available:
            raise DeviceUnavailable(f"{spec.name} runs on {', '.join(supported)}, none of which is available here")
        return torch.device(available[0])
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{requested!r} is not a device; {spec.name} runs on auto, {', '.join(supported)}") from error
    if device.type not in supported:
        raise DeviceUnavailable(f"{spec.name} does not run on {requested}; it runs on {', '.join(supported)}")
    if not is_available(device):
        raise DeviceUnavailable(f"device {requested} is not available here; device='auto' takes one that is")
    return device


def is_available(device: torch.device) -> bool:
    """Tell whether PyTorch can use a device here."""
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu" and not device.index


class TorchCodecBackend(CodecBackend):
    """A codec that runs on PyTorch. A plugin provides its network and the conversion of published weights."""

    batch_streams: ClassVar[Mapping[str, int]] = {"cpu": 1}
    """Rows of a batch, by device type; on a CPU a second row would evict the first from the cache."""

    batches_at_once: ClassVar[Mapping[str, int]] = {"cpu": 8}
    """Batches of segments that run layer by layer, by device type. Recurrent layers on a CPU then read their weights once."""

    def __init__(self, spec: CodecSpec, options: LoadOptions | None = None) -> None:
        super().__init__(spec, options)
        self._loaded: Loaded | None = None
        self._module: CodecModule | None = None
        self._lock = Anew(threading.Lock)

    @abstractmethod
    def new_network(self) -> CodecNetwork:
        """Construct a network of this model, with any weights."""

    @abstractmethod
    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, torch.Tensor]:
        """Convert the content of a published file to a state dict of the network.

        Args:
            network: Network that the weights are for.
            content: Content of the file, from `state_dicts.read`.
            origin: Name of the file, for messages.

        Raises:
            WeightsUnavailable: The content is of another model, or has no weights.
        """

    def build(self, found: weights.RandomWeights | weights.WeightFile) -> CodecNetwork:
        """Build the network on the CPU with these weights; without one half, if the options say so.

        Raises:
            WeightsUnavailable: The weights, or the config beside them, are of another model.
        """
        if self.options.architecture and isinstance(found, weights.WeightFile):
            self._check_size(found)
        if isinstance(found, weights.RandomWeights):
            network = self.new_network()
            reset_parameters(network, found.seed)
            return self._keep_half(network)
        if self.half and (half := self._build_half(found, self.half)) is not None:
            return half
        return self._keep_half(self._read(self.new_network(), found))

    def _read(self, network: CodecNetwork, found: weights.WeightFile) -> CodecNetwork:
        """Load a file into a network."""
        origin = str(found.path)
        with state_dicts.reading(origin):
            state_dicts.load(network, self._state(network, found), origin)
        return network

    def _build_half(self, found: weights.WeightFile, half: Half) -> CodecNetwork | None:
        """Build one half without memory for the other; `None` if the network, its conversion or the file does not allow that."""
        with deferred_parameters() as deferral:
            network = self.new_network()
        if not isinstance(network, CodecNetwork) or not halves.can_fill(network, deferral):
            return None
        try:
            state = self._state(network, found, functools.partial(conversion.half_names, half=halves.OTHER[half]))
            state_dicts.check(network, state, str(found.path))
            halves.fill(self._keep_half(network), state)
        except (CodecError, *state_dicts.CONTENT_ERRORS):
            return None  # reading everything gives the network, or the error
        return network

    def _keep_half(self, network: CodecNetwork) -> CodecNetwork:
        """Remove the half that the options leave out."""
        if self.half and isinstance(network, CodecNetwork):
            halves.keep_half(network, self.half, self._missing(halves.OTHER[self.half]))
        return network

    def _state(
        self, network: CodecNetwork, found: weights.WeightFile, select: Select | None = None
    ) -> Mapping[str, torch.Tensor]:
        """Read a file, compare the config beside it with the spec, and convert it for the network."""
        origin, content = str(found.path), functools.cache(lambda: state_dicts.read(found.path, select))
        with state_dicts.reading(origin):
            # With options.architecture, the spec was read from this config, so there is nothing to check.
            if found.config and self.spec.architecture and not self.options.architecture:
                described = state_dicts.read_config(found.config)
                check_config(
                    self.spec.architecture,
                    described,
                    str(found.config),
                    self.spec.name,
                    lambda: conversion.tensors(content(), origin),
                )
            return self.from_published(network, content(), origin)

    @property
    def half(self) -> Half | None:
        """Half that is loaded; `None` for both."""
        return self.options.parts

    def _missing(self, half: str) -> str:
        """Message of the methods of a half that is not loaded."""
        verb = "encode" if half == "encoder" else "decode"
        return f"{self.spec.name} was loaded with parts={self.half!r}, so it cannot {verb}; load it without parts"

    def check_half(self, half: Half) -> None:
        """Raise `InvalidInput` if a half is not loaded."""
        if self.half not in (None, half):
            raise InvalidInput(self._missing(half))

    def _check_size(self, found: weights.WeightFile) -> None:
        """Raise `WeightsUnavailable` if a file is too small for what its config claims, before memory is allocated for it."""
        kind_of(found.path)  # raises a more helpful error if this is no file of weights
        with torch.device("meta"):
            claimed = sum(parameter.numel() for parameter in self.new_network().parameters())
        if MIN_WEIGHT_BYTES * claimed > (size := found.path.stat().st_size):
            raise WeightsUnavailable(
                f"{found.path} has {size} bytes, which cannot hold the {claimed} weights that its config claims"
            )

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> CodecSpec:
        """Spec of a model with other settings than the published ones.

        Args:
            fields: Fields of the spec that do not follow from the settings.

        Raises:
            NotYetImplemented: The family has no such models.
        """
        raise NotYetImplemented(f"{cls.__name__} supports only the models that its plugin lists, without other settings")

    @classmethod
    def described_by(cls, found: weights.WeightFile) -> tuple[Any, str]:
        """Find the settings of weights; return them and their origin. Plugins whose files contain settings override this.

        Raises:
            WeightsUnavailable: There are no settings.
        """
        if config := found.described_by:
            return state_dicts.read_config(config), str(config)
        raise WeightsUnavailable(f"{found.path} has no settings; put its {weights.CONFIG} beside it, and pass the folder")

    @classmethod
    def spec_from_weights(cls, spec: CodecSpec, options: LoadOptions) -> CodecSpec:
        kind = type(spec.architecture)
        if not issubclass(kind, Architecture):
            return super().spec_from_weights(spec, options)
        found = weights.locate(spec, options) if options.weights else None
        if not isinstance(found, weights.WeightFile):
            raise InvalidInput(
                "architecture='from-weights' needs weights to read settings from; pass a file, a folder or a Hub id"
            )
        with state_dicts.reading(str(found.path)):
            kind_of(found.path)
            described, origin = cls.described_by(found)
            architecture = kind.read(
                described,
                origin,
                spec.family,
                lambda: conversion.tensors(state_dicts.read(found.path), str(found.path)),
            )
            return cls.custom_spec(
                architecture,
                name=f"custom_{architecture.digest}",
                description=f"A {spec.family} of other settings",
                weights=spec.weights,
                license="as the publisher of its weights says",
            )

    @property
    def device(self) -> str:
        return str(pick_device(self.spec, self.options.device))

    @property
    def dtype(self) -> torch.dtype:
        if self.options.dtype not in self.spec.capabilities.dtypes:
            raise DeviceUnavailable(
                f"{self.spec.name} does not run in {self.options.dtype}; it runs in {', '.join(self.spec.capabilities.dtypes)}"
            )
        dtype: torch.dtype = getattr(torch, "float32" if self.allows_tf32 else self.options.dtype)
        return dtype

    @property
    def allows_tf32(self) -> bool:
        """Tell whether float32 may be computed in TF32."""
        return self.options.dtype == TFLOAT32

    def load(self) -> None:
        self.loaded()

    def loaded(self) -> Loaded:
        """Load the network and its label if necessary; they are loaded once, even with several threads."""
        loaded = self._loaded
        if loaded is not None:
            return loaded
        with self._lock.own:
            if self._loaded is None:
                device, dtype = torch.device(self.device), self.dtype
                self._warn_of_half(device, dtype)
                found = weights.locate(self.spec, self.options)
                with inference_guard(inference=False):
                    network = self.build(found).requires_grad_(False).eval()
                    if isinstance(network, CodecNetwork):
                        network.place(device, dtype, self.allows_tf32)
                    else:
                        network.to(device, dtype)
                    with compiling.remarked() if device.type == "cpu" else nullcontext():
                        prepare(network)
                self._loaded = Loaded(network, found.label)
                weights.give_notice(self.spec, self.id, found)
            return self._loaded

    def _warn_of_half(self, device: torch.device, dtype: torch.dtype) -> None:
        """Warn that half precision on a CPU runs in PyTorch's operations, without this project's kernels."""
        if device.type == "cpu" and dtype.itemsize < torch.float32.itemsize:
            warnings.warn(SLOW_HALF.format(name=self.spec.name, dtype=self.options.dtype), SlowerNotice, stacklevel=1)

    @property
    def weights_label(self) -> str:
        return self.loaded().weights

    def unload(self) -> None:
        with self._lock.own:
            self._loaded = self._module = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def module(self) -> CodecModule:
        """The model as a PyTorch module with weights of its own; the same one until `unload`.

        Raises:
            NotYetImplemented: The network is not a `CodecNetwork`.
            CodecError: Loading the model failed.
        """
        loaded = self.loaded()
        with self._lock.own:
            if self._module is None:
                self._module = CodecModule(self, self.copy_network(), loaded)
            return self._module

    def copy_network(self) -> CodecNetwork:
        """Copy of the network on its device, which is not prepared. Loads the weights.

        Raises:
            NotYetImplemented: The network is not a `CodecNetwork`.
        """
        network = self.loaded().network
        if not isinstance(network, CodecNetwork):
            raise NotYetImplemented(f"{self.spec.name} has no PyTorch module, because its network is not a CodecNetwork")
        device, dtype = torch.device(self.device), self.dtype
        with inference_guard(inference=False):
            copy = self._keep_half(self.new_network())
            copy.load_state_dict(network.state_dict())
            copy.place(device, dtype, self.allows_tf32)
        return copy

    def with_network(self, loaded: Loaded, **options: Any) -> Self:
        """Backend of the same model with this prepared network; `options` replaces some of the load options."""
        other = type(self)(self._spec, self.options.model_copy(update=options))
        other._loaded, other.streams_per_batch = loaded, self.streams_per_batch
        return other

    def with_weights_of(self, network: CodecNetwork) -> Self | None:
        """Backend with a prepared copy of a network on its device; `None` if no kernels can be prepared for its dtype."""
        weight = next(chain(network.encoder.parameters(), network.decoder.parameters()))
        dtype = str(weight.dtype).removeprefix("torch.")
        if dtype not in self.spec.capabilities.dtypes:
            return None
        if dtype == "float32" and self.allows_tf32:
            dtype = TFLOAT32
        with inference_guard(inference=False):
            copy = self._keep_half(self.new_network()).requires_grad_(False).eval()
            copy.load_state_dict(network.state_dict())
            copy.place(weight.device, weight.dtype, self.allows_tf32)
            prepare(copy)
        return self.with_network(Loaded(copy, TUNED), device=str(weight.device), dtype=dtype)

    def to_published(self, network: CodecNetwork) -> Mapping[str, torch.Tensor]:
        """Convert a network to the state dict of a published file: the reverse of `from_published`.

        Raises:
            NotYetImplemented: The plugin cannot write weights.
        """
        raise NotYetImplemented(f"{type(self).__name__} has no to_published, which writing weights needs")

    def published_content(self, state: Mapping[str, torch.Tensor]) -> Any:
        """Content of a published file in PyTorch's format; the state dict by default."""
        return dict(state)

    def published_config(self) -> Mapping[str, Any] | None:
        """Content of the config beside a published file, if there is one."""
        return None

    def save_weights(self, network: CodecNetwork, path: Path) -> Path:
        """Write a network's weights in the published layout; see `CodecModule.save_weights`."""
        if self.half:
            raise InvalidInput(f"{self.spec.name} was loaded with parts={self.half!r}; load it without parts to save its weights")
        state = self.to_published(network)
        return weight_files.write(path, self.spec.weights.file, state, self.published_content(state), self.published_config())

    @property
    def streams_at_once(self) -> int | None:
        """Most rows of a batch whose whole input is on the device; `None` for any number."""
        if torch.device(self.device).type == "cpu":
            return 1
        return self._coder().rows if self.spec.segment else None

    def encode_tensors(
        self, pcm: Any, sample_rate: int, *, bandwidth: float | None = None, num_codebooks: int | None = None
    ) -> TensorTokens:
        self.check_half("encoder")
        count = self.spec.codebooks_for(bandwidth, num_codebooks)
        x = check_signals(self.spec, pcm, sample_rate, torch.device(self.device))
        loaded, streams = self.loaded(), x.shape[1] // self.channels
        rows = x.reshape(len(x) * streams, self.channels, x.shape[2]).transpose(1, 2)
        lengths, runner = (x.shape[2],) * len(rows), self.runner(loaded.network)
        codes = runner.encode(rows, lengths, count)
        scales = runner.scales(rows, lengths)
        return TensorTokens(self.spec, tuple(code.long() for code in codes), lengths, scales, streams, loaded.weights)

    def decode_tensors(self, tokens: TensorTokens | CodecTokens) -> torch.Tensor:
        self.check_half("decoder")
        device = torch.device(self.device)
        if isinstance(tokens, CodecTokens):
            self.check_decodable(tokens)
            if tokens.extra or tokens.loudness is not None:
                return torch.from_numpy(self.decode(tokens)).to(device)
            return self.decode_tensors(TensorTokens.from_tokens(self.spec, [tokens], device))[0]
        if tokens.spec != self.spec:
            raise InvalidTokens(f"the tokens are of {tokens.spec.identity}, and this is {self.spec.identity}")
        if len(tokens) not in self.spec.usable_codebooks:
            raise InvalidTokens(f"{self.spec.name} has {self.spec.codebook_numbers} codebooks; these tokens have {len(tokens)}")
        indices = check_codes(self.loaded().network.quantizer, self.spec, tokens.codes, device)
        check_blocks(self.spec, indices[0].shape[1] * self.spec.strides[0])
        check_lengths(tokens.lengths, len(indices[0]), longest_signal(self.spec, indices[0].shape[1] * self.spec.strides[0]))
        runner = self.runner(self.loaded().network)
        with network_guard(device):
            z = runner.network.quantizer.decode(indices)
        y = runner.decode_latents(z, tokens.lengths, tokens.scales).float()
        return y.transpose(1, 2).reshape(len(y) // tokens.streams, -1, y.shape[1])

    def runner(self, network: CodecNetwork) -> TensorRunner:
        """Runner of the prepared network on whole signals in tensors."""
        if not self._is_native:
            raise NotYetImplemented(f"{self.spec.name} takes and gives arrays only, because its network is not a CodecNetwork")
        device = torch.device(self.device)
        return TensorRunner(
            self.spec,
            network,
            self.setup,
            lambda: network_guard(device),
            functools.partial(offline_tile_frames, self),
            self.streams_at_once,
        )

    def setup(self, streams: int) -> StreamSetup:
        """Setup for the state of `streams` streams, with noise if the options enable it."""
        device, dtype = torch.device(self.device), self.dtype
        seed = secrets.randbits(64) if self.options.noise_seed is None else self.options.noise_seed
        return StreamSetup(streams, device, dtype, CounterNoise(seed, device, dtype) if self.options.noise else None)

    def encoder_session(self, channels: int | None = None, **options: Unpack[EncoderSessionOptions]) -> EncoderSession:
        self.check_half("encoder")
        return super().encoder_session(channels, **options)

    def new_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> EncoderSession:
        loaded = self.loaded()
        if self.spec.segment:
            coder = self._coder()
            return SegmentEncoderSession(self, coder, channels=channels, num_codebooks=num_codebooks, weights=loaded.weights)
        return self._tile_encoder_session(TileEncoderSession, channels, num_codebooks, tile_frames)

    def new_tensor_encoder_session(self, channels: int, num_codebooks: int, tile_frames: int) -> EncoderSession:
        self._check_gives_tensors()
        return self._tile_encoder_session(TensorEncoderSession, channels, num_codebooks, tile_frames)

    def _tile_encoder_session(
        self, kind: type[TileEncoderSession], channels: int, num_codebooks: int, tile_frames: int
    ) -> EncoderSession:
        loaded = self.loaded()
        return kind(
            self,
            self._for_session(loaded.network),
            self.setup(channels // self.channels),
            channels=channels,
            num_codebooks=num_codebooks,
            tile_frames=tile_frames,
            weights=loaded.weights,
        )

    def decoder_session(self, **options: Unpack[DecoderSessionOptions]) -> DecoderSession:
        self.check_half("decoder")
        return super().decoder_session(**options)

    def new_decoder_session(self, tile_frames: int) -> DecoderSession:
        if self.spec.segment:
            return SegmentDecoderSession(self, self._coder())
        return TileDecoderSession(self, self._for_session(self.loaded().network), self.decoder_of, self.setup, tile_frames)

    def new_tensor_decoder_session(self, tile_frames: int) -> DecoderSession:
        self._check_gives_tensors()
        return TensorDecoderSession(self, self._for_session(self.loaded().network), self.decoder_of, self.setup, tile_frames)

    def _check_gives_tensors(self) -> None:
        """Raise `NotYetImplemented` where streams pass through the host: in segments, and in networks of other kinds."""
        if self.spec.segment or not self._is_native:
            raise self._without_tensors()

    def decoder_variant(self, tokens: CodecTokens) -> Hashable:
        """Variant of the decoder for a signal that begins with these tokens; `None` if it is the network's own."""
        return None

    def decoder_of(self, network: CodecNetwork, tokens: CodecTokens) -> StreamingDecoder:
        """Decoder for a signal that begins with these tokens; the network, unless they need a variant."""
        return network

    def new_decoder_pool(self, settings: PoolSettings) -> DecoderPool:
        self.check_half("decoder")
        self.spec.check_has_tokens()
        if not self._batches_streams("decode_step", "decode_many"):
            return super().new_decoder_pool(settings)
        if settings.as_tensors:
            self._check_gives_tensors()
        if self.spec.segment:
            return SegmentDecoderPool(self, settings, self._coder())
        return BatchedDecoderPool(self, settings, self._pool_network(), self.decoder_variant, self.decoder_of)

    def new_encoder_pool(self, settings: PoolSettings, num_codebooks: int) -> EncoderPool:
        self.check_half("encoder")
        label = self.weights_label
        if not self._batches_streams("encode_step", "encode_many"):
            return super().new_encoder_pool(settings, num_codebooks)
        if settings.as_tensors:
            self._check_gives_tensors()
        if self.spec.segment:
            return SegmentEncoderPool(self, settings, self._coder(), num_codebooks, label)
        return BatchedEncoderPool(self, settings, self._pool_network(), num_codebooks, label)

    def _pool_network(self) -> PoolNetwork:
        return PoolNetwork.of(self.loaded().network, self.setup(1), self._capture)

    def _batches_streams(self, *methods: str) -> bool:
        """Tell whether streams can run as rows of a batch; this loads the weights."""
        network = self.loaded().network
        return isinstance(network, CodecNetwork) and inherits(network, *methods)

    def _for_session(self, network: CodecNetwork) -> CodecNetwork:
        return cast(CodecNetwork, GraphedNetwork(network, self._capture)) if self._capture else network

    @property
    def _capture(self) -> CaptureFn | None:
        return capture_fn_for(torch.device(self.device)) if self.options.graphs else None

    def encode_latents(self, pcm: Any, sample_rate: int) -> Latents:
        self.check_half("encoder")
        pcm = self.check_pcm(pcm, sample_rate)
        network, setup = self._latent_network(), self.setup(pcm.shape[0] // self.channels)
        padded = np.pad(pcm, ((0, 0), (0, self.spec.missing_samples(pcm.shape[1]))))
        tile = offline_tile_frames(self, setup.batch) * self.spec.hop_length
        rows = setup.batch * self._latent_channels(network)
        return TiledRun(network.encoder, setup, self.channels, network.latent_of).run(padded, tile, rows)

    def decode_latents(self, latents: Any, num_samples: int | None = None) -> Pcm:
        self.check_half("decoder")
        network = self._latent_network()
        channels = self._latent_channels(network)
        array = check_latents(self.spec, latents, channels)
        setup = self.setup(array.shape[0] // channels)
        most = network.samples_decoded(array.shape[1], True)
        if num_samples is not None and not (is_int(num_samples) and 0 < num_samples <= most):
            raise InvalidInput(f"num_samples is {num_samples!r}; {array.shape[1]} frames decode to at most {most} samples")
        tile = offline_tile_frames(self, setup.batch)
        pcm = TiledRun(network.decoder, setup, channels).run(array, tile, setup.batch * self.channels)
        return pcm if num_samples is None else pcm[:, :num_samples].copy()

    def _latent_network(self) -> CodecNetwork:
        """Network whose parts run by themselves; this loads the weights.

        Raises:
            NotYetImplemented: The network has no such parts, or signals are in segments, whose latents do not join.
        """
        if self.spec.segment or not isinstance(network := self.loaded().network, CodecNetwork):
            raise self._without_latents()
        return network

    def _latent_channels(self, network: CodecNetwork) -> int:
        return self.spec.latent_channels or network.quantizer.channels

    def encode_batch(
        self,
        items: Sequence[Any],
        sample_rate: int,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        normalize_db: float | None = None,
    ) -> list[CodecTokens]:
        self.check_half("encoder")
        count = self.spec.codebooks_for(bandwidth, num_codebooks)
        pcm = [self.check_pcm(item, sample_rate) for item in check_items(items)]
        streams = [item.shape[0] // self.channels for item in pcm]
        levels = [] if normalize_db is None else [self._level(item, normalize_db) for item in pcm]
        if levels:
            pcm = [item * level.factors for item, level in zip(pcm, levels, strict=True)]
        lengths = [item.shape[1] for item in pcm]
        beside = functools.partial(self._encode_beside, num_codebooks=count) if self._encodes_beside else None
        is_own = type(self).encode_whole is CodecBackend.encode_whole
        tokens = self._run_batches(
            pcm, lengths, streams, self._shared_samples, lambda batch: self._encode_items(batch, count), beside, is_own
        )
        if not levels:
            return tokens
        return [dataclasses.replace(item, loudness=level.loudness) for item, level in zip(tokens, levels, strict=True)]

    def check_decodable(self, tokens: CodecTokens) -> None:
        self.check_half("decoder")
        super().check_decodable(tokens)

    def decode_batch(self, items: Sequence[CodecTokens]) -> list[Pcm]:
        self.check_half("decoder")
        self.spec.check_has_tokens()
        for item in check_items(items):
            self.check_decodable(item)
        results: dict[int, Pcm] = {}
        by_codebooks: dict[int, list[int]] = {}
        for index, item in enumerate(items):
            if item.extra or item.loudness is not None:
                results[index] = self.decode(item)
            else:
                by_codebooks.setdefault(item.num_codebooks, []).append(index)
        short = self._shared_samples // self.spec.hop_length
        beside = self._decode_beside if self._decodes_beside else None
        is_own = type(self).decode_whole is CodecBackend.decode_whole
        for indices in by_codebooks.values():
            group = [items[index] for index in indices]
            frames, streams = [item.frames for item in group], [item.streams for item in group]
            decoded = self._run_batches(group, frames, streams, short, self._decode_items, beside, is_own)
            results.update(zip(indices, decoded, strict=True))
        return [results[index] for index in range(len(items))]

    def _run_batches(
        self,
        items: list[T],
        lengths: list[int],
        streams: list[int],
        short: int,
        run: Callable[[list[T]], list[R]],
        beside: Callable[[list[T], int], list[R]] | None,
        is_own: bool,
    ) -> list[R]:
        """Run items of similar length together: as many as the device takes, or as many of up to `short` as fill a tile.

        Args:
            run: Runs the items of a batch.
            beside: Runs items side by side in a number of threads, if that is faster than batches of one item.
            is_own: A signal by itself runs in this class's sessions. Other code may use all threads, and round by their number.
        """
        batches = list(by_similar_length(lengths, streams, self.max_batch_size, SHORT_PER_TILE * short))
        threads = self._threads
        known: dict[int, R] = {}
        single = [batch[0] for batch in batches if len(batch) == 1]
        if beside and len(single) > threads:
            known = dict(zip(single, beside([items[index] for index in single], threads), strict=True))
            batches = [batch for batch in batches if len(batch) > 1]
        if not (1 < threads < len(batches) and is_own and self._is_native):
            return run_batches(items, batches, run, known=known)
        with one_thread():  # each batch runs in one thread, the longest first
            return run_batches(items, batches[::-1], run, threads, one_thread, known)

    @property
    def _is_native(self) -> bool:
        """Tell whether the network is made of this project's layers; this loads the weights."""
        return isinstance(self.loaded().network, CodecNetwork)

    @property
    def _threads(self) -> int:
        """Number of threads that a call may use on the device of the network."""
        return usable_threads() if torch.device(self.device).type == "cpu" else 1

    @property
    def max_batch_size(self) -> int:
        if not self.spec.capabilities.batches:
            return 1
        return self.streams_per_batch or self.batch_streams.get(torch.device(self.device).type, 32)

    @property
    def short_samples(self) -> int:
        if self._encodes_beside or self._decodes_beside:
            return LONGEST_BESIDE * self.sample_rate
        return self._shared_samples

    @property
    def _shared_samples(self) -> int:
        """Length up to which signals share a tile: on a CPU a quarter of a tile, below which call overhead dominates.

        It is 0 where a batch would round differently.
        """
        if self.spec.segment or self.max_batch_size > 1 or not self.spec.capabilities.batches:
            return 0
        if not is_batch_exact(torch.device(self.device)):
            return 0
        return self.spec.tile_frames * self.spec.hop_length // SHORT_PER_TILE

    @property
    def preferred_chunk_frames(self) -> int:
        """Frames of all tiles or segments that run together."""
        tiles = TILES_PER_PUSH if self._threads > 1 else 1
        return self.spec.tile_frames * (self.max_batch_size * self._batches * self._threads if self.spec.segment else tiles)

    @property
    def _batches(self) -> int:
        return self.batches_at_once.get(torch.device(self.device).type, 1)

    @property
    def max_frames_per_step(self) -> int:
        """Frames of a tile; on a GPU, as many as fit its memory, with the same result."""
        most = min(self._max_samples_per_step, LONGEST_TILE * self.sample_rate)
        return max(self.spec.tile_frames, most // self.spec.hop_length)

    @property
    def _max_samples_per_step(self) -> int:
        """Samples of a batch that fit a GPU's memory; 0 on other devices, where the cache is the limit."""
        device = torch.device(self.device)
        return torch.cuda.get_device_properties(device).total_memory // BYTES_PER_SAMPLE if device.type == "cuda" else 0

    def _coder(self) -> SegmentCoder:
        segment = self.spec.segment
        rows = max(self.max_batch_size, self._max_samples_per_step // segment.length if segment else 0)
        return SegmentCoder(self.spec, self.loaded().network, self.setup, rows, self._batches)

    def _encode_items(self, items: list[Pcm], num_codebooks: int) -> list[CodecTokens]:
        if len(items) == 1:
            return [self.encode_whole(items[0], num_codebooks)]
        loaded = self.loaded()
        with network_guard(torch.device(self.device), is_native=self._is_native) as threads:
            if self.spec.segment:
                return encode_segments(self._coder(), items, num_codebooks, loaded.weights, threads)
            setup = self.setup(sum(len(item) for item in items) // self.channels)
            tile = offline_tile_frames(self, setup.batch)
            codes = encode_ragged(self.spec, loaded.network, setup, items, num_codebooks, tile)
        return [
            CodecTokens.from_codes(self.spec, item_codes, num_samples=item.shape[1], weights=loaded.weights)
            for item, item_codes in zip(items, codes, strict=True)
        ]

    def _decode_items(self, items: list[CodecTokens]) -> list[Pcm]:
        if len(items) == 1:
            return [self.decode_whole(items[0])]
        loaded = self.loaded()
        with network_guard(torch.device(self.device), is_native=self._is_native) as threads:
            if self.spec.segment:
                return decode_segments(self._coder(), items, threads)
            setup = self.setup(sum(item.streams for item in items))
            return decode_ragged(self.spec, loaded.network, setup, items, offline_tile_frames(self, setup.batch))

    @property
    def _encodes_beside(self) -> bool:
        """Tell whether to encode several signals side by side."""
        return self._runs_beside("encoder", "encode_step", "encode_many") and type(self).encode_whole is CodecBackend.encode_whole

    @property
    def _decodes_beside(self) -> bool:
        """Tell whether to decode several signals side by side."""
        return self._runs_beside("decoder", "decode_step", "decode_many") and type(self).decode_whole is CodecBackend.decode_whole

    def _runs_beside(self, part: str, *methods: str) -> bool:
        """Tell whether signals side by side are faster, with the same results; this loads the weights."""
        if self.spec.segment or self.max_batch_size > 1 or not self.spec.capabilities.batches:
            return False
        network = self.loaded().network
        return runs_in_steps(network, torch.device(self.device), *methods) and getattr(network, part).benefits_from_batching

    def _encode_beside(self, items: list[Pcm], threads: int, num_codebooks: int) -> list[CodecTokens]:
        loaded, tile = self.loaded(), offline_tile_frames(self, 1)
        return EncodeSideBySide(
            self.spec, loaded.network, self.setup, items, num_codebooks=num_codebooks, tile_frames=tile, weights=loaded.weights
        ).run(threads)

    def _decode_beside(self, items: list[CodecTokens], threads: int) -> list[Pcm]:
        tile = offline_tile_frames(self, 1)
        return DecodeSideBySide(self.spec, self.loaded().network, self.setup, items, tile_frames=tile).run(threads)

"""The trait over a PyTorch network: devices, loading and unloading, sessions and batches."""

from __future__ import annotations

import dataclasses
import functools
import secrets
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch

from .. import weights
from ..architectures import Architecture, check_config
from ..backend import CodecBackend, DecoderSession, EncoderSession, offline_tile_frames
from ..checks import check_channels, check_items
from ..errors import DeviceUnavailable, InvalidInput, NotYetImplemented, WeightsUnavailable
from ..forks import Anew
from ..nn.checkpoints import conversion, state_dicts
from ..nn.checkpoints.file_kinds import kind_of
from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import StreamSetup, prepare, reset_parameters
from ..nn.layers.noise import CounterNoise
from ..specs import CodecSpec, LoadOptions
from ..tokens.tokens import CodecTokens
from ..validation import Pcm, is_int
from .cuda_graphs import GraphedNetwork, capture_fn_for
from .guard import inference_guard
from .ragged_batch import decode_together, encode_together
from .segments import SegmentCoder, SegmentDecoderSession, SegmentEncoderSession, decode_segments, encode_segments
from .sessions import TileDecoderSession, TileEncoderSession

SHORT_A_TILE = 4
"""Signals that fill a tile, of those that are short."""
LONGEST_TILE = 600
"""Seconds; memory grows with the tile."""
BYTES_A_SAMPLE = 1 << 12
"""Of a GPU's memory, for each sample of all signals that run side by side: few large steps instead of many small ones. The
largest models need less than half of it."""
LEAST_BYTES = 2
"""Of a weight in a file."""
TFLOAT32 = "tfloat32"
"""Not a type of PyTorch's, but a way to multiply float32."""


@dataclass(frozen=True)
class Loaded:
    """A network that is ready, and which weights it has."""

    network: CodecNetwork
    weights: str


def pick_device(spec: CodecSpec, asked: str) -> torch.device:
    """The device to run on.

    Args:
        asked: `auto` for the first of the spec's devices that is there, or a PyTorch device.

    Raises:
        DeviceUnavailable: It is not there, or the model does not run on it.
    """
    can = spec.capabilities.devices
    if asked == "auto":
        there = [kind for kind in can if is_there(torch.device(kind))]
        if not there:
            raise DeviceUnavailable(f"{spec.name} runs on {', '.join(can)}; none of them is there")
        return torch.device(there[0])
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{asked!r} is no device; {spec.name} runs on auto, {', '.join(can)}") from error
    if device.type not in can:
        raise DeviceUnavailable(f"{spec.name} runs on {', '.join(can)}, not on {asked}")
    if not is_there(device):
        raise DeviceUnavailable(f"there is no device {asked} here; device='auto' takes what there is")
    return device


def is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu" and not device.index


class TorchCodecBackend(CodecBackend):
    """A codec that runs on PyTorch. A plugin says what its network is and how published weights are named; the rest is here."""

    batch_streams: ClassVar[Mapping[str, int]] = {"cpu": 1}
    """Number of signals that run side by side, by device type; on a CPU a second one would only push the first out of cache."""

    batches_at_once: ClassVar[Mapping[str, int]] = {"cpu": 8}
    """How many batches of segments run layer by layer where that gains, by device type: recurrent layers on a CPU read their
    weights once for all of them."""

    tile_decoder: ClassVar[type[TileDecoderSession]] = TileDecoderSession
    """What plays tokens that are not in segments."""

    def __init__(self, spec: CodecSpec, options: LoadOptions | None = None) -> None:
        super().__init__(spec, options)
        self._loaded: Loaded | None = None
        self._lock = Anew(threading.Lock)

    @abstractmethod
    def new_network(self) -> CodecNetwork:
        """A network of this model, whatever its weights are."""

    @abstractmethod
    def from_published(self, network: CodecNetwork, content: Any, origin: str) -> Mapping[str, torch.Tensor]:
        """Convert the content of a published file, as `state_dicts.read` gives it, to the network's own names.

        Args:
            origin: The file, for messages.

        Raises:
            WeightsUnavailable: It is of another model, or holds no weights.
        """

    def build(self, found: weights.RandomWeights | weights.WeightFile) -> CodecNetwork:
        """The network, on the CPU, with these weights.

        Raises:
            WeightsUnavailable: They, or the config beside them, are of another model.
        """
        if self.options.architecture and isinstance(found, weights.WeightFile):
            self._check_size(found)
        network = self.new_network()
        if isinstance(found, weights.RandomWeights):
            reset_parameters(network, found.seed)
            return network
        origin, content = str(found.path), functools.cache(lambda: state_dicts.read(found.path))
        with state_dicts.reading(origin):
            if found.config and self.spec.architecture and not self.options.architecture:  # which was read for the spec
                described = state_dicts.read_config(found.config)
                check_config(
                    self.spec.architecture,
                    described,
                    str(found.config),
                    self.spec.name,
                    lambda: conversion.tensors(content(), origin),
                )
            state_dicts.load(network, self.from_published(network, content(), origin), origin)
        return network

    def _check_size(self, found: weights.WeightFile) -> None:
        """Raises `WeightsUnavailable` if a file is too small for what its config claims, before memory is taken for that."""
        kind_of(found.path)  # what is no file of weights is called that, not too small
        with torch.device("meta"):
            claimed = sum(parameter.numel() for parameter in self.new_network().parameters())
        if LEAST_BYTES * claimed > (size := found.path.stat().st_size):
            raise WeightsUnavailable(f"{found.path}: its config claims {claimed} weights, which {size} bytes cannot hold")

    @classmethod
    def custom_spec(cls, architecture: Architecture, **fields: Any) -> CodecSpec:
        """A spec of a model of other settings; `fields` are all those that do not follow from the settings.

        Raises:
            NotYetImplemented: The family has no such models.
        """
        raise NotYetImplemented(f"{cls.__name__} runs the models that its plugin lists, and none of other settings")

    @classmethod
    def described_by(cls, found: weights.WeightFile) -> tuple[Any, str]:
        """Find the settings of weights, and return them and their origin. Plugins whose files hold settings look there first.

        Raises:
            WeightsUnavailable: Nothing does.
        """
        if config := found.described_by:
            return state_dicts.read_config(config), str(config)
        raise WeightsUnavailable(
            f"{found.path} does not say which settings it is of: put its {weights.CONFIG} beside it, and pass the folder"
        )

    @classmethod
    def spec_from_weights(cls, spec: CodecSpec, options: LoadOptions) -> CodecSpec:
        kind = type(spec.architecture)
        if not issubclass(kind, Architecture):
            return super().spec_from_weights(spec, options)
        found = weights.locate(spec, options) if options.weights else None
        if not isinstance(found, weights.WeightFile):
            raise InvalidInput("architecture='from-weights' takes its settings from weights: a file, a folder or a Hub id")
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
                f"{self.spec.name} runs in {', '.join(self.spec.capabilities.dtypes)}, not {self.options.dtype}"
            )
        dtype: torch.dtype = getattr(torch, "float32" if self.is_rough else self.options.dtype)
        return dtype

    @property
    def is_rough(self) -> bool:
        """Tell whether TF32 will do for float32."""
        return self.options.dtype == TFLOAT32

    def load(self) -> None:
        self.loaded()

    def loaded(self) -> Loaded:
        """The network, loaded once however many threads ask."""
        loaded = self._loaded
        if loaded is not None:
            return loaded
        with self._lock.own:
            if self._loaded is None:
                device, dtype = torch.device(self.device), self.dtype
                found = weights.locate(self.spec, self.options)
                with inference_guard(inference=False):
                    network = self.build(found).requires_grad_(False).eval()
                    if isinstance(network, CodecNetwork):
                        network.place(device, dtype, self.is_rough)
                    else:
                        network.to(device, dtype)
                    prepare(network)
                self._loaded = Loaded(network, found.label)
                weights.give_notice(self.spec, self.id, found)
            return self._loaded

    @property
    def weights_label(self) -> str:
        return self.loaded().weights

    def unload(self) -> None:
        with self._lock.own:
            self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    def setup(self, streams: int) -> StreamSetup:
        """Setup for the state of `streams` streams, with the noise that the options ask for."""
        device, dtype = torch.device(self.device), self.dtype
        seed = secrets.randbits(64) if self.options.noise_seed is None else self.options.noise_seed
        return StreamSetup(streams, device, dtype, CounterNoise(seed, device, dtype) if self.options.noise else None)

    def encoder_session(
        self,
        channels: int | None = None,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        tile_frames: int | None = None,
    ) -> EncoderSession:
        channels = self.channels if channels is None else channels
        check_channels(self.spec, channels)
        books = self.spec.codebooks_for(bandwidth, num_codebooks)
        tile, loaded = self._tile(tile_frames), self.loaded()
        if self.spec.segment:
            return SegmentEncoderSession(self, self._coder(), channels=channels, books=books, weights=loaded.weights)
        setup = self.setup(channels // self.channels)
        return TileEncoderSession(
            self,
            self._for_session(loaded.network),
            setup,
            channels=channels,
            books=books,
            tile_frames=tile,
            weights=loaded.weights,
        )

    def decoder_session(self, *, tile_frames: int | None = None) -> DecoderSession:
        tile = self._tile(tile_frames)
        if self.spec.segment:
            return SegmentDecoderSession(self, self._coder())
        return self.tile_decoder(self, self._for_session(self.loaded().network), self.setup, tile)

    def _for_session(self, network: CodecNetwork) -> CodecNetwork:
        if not self.options.graphs:
            return network
        return cast(CodecNetwork, GraphedNetwork(network, capture_fn_for(torch.device(self.device))))

    def encode_batch(
        self,
        items: Sequence[Any],
        sample_rate: int,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        normalize_db: float | None = None,
    ) -> list[CodecTokens]:
        books = self.spec.codebooks_for(bandwidth, num_codebooks)
        pcm = [self.check_pcm(item, sample_rate) for item in check_items(items)]
        streams = [item.shape[0] // self.channels for item in pcm]
        if normalize_db is None:
            return self._in_groups(pcm, streams, self.short_samples, lambda group: self._encode_group(group, books))
        levels = [self._level(item, normalize_db) for item in pcm]
        pcm = [item * level.factors for item, level in zip(pcm, levels, strict=True)]
        tokens: list[CodecTokens] = self._in_groups(
            pcm, streams, self.short_samples, lambda group: self._encode_group(group, books)
        )
        return [dataclasses.replace(own, loudness=level.loudness) for own, level in zip(tokens, levels, strict=True)]

    def decode_batch(self, items: Sequence[CodecTokens]) -> list[Pcm]:
        for item in check_items(items):
            self.check_decodable(item)
        results: dict[int, Pcm] = {}
        plain: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            if item.extra or item.loudness is not None:
                results[place] = self.decode(item)
            else:
                plain.setdefault(item.num_codebooks, []).append(place)
        for places in plain.values():
            group = [items[place] for place in places]
            counts, short = [item.streams for item in group], self.short_samples // self.spec.hop_length
            results.update(zip(places, self._in_groups(group, counts, short, self._decode_group), strict=True))
        return [results[place] for place in range(len(items))]

    def _in_groups(self, items: list[Any], streams: list[int], short: int, run: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Runs items of like length together, and returns the results in their order.

        As many as the device takes are together, and of those of up to `short` as many as fill a tile, four times as long.
        """
        limit = self.max_batch_size
        length = [item.shape[1] if isinstance(item, np.ndarray) else item.frames for item in items]
        groups: list[list[int]] = []
        count = 0
        for place in sorted(range(len(items)), key=lambda i: length[i]):
            count += streams[place]
            if groups and (count <= limit or count * length[place] <= SHORT_A_TILE * short):
                groups[-1].append(place)
            else:
                groups.append([place])
                count = streams[place]
        results: list[Any] = [None] * len(items)
        for group in groups:
            for place, result in zip(group, run([items[i] for i in group]), strict=True):
                results[place] = result
        return results

    @property
    def max_batch_size(self) -> int:
        if not self.spec.capabilities.batches:
            return 1
        return self.streams_per_batch or self.batch_streams.get(torch.device(self.device).type, 32)

    @property
    def short_samples(self) -> int:
        """On a CPU a quarter of a tile: what calling its layers takes is then most of the time."""
        if self.spec.segment or self.max_batch_size > 1 or not self.spec.capabilities.batches:
            return 0
        return self.spec.tile_frames * self.spec.hop_length // SHORT_A_TILE

    @property
    def preferred_chunk_frames(self) -> int:
        """As many segments as run together, or a tile."""
        return self.spec.tile_frames * (self.max_batch_size * self._batches if self.spec.segment else 1)

    @property
    def _batches(self) -> int:
        return self.batches_at_once.get(torch.device(self.device).type, 1)

    @property
    def max_frames_per_step(self) -> int:
        """On a GPU as many as its memory takes; what is computed is the same."""
        most = min(self._samples_at_once, LONGEST_TILE * self.sample_rate)
        return max(self.spec.tile_frames, most // self.spec.hop_length)

    @property
    def _samples_at_once(self) -> int:
        """Number of samples, over all signals that run side by side, that a GPU's memory takes; 0 where cache is the limit."""
        device = torch.device(self.device)
        return torch.cuda.get_device_properties(device).total_memory // BYTES_A_SAMPLE if device.type == "cuda" else 0

    def _coder(self) -> SegmentCoder:
        segment = self.spec.segment
        rows = max(self.max_batch_size, self._samples_at_once // segment.length if segment else 0)
        return SegmentCoder(self.spec, self.loaded().network, self.setup, rows, self._batches)

    def _encode_group(self, items: list[Pcm], books: int) -> list[CodecTokens]:
        if len(items) == 1:
            return [self.encode_whole(items[0], books)]
        loaded, coder = self.loaded(), self._coder()
        with inference_guard():
            if self.spec.segment:
                return encode_segments(coder, items, books, loaded.weights)
            setup = self.setup(sum(len(item) for item in items) // self.channels)
            codes = encode_together(self.spec, loaded.network, setup, items, books, offline_tile_frames(self, setup.batch))
        return [
            CodecTokens.from_codes(self.spec, own, num_samples=item.shape[1], weights=loaded.weights)
            for item, own in zip(items, codes, strict=True)
        ]

    def _decode_group(self, items: list[CodecTokens]) -> list[Pcm]:
        if len(items) == 1:
            return [self.decode_whole(items[0])]
        loaded, coder = self.loaded(), self._coder()
        with inference_guard():
            if self.spec.segment:
                return decode_segments(coder, items)
            setup = self.setup(sum(item.streams for item in items))
            return decode_together(self.spec, loaded.network, setup, items, offline_tile_frames(self, setup.batch))

    def _tile(self, asked: int | None) -> int:
        if asked is None:
            return self.spec.tile_frames
        group = self.spec.tile_frames if self.spec.segment else self.spec.block_frames
        if not is_int(asked) or asked < 1 or asked % group:
            raise InvalidInput(f"tile_frames is a positive multiple of {group} for {self.spec.name}, not {asked!r}")
        if asked * self.spec.hop_length > LONGEST_TILE * self.sample_rate:
            raise InvalidInput(f"tile_frames is at most {LONGEST_TILE} s of audio, which {asked} frames are not")
        if self.spec.segment and asked != group:
            raise InvalidInput(f"{self.spec.name} runs in segments of {group} frames, so tile_frames is {group}, not {asked}")
        return asked

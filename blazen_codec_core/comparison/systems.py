"""Systems to compare, by name: a codec, perhaps at a bandwidth, or Opus at a bitrate."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from ..errors import InvalidInput
from ..evaluation import opus
from ..evaluation.evaluate import RATE_SEPARATOR, system_name
from ..evaluation.roundtrip import OpusRoundtrip, codec_roundtrip, warm_up
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..specs import LoadOptions
from ..transcode import ChannelMap
from .aligned_roundtrip import AlignedRoundtrip

OPUS = "opus"


class System(ABC):
    """A codec at one bitrate.

    Attributes:
        name: Name as the user wrote it, such as `encodec_24khz@6`.
    """

    name: str

    @abstractmethod
    def prepare(self) -> None:
        """Do the work that is done once, so that it is not timed with the first recording."""

    @abstractmethod
    def roundtrip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        """Start a roundtrip of a recording with this rate in hertz and this number of channels."""


class CodecSystem(System):
    """A neural codec at one of its bandwidths in kbps; at its default if `None`.

    Raises:
        InvalidInput: The codec has no such bandwidth.
    """

    def __init__(self, codec: DynCodecProvider, name: str, bandwidth: float | None = None) -> None:
        codec.spec.codebooks_for(bandwidth)
        self.codec, self.name, self.bandwidth = codec, name, bandwidth

    def prepare(self) -> None:
        warm_up(self.codec, self.bandwidth)

    def roundtrip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        channel_map = ChannelMap(channels, False, self.codec.channels)
        return AlignedRoundtrip(codec_roundtrip(self.codec, channel_map.count, self.bandwidth), sample_rate, channel_map)


class OpusSystem(System):
    """Opus at a bitrate in kbps for all channels together.

    Raises:
        InvalidInput: Opus has no such bitrate.
    """

    def __init__(self, kbps: float) -> None:
        if not opus.MIN_KBPS <= kbps <= opus.MAX_KBPS:
            raise InvalidInput(f"the bitrate of opus is {kbps:g} kbps; expected {opus.MIN_KBPS:g} to {opus.MAX_KBPS:g}")
        self.name, self._kbps = system_name(OPUS, kbps), kbps

    def prepare(self) -> None:
        opus.check_available()

    def roundtrip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        return AlignedRoundtrip(
            OpusRoundtrip(sample_rate, channels, self._kbps), sample_rate, ChannelMap(channels, False, channels)
        )


Provide = Callable[[str], DynCodecProvider]
"""Function from a name to its codec, always the same one, so that its weights are loaded once."""


def cached_providers(registry: Registry, options: LoadOptions | None = None) -> Provide:
    """Look up the codecs of a registry, loaded with these options, each of them once."""
    return functools.cache(functools.partial(registry.provider, options=options))


def system(name: str, provide: Provide) -> System:
    """Return the system with a name such as `snac_24khz`, `encodec_24khz@6` or `opus@16`; the number is in kbps.

    Raises:
        InvalidInput: The name is malformed, or the codec has no such bandwidth.
        UnknownCodec, AmbiguousCodec: As `Registry.find`.
    """
    codec, separator, number = name.partition(RATE_SEPARATOR)
    try:
        kbps = float(number) if separator else None
    except ValueError:
        raise InvalidInput(f"{name!r} is not a system; expected NAME or NAME@KBPS, such as encodec_24khz@6") from None
    if codec != OPUS:
        return CodecSystem(provide(codec), name, kbps)
    if kbps is None:
        raise InvalidInput("opus needs a bitrate, such as opus@16 for 16 kbps")
    return OpusSystem(kbps)


def systems(names: Iterable[str], provide: Provide) -> list[System]:
    """Return the systems with these names.

    Raises:
        InvalidInput: There are no names, a name is given twice, or as for `system`.
        UnknownCodec, AmbiguousCodec: As `Registry.find`.
    """
    names = list(names)
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{name} is given twice; name each system once")
    if not names:
        raise InvalidInput("no systems given; name a codec to compare")
    return [system(name, provide) for name in names]

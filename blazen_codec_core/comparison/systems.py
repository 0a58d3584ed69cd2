"""Systems to compare, by name: a codec, perhaps at a bandwidth, or Opus at a bitrate."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from ..errors import InvalidInput
from ..evaluation import opus
from ..evaluation.evaluate import AT, system_name
from ..evaluation.roundtrip import OpusRoundtrip, codec_roundtrip, warm_up
from ..plugins.registry import Registry
from ..provider import DynCodecProvider
from ..specs import LoadOptions
from ..transcode import ChannelMap
from .aligned_roundtrip import AlignedRoundtrip

OPUS = "opus"


class System(ABC):
    """Something that audio goes through.

    Attributes:
        name: As it was asked for.
    """

    name: str

    @abstractmethod
    def prepare(self) -> None:
        """Does what would otherwise be done, and timed, with the first recording."""

    @abstractmethod
    def trip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        """For a recording of that rate and so many channels."""


class CodecSystem(System):
    """A codec at one of its bandwidths, in kbps; at its default if `None`."""

    def __init__(self, codec: DynCodecProvider, name: str, bandwidth: float | None = None) -> None:
        codec.spec.codebooks_for(bandwidth)
        self.codec, self.name, self.bandwidth = codec, name, bandwidth

    def prepare(self) -> None:
        warm_up(self.codec, self.bandwidth)

    def trip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        suited = ChannelMap(channels, False, self.codec.channels)
        return AlignedRoundtrip(codec_roundtrip(self.codec, suited.count, self.bandwidth), sample_rate, suited)


class OpusSystem(System):
    """Opus at a bitrate, in kbps for all channels together."""

    def __init__(self, kbps: float) -> None:
        if not opus.LOWEST <= kbps <= opus.HIGHEST:
            raise InvalidInput(f"opus has {opus.LOWEST:g} to {opus.HIGHEST:g} kbps, not {kbps:g}")
        self.name, self._kbps = system_name(OPUS, kbps), kbps

    def prepare(self) -> None:
        opus.check_available()

    def trip(self, sample_rate: int, channels: int) -> AlignedRoundtrip:
        return AlignedRoundtrip(
            OpusRoundtrip(sample_rate, channels, self._kbps), sample_rate, ChannelMap(channels, False, channels)
        )


Provide = Callable[[str], DynCodecProvider]
"""Gives the codec of a name, the same one each time, so that its weights are loaded once."""


def of(registry: Registry, options: LoadOptions | None = None) -> Provide:
    """The codecs of a registry, loaded with those options."""
    return functools.cache(functools.partial(registry.provider, options=options))


def system(asked: str, provide: Provide) -> System:
    """Return the system with a name such as `snac_24khz`, `encodec_24khz@6` or `opus@16`; the number is in kbps.

    Raises:
        InvalidInput: It is no such name, or there is no such bandwidth.
        UnknownCodec, AmbiguousCodec: As `Registry.find`.
    """
    name, at, number = asked.partition(AT)
    try:
        kbps = float(number) if at else None
    except ValueError:
        raise InvalidInput(f"{asked!r}: write NAME or NAME@KBPS, such as encodec_24khz@6") from None
    if name != OPUS:
        return CodecSystem(provide(name), asked, kbps)
    if kbps is None:
        raise InvalidInput("opus needs a bitrate: opus@16 is 16 kbps")
    return OpusSystem(kbps)


def systems(asked: Iterable[str], provide: Provide) -> list[System]:
    """All that are asked for. Raises as `system` does, and `InvalidInput` where there are none, or one is asked for twice."""
    names = list(asked)
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"{name} is asked for twice")
    if not names:
        raise InvalidInput("name a codec to compare")
    return [system(name, provide) for name in names]

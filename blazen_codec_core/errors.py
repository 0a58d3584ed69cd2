"""Every error a user of a codec can meet.

    CodecError
    ├── UnknownCodec            no installed plugin provides that name
    ├── AmbiguousCodec          more than one does
    ├── PluginError             a plugin is broken
    ├── EngineNotAvailable      an optional package is missing
    ├── DeviceUnavailable       the model cannot run on that device
    ├── WeightsUnavailable      the weights cannot be had, or are not the right ones
    ├── InvalidInput            audio or options that make no sense
    │   └── DiskTrouble         the disk takes no file, whatever it is called
    ├── InvalidTokens           tokens that this codec cannot have made
    ├── CorruptFile             a file that is not what it claims to be
    ├── InferenceError          the network failed while running
    └── NotYetImplemented       the codec cannot do this

Each message says what was wrong and what to do about it. Notices are warnings, for `warnings.filterwarnings`: `LicenseNotice`,
`OtherWeightsNotice`, `UnknownSettingsNotice`, `SlowerNotice`.
"""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The first line of what another library's exception says, or its type where it says nothing."""
    details = getattr(error, "errors", None)  # pydantic's, whose first line only counts them
    if callable(details):
        first = details()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CodecError(Exception):
    """The root: catching this catches everything this project raises on purpose."""

    def __str__(self) -> str:
        """The message, in characters that can be printed: names of files and tensors may hold halves of them."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class UnknownCodec(CodecError, LookupError):
    """No installed plugin provides a codec, format or layout of that name."""


class AmbiguousCodec(CodecError, LookupError):
    """Several plugins claim the name."""


class PluginError(CodecError):
    """A plugin could not be loaded, or returned something that is not what its hook promises."""


class EngineNotAvailable(CodecError):
    """A package that is needed for this, and comes with an extra, is not installed."""


class DeviceUnavailable(CodecError):
    """The device does not exist here, or the model does not run on it."""


class WeightsUnavailable(CodecError):
    """The weights were not found, could not be downloaded, or do not fit the model or its checksum."""


class InvalidInput(CodecError, ValueError):
    """Audio, a sample rate or an option that cannot be used."""


class DiskTrouble(InvalidInput):
    """A file that is not written for want of room, or as the disk fails or is read-only: the next one would not be either."""


class InvalidTokens(CodecError, ValueError):
    """Tokens of the wrong shape, number or range."""


class CorruptFile(CodecError):
    """A file that cannot be read as what it claims to be."""


class InferenceError(CodecError, RuntimeError):
    """The network failed while running, for instance for want of memory."""


class NotYetImplemented(CodecError, NotImplementedError):
    """The codec does not offer this."""


class LicenseNotice(UserWarning):
    """Notice about the licence of weights; shown once for each model."""


class SlowerNotice(UserWarning):
    """Notice of what keeps a codec from being as fast as it could be here; shown once."""


class OtherWeightsNotice(UserWarning):
    """Tokens that are decoded with other weights than made them; shown once for each pair."""


class UnknownSettingsNotice(UserWarning):
    """Settings in a config that this release does not know, and has left out of account."""

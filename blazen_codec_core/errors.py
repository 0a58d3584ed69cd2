"""Error classes of the public interface.

    CodecError
    ├── UnknownCodec            no installed plugin provides that name
    ├── AmbiguousCodec          several plugins provide that name
    ├── PluginError             a plugin is broken
    ├── EngineNotAvailable      an optional package is missing
    ├── DeviceUnavailable       the model cannot run on that device
    ├── WeightsUnavailable      the weights cannot be found, downloaded or used
    ├── InvalidInput            invalid audio or options
    │   ├── DiskTrouble         the disk is full, read-only or failing
    │   └── PoolFull            a pool has no room for another stream, or a stream's queue for more
    ├── InvalidTokens           tokens that do not fit the codec
    ├── CorruptFile             a file that is damaged or has another format
    ├── InferenceError          the network failed while running
    ├── NotYetImplemented       the codec does not support this
    └── ServiceError            a server refused a request, or ended it
        └── ConnectionLost      the connection to a server broke before its answer was complete

Each message says what was wrong and what to do about it. Notices are warnings, for `warnings.filterwarnings`: `LicenseNotice`,
`OtherWeightsNotice`, `UnknownSettingsNotice`, `SlowerNotice`, `ManyChannelsNotice`.
"""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """Return the first line of another library's error message, or its type if the message is empty."""
    details = getattr(error, "errors", None)  # pydantic's first line only states the number of errors
    if callable(details):
        first = details()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class CodecError(Exception):
    """Base class of all expected errors."""

    def __str__(self) -> str:
        """Return the message in printable characters; names of files and tensors may contain unpaired surrogates."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class UnknownCodec(CodecError, LookupError):
    """No installed plugin provides a codec, format or layout of that name."""


class AmbiguousCodec(CodecError, LookupError):
    """Several plugins claim the name."""


class PluginError(CodecError):
    """A plugin could not be loaded, or a hook returned an object of the wrong type."""


class EngineNotAvailable(CodecError):
    """A required optional package is not installed."""


class DeviceUnavailable(CodecError):
    """The device does not exist, or the model does not run on it."""


class WeightsUnavailable(CodecError):
    """The weights were not found, could not be downloaded, or do not fit the model or its checksum."""


class InvalidInput(CodecError, ValueError):
    """Audio, a sample rate or an option that cannot be used."""


class DiskTrouble(InvalidInput):
    """A file cannot be written because the disk is full, read-only or failing, which would affect any file."""


class PoolFull(InvalidInput):
    """A pool has as many streams as it may have, or a stream has as much queued as it may have."""


class InvalidTokens(CodecError, ValueError):
    """Tokens of the wrong shape, number or range."""


class CorruptFile(CodecError):
    """A file that is damaged or has another format."""


class InferenceError(CodecError, RuntimeError):
    """The network failed while running, for instance because it ran out of memory."""


class NotYetImplemented(CodecError, NotImplementedError):
    """The codec does not offer this."""


class ServiceError(CodecError):
    """A server refused a request, or ended it.

    Attributes:
        code: Reason as a word that stays the same between releases, such as `busy`; docs/serving.md lists them.
    """

    def __init__(self, message: str, code: str = "internal") -> None:
        super().__init__(message)
        self.code = code


class ConnectionLost(ServiceError):
    """The connection to a server broke before its answer was complete."""

    def __init__(self, message: str, code: str = "connection_lost") -> None:
        super().__init__(message, code)


class LicenseNotice(UserWarning):
    """Notice about the licence of weights; shown once per model."""


class SlowerNotice(UserWarning):
    """Notice about a setup in which a codec runs slower than it could; shown once."""


class ManyChannelsNotice(UserWarning):
    """Notice about an array of more than two channels, which may be a batch; shown once per shape."""


class OtherWeightsNotice(UserWarning):
    """Notice that tokens are decoded with other weights than they were made with; shown once per pair."""


class UnknownSettingsNotice(UserWarning):
    """Notice about settings in a config that this release does not know and ignores."""

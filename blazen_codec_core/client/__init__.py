"""Client of `blazen-codec serve`: streams and whole recordings on another machine. Streams need the extra `client`."""

from .client import Client
from .opening import StreamOpening
from .streams import AsyncStream, Stream

__all__ = ["AsyncStream", "Client", "Stream", "StreamOpening"]

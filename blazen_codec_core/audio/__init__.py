"""Reading, writing and resampling of audio.

Data flows `reader -> sndfile | ffmpeg -> containers`. A container is recognized by its content. The module of a container finds
the audio in the file and what is missing of it; a decoder reads that part.
"""

from __future__ import annotations

from .containers import SUFFIXES, Container, container_of, identify, is_audio
from .reader import AudioReader, Truncated, read
from .resampling import Resampler, resample
from .writer import AudioWriter, check_format, write, writing

__all__ = [
    "SUFFIXES",
    "AudioReader",
    "AudioWriter",
    "Container",
    "Resampler",
    "Truncated",
    "check_format",
    "container_of",
    "identify",
    "is_audio",
    "read",
    "resample",
    "write",
    "writing",
]

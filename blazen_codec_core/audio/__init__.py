"""Audio files in and out, and resampling.

Data flows `reader -> sndfile | ffmpeg -> containers`. A container is told by its content. Its own module finds what there is
in the file, and what is missing; a decoder reads that.
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

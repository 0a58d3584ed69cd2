"""Counts by suffix of files that were skipped because they are not supported audio."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

NO_SUFFIX = "without a suffix"
AUDIO = frozenset((
    ".3gp", ".aac", ".ac3", ".adts", ".ape", ".amr", ".asf", ".avi", ".avr", ".dff", ".dsf", ".dts", ".gsm", ".htk",
    ".ircam", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp2", ".mp4", ".mpa", ".mpc", ".mpga", ".mpeg", ".nist", ".ofr",
    ".paf", ".pvf", ".ra", ".raw", ".sd2", ".sds", ".sf", ".shn", ".snd", ".sph", ".spx", ".tta", ".voc", ".vox", ".wave",
    ".weba", ".webm", ".wma", ".wmv", ".wv", ".wve", ".xi",
))  # fmt: skip
"""Suffixes of audio and video that is reported if it is skipped; other files beside audio are not."""


@dataclass
class PassedOver:
    """Counts of files by suffix.

    Attributes:
        audio: Counts of audio files, recognized by content or suffix.
        others: Counts of all other files.
        extras: Optional dependency that would read files of a suffix.
    """

    audio: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    extras: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *, is_audio: bool = False, extra: str | None = None) -> None:
        """Count a file."""
        suffix = PurePosixPath(name).suffix.lower() or NO_SUFFIX
        if extra is not None:
            self.extras[suffix] = extra
        (self.audio if is_audio or suffix in AUDIO else self.others)[suffix] += 1

    @property
    def counts(self) -> dict[str, int]:
        """Counts of audio files by suffix, the most frequent first."""
        return dict(self.audio.most_common())

    def __str__(self) -> str:
        """Summarize the skipped audio files; empty if there are none."""
        return sentence(self.audio, self.extras)

    @property
    def everything(self) -> str:
        """Summary of all skipped files; empty if there are none."""
        return sentence(self.audio + self.others, self.extras)


def sentence(counts: Counter[str], extras: dict[str, str]) -> str:
    """Format counts as in `15 files were skipped: 12 .m4a (extra av), 3 .sph`; empty if there are none."""
    if not counts:
        return ""
    named = [
        f"{count} {suffix}" + (f" (extra {extras[suffix]})" if suffix in extras else "") for suffix, count in counts.most_common()
    ]
    total = counts.total()
    return f"{total} {'file was' if total == 1 else 'files were'} skipped: {', '.join(named)}"

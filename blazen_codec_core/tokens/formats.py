"""File formats of tokens: the project's container, and the interface for formats of plugins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from typing import ClassVar

from ..errors import InvalidInput
from ..specs import CodecSpec, LoadOptions
from .container import SUFFIX
from .tokens import CodecTokens


class TokenFormat(ABC):
    """A file format of tokens.

    Attributes:
        name: Name in messages.
        suffixes: File suffixes with the dot.
        streams: Number of streams per file; `None` for any number.
        option_names: Options of `read` and `write`, with a line of help each.
    """

    name: str
    suffixes: tuple[str, ...]
    streams: int | None = None
    option_names: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        """Write a file atomically.

        Args:
            loading: Options for loading a model that the format itself needs.

        Raises:
            InvalidTokens: The format cannot hold the tokens.
            InvalidInput: An option is unknown or invalid, or the file cannot be written.
        """

    @abstractmethod
    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        """Read a file; options as for `write`.

        Raises:
            CorruptFile: The file does not have this format.
            InvalidInput: The file does not exist, or an option is unknown or invalid.
        """

    def check(self, spec: CodecSpec, channels: int) -> None:  # noqa: B027 most formats take all
        """Raise `InvalidTokens` if the format cannot hold tokens of this model with `channels` channels."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """Raise `InvalidInput` if an option is unknown."""
        for name in options:
            if name not in self.option_names:
                known = ", ".join(self.option_names) or "none"
                raise InvalidInput(f"{self.name} files have no option {name!r}; options are: {known}")


class Container(TokenFormat):
    """The project's format, for tokens of every codec."""

    name = "container"
    suffixes = (SUFFIX,)

    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        self.check_options(options)
        tokens.save(path)

    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        self.check_options(options)
        return CodecTokens.open(path)

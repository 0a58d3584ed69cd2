"""Kinds of files that hold tokens: the project's own, and what plugins bring."""

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
    """A kind of file that holds tokens.

    Attributes:
        name: What it is called in messages.
        suffixes: Of its files, with the dot.
        streams: How many streams a file can hold; any number if `None`.
        option_names: What `read` and `write` can be told, each with a line that says what it does.
    """

    name: str
    suffixes: tuple[str, ...]
    streams: int | None = None
    option_names: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def write(
        self, tokens: CodecTokens, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str
    ) -> None:
        """Writes the file, whole or not at all.

        Args:
            loading: How a model that the format itself needs is loaded.

        Raises:
            InvalidTokens: The format cannot hold them.
            InvalidInput: An option is unknown or wrong, or the file cannot be written.
        """

    @abstractmethod
    def read(self, path: str | PathLike[str], *, loading: LoadOptions | None = None, **options: str) -> CodecTokens:
        """Reads the file; options as for `write`.

        Raises:
            CorruptFile: It is not one.
            InvalidInput: There is no such file, or an option is unknown or wrong.
        """

    def check(self, spec: CodecSpec, channels: int) -> None:  # noqa: B027 most formats take all
        """Raises `InvalidTokens` if tokens of so many channels of this model could not be written; asked before the work."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """Raises `InvalidInput` unless the format knows all of these."""
        for name in options:
            if name not in self.option_names:
                known = ", ".join(self.option_names) or "none"
                raise InvalidInput(f"{self.name} files have no option {name!r}; there are: {known}")


class Container(TokenFormat):
    """The project's own format, which holds the tokens of every codec."""

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

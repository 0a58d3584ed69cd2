"""Ids as text, the way language models print them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from ...errors import InvalidInput

FOREIGN = -1
"""Stands for text that is no id."""
DIGITS = 9
"""Most digits of a number in text."""


@dataclass(frozen=True)
class IdText:
    """Text form of ids.

    Attributes:
        template: Text with `{}` for a number, such as `<custom_token_{}>`.
        first: Id whose number is 0.
    """

    template: str
    first: int = 0

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1 or self.template.startswith("{}") or self.template.endswith("{}"):
            raise InvalidInput(f"the template is {self.template!r}; expected text around one {{}}")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        before, after = map(re.escape, self.template.split("{}"))
        return re.compile(rf"{before}(\d{{1,{DIGITS}}}){after}", re.ASCII)

    def format(self, id: int) -> str:
        """Return the text of an id of at least `first`."""
        if id < self.first:
            raise InvalidInput(f"id {id} has no text; ids from {self.first} on are written {self.template.format(0)} and so on")
        return self.template.format(id - self.first)

    def parse(self, text: str) -> tuple[list[int], str]:
        """Split text into ids and a rest.

        Returns:
            The ids, with one `FOREIGN` for each stretch of other text that is not blank, and the beginning of an id at the end.
        """
        ids, end = [], 0
        for match in self.pattern.finditer(text):
            ids += [FOREIGN] * bool(text[end : match.start()].strip())
            ids.append(self.first + int(match[1]))
            end = match.end()
        start = self._beginning(text, end)
        ids += [FOREIGN] * bool(text[end:start].strip())
        return ids, text[start:]

    def _beginning(self, text: str, end: int) -> int:
        """Return where text after `end` may be the beginning of an id; the end of the text if nowhere."""
        before, after = self.template.split("{}")
        for start in range(max(end, len(text) - len(before) - DIGITS - len(after)), len(text)):
            rest = text[start:]
            number = rest.removeprefix(before) if rest.startswith(before) else ""
            digits = len(number) - len(number.lstrip("0123456789"))
            if before.startswith(rest) or (
                rest.startswith(before) and digits <= DIGITS and after.startswith(number[digits:]) and (digits or not number)
            ):
                return start
        return len(text)

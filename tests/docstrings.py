"""python tests/docstrings.py: list docstrings whose first line does not stand alone; fails if there are any (`nox -s lint`)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("blazen_codec_core", "plugins", "benchmarks", "training", "examples")
NO_BEGINNING = re.compile(r"(What|How|Which|Whether|Of|By|That|Who|Where|When|Why)\b")
"""Words that begin a clause, where a noun phrase or an imperative belongs."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def wrong(path: Path) -> Iterator[str]:
    """Yield the place and the first line of each such docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text and NO_BEGINNING.match(text):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: begins with no noun or verb: {text.splitlines()[0]}"


found = [line for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) for line in wrong(path)]
print(*found, sep="\n")
sys.exit(bool(found))

"""python tests/language.py: list forbidden docstrings and names, and fail if there are any (`nox -s lint`)."""

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
KERNELS = ROOT / "blazen_codec_core/nn/kernels"
VAGUE = re.compile(r"(own|made|each|place|there|at|apart|together|whole|kept)(_\w+)?|own_\w+")
"""Names that do not say which quantity they are; kernels have none of them."""


def wrong(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the description of each violation in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text and NO_BEGINNING.match(text):
            yield getattr(node, "lineno", 1), f"begins with no noun or verb: {text.splitlines()[0]}"
        if KERNELS in path.parents:
            name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else ""
            if VAGUE.fullmatch(name) and not isinstance(getattr(node, "ctx", None), ast.Load):
                yield node.lineno, f"{name} does not say which quantity it is"


paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
found = [f"{path.relative_to(ROOT)}:{line}: {text}" for path in paths for line, text in wrong(path)]
print(*found, sep="\n")
sys.exit(bool(found))

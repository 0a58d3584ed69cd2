"""python docs/public_names.py: list public names that have no docstring or no place in the reference, and fail if there are any.

Public are the names in `__all__` of the packages below. Sources are parsed, so nothing is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = "blazen_codec_core"
PACKAGES = (CORE, *(f"{CORE}.{name}" for name in ("audio", "client", "conformance", "data", "nn", "pools", "tokens.layouts")))
TOGETHER = {f"{CORE}.errors"}
"""Modules that the reference shows as a whole."""


@cache
def tree(module: str) -> ast.Module:
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))


def exported(module: str) -> Iterator[str]:
    """Yield the names in `__all__`."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            yield from ast.literal_eval(node.value)


def home(module: str, name: str) -> tuple[str, str]:
    """Return the module and the name that a name of a module is defined with, following imports within core."""
    package = module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base = package.split(".")[: len(package.split(".")) + 1 - node.level]
                    return home(".".join([*base, *filter(None, [node.module])]), alias.name)
    return module, name


def docstring(module: str, name: str) -> str | None:
    """Return the docstring of a name in its module; that of a generic class for its alias with arguments."""
    body = tree(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return ast.get_docstring(node)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(getattr(target, "id", "") == name for target in targets):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return str(after.value.value)
            generic = getattr(node.value, "value", None) if isinstance(node, ast.Assign) else None
            return docstring(module, generic.id) if isinstance(generic, ast.Name) else None
    return None


def shown() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of what the reference shows; an empty name for a whole module."""
    for path in (ROOT / "docs" / "reference").glob("*.md"):
        for name in re.findall(r"(?m)^::: ([\w.]+)", path.read_text("utf-8")):
            yield (name, "") if name in TOGETHER else home(*name.rsplit(".", 1))


def problems() -> Iterator[str]:
    """Yield each public name with a problem, in words."""
    there = set(shown())
    for package in PACKAGES:
        for name in exported(package):
            module, defined = home(package, name)
            if not docstring(module, defined):
                yield f"{package}.{name} has no docstring ({module})"
            if not there & {(module, defined), (module, "")}:
                yield f"{package}.{name} is not in docs/reference"


if __name__ == "__main__":
    found = list(problems())
    print(*found, sep="\n")
    sys.exit(bool(found))

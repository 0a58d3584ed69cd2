"""Differences between systems that one of them can test: encodings, files in use, drives, and consoles."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from blazen_codec_core import files
from blazen_codec_core.dataset import runner, shards
from blazen_codec_core.dataset.executors import processes
from blazen_codec_core.dataset.run_state import open_run
from blazen_codec_core.errors import InvalidInput

SHIPPED = ("blazen_codec_core", "plugins", "training")
POSIX_ONLY = {"fcntl", "grp", "posix", "pwd", "resource", "termios", "tty"}


def mode(call: ast.Call) -> str:
    """The mode that a call of `open` names, as a function or as a method of a path; nothing if it does not name one."""
    given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[isinstance(call.func, ast.Name) :][:1]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else ""


def depends_on_the_system(tree: ast.AST) -> Iterator[int]:
    """Lines that read or write text in the encoding of the system, or import what only POSIX has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if POSIX_ONLY & {name.split(".")[0] for name in names}:
                yield node.lineno
        if not isinstance(node, ast.Call):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = {word.arg for word in node.keywords}
        is_text = {
            "read_text": not node.args,
            "write_text": len(node.args) < 2,
            "open": bool(re.fullmatch("[rwax]t?[+]?", mode(node))) or (not is_method and not mode(node)),
            "run": "text" in words,
            "Popen": "text" in words,
        }
        if is_text.get(called) and not words & {"encoding", "errors"}:
            yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "Path('a').read_text()",
        "Path('a').write_text('b')",
        "open('a')",
        "open('a', 'w')",
        "Path('a').open('w')",
        "subprocess.run(['a'], text=True)",
        "import fcntl",
        "from resource import getrusage",
    ],
)
def test_the_check_finds(code):
    assert list(depends_on_the_system(ast.parse(code))) == [1]


def test_shipped_code_names_encodings_and_imports_no_posix(root):
    paths = [path for folder in SHIPPED for path in (root / folder).rglob("*.py")]
    found = [f"{path}:{line}" for path in paths for line in depends_on_the_system(ast.parse(path.read_text("utf-8")))]
    assert [line for line in found if "installation.py" not in line] == []  # there it is of a distribution's metadata
    assert len(paths) > 300


@pytest.fixture
def busy(monkeypatch):
    """Replacing a file fails as on Windows while another process reads it, the given number of times."""

    def fail(times: int) -> list[int]:
        replace, left = os.replace, [times]

        def sometimes(source, target):
            if left[0]:
                left[0] -= 1
                raise PermissionError(13, "Access is denied")
            replace(source, target)

        monkeypatch.setattr(os, "replace", sometimes)
        return left

    return fail


def test_a_file_that_another_process_reads_is_replaced_later(busy, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "REPLACE_WITHIN", 5.0)
    left = busy(3)
    with files.replacing(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"new")
    assert (left, (tmp_path / "a.txt").read_bytes()) == ([0], b"new")


def test_a_file_that_stays_in_use_is_an_error_and_leaves_nothing(busy, monkeypatch, tmp_path):
    monkeypatch.setattr(files, "REPLACE_WITHIN", 0.05)
    busy(1000)
    with pytest.raises(InvalidInput, match="Access is denied"), files.replacing(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_windows_waits_for_no_more_processes_than_it_can(monkeypatch):
    asked = []

    def pool(count, *_args, **_options):
        asked.append(count)
        raise RuntimeError("enough")

    monkeypatch.setattr(processes, "ProcessPoolExecutor", pool)
    for name in ("nt", "posix"):
        monkeypatch.setattr(processes.os, "name", name)
        with pytest.raises(RuntimeError, match="enough"):
            next(processes.run(None, range(100), ["cpu"] * 100, 1))
        monkeypatch.undo()
        monkeypatch.setattr(processes, "ProcessPoolExecutor", pool)
    assert asked == [61, 100]


def test_folders_that_are_on_two_drives_are_apart(monkeypatch, tmp_path):
    (tmp_path / "in" / "out").mkdir(parents=True)
    monkeypatch.setattr(os.path, "commonpath", lambda paths: pytest.fail("it raises ValueError for paths on two drives"))
    tar = next(name for name, kind in shards.FORMATS.items() if kind.suffix == ".tar")
    runner._check_apart(tmp_path / "in" / "out", tmp_path / "in", tar)
    runner._check_apart(tmp_path / "in", tmp_path / "in of others", tar)
    with pytest.raises(InvalidInput, match="is inside"):
        runner._check_apart(tmp_path / "in", tmp_path / "in" / "out", tar)


def test_names_that_the_console_cannot_show_do_not_end_a_command(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(2400, np.float32), 24_000)
    command = "from blazen_codec_core.cli.main import main; main()"
    words = ["roundtrip", str(tmp_path / "a.wav"), "-c", "snac_tiny", "-o", str(tmp_path / "écoute→.wav")]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", command, *words], capture_output=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert b"\xe9coute\\u2192.wav" in run.stdout


def test_a_run_that_never_started_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path / "new") as state:
        len(list(state.folder.iterdir())) / 0
    assert list(tmp_path.iterdir()) == []

"""Build and try the image of `deploy/Dockerfile`; where Docker does not run, its steps run in a fresh virtual environment.

python tests/helpers/image.py FOLDER    # an empty folder, for the environment and the files
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
PORT = 8000
PATIENCE = 120
"""Seconds until a server must be ready."""
ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
"""Exit codes of a server that was told to end; the last of a shell or a container."""


def instructions(text: str) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with their arguments."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def copied(source: Path, target: Path) -> None:
    """Copy what the image's context has: what `.dockerignore` names after `!`."""
    ignored = DOCKERFILE.with_name(f"{DOCKERFILE.name}.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for name in (line[1:] for line in ignored if line.startswith("!")):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source / name, target / name)


def run_steps(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Run the steps of the Dockerfile below a folder; return the command of the image, and its environment."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    environment, where, command = {**os.environ, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}, folder, None
    for name, rest in instructions(DOCKERFILE.read_text()):
        print(f"{name} {rest}", flush=True)
        match name:
            case "ARG" | "ENV":
                key, _, value = rest.partition("=")
                if name == "ENV" or key not in os.environ:
                    environment[key] = value.strip('"')
                if not environment[key]:
                    del environment[key]
            case "WORKDIR":
                where = folder / rest.lstrip("/")
                where.mkdir(parents=True)
            case "COPY":
                assert rest == ". ."
                copied(ROOT, where)
            case "RUN":
                subprocess.run(["sh", "-euc", rest], cwd=where, env=environment, check=True)
            case "CMD":
                command = json.loads(rest)
            case "FROM" | "USER" | "EXPOSE":
                pass
            case _:
                raise AssertionError(f"{name} is not known here")
    assert command is not None
    return command, environment


@contextlib.contextmanager
def started(folder: Path) -> Iterator[None]:
    """The image's server, in a container or from its steps."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        subprocess.run(["docker", "build", "-f", str(DOCKERFILE), "-t", "blazen-codec", str(ROOT)], check=True)
        command, environment = ["docker", "run", "--rm", "-p", f"{PORT}:{PORT}", "blazen-codec"], dict(os.environ)
    else:
        print("Docker does not run here: its steps run in a virtual environment", flush=True)
        command, environment = run_steps(folder)
    print(shlex.join(command), flush=True)
    process = subprocess.Popen(command, env=environment, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(PATIENCE) in ENDED, "the server did not end well"


def until_ready() -> None:
    """Wait until the server takes streams."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PORT}/ready") as answer:
            assert answer.status == 200
            return
        assert time.monotonic() - began < PATIENCE, "the server was never ready"
        time.sleep(0.1)


def main() -> None:
    """Start the image, and send a recording there and back."""
    folder = Path(sys.argv[1])
    with started(folder):
        until_ready()
        recording = (ROOT / "examples/speech.flac").read_bytes()
        encode = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/encode?codec=snac_tiny", recording)
        with urllib.request.urlopen(encode) as answer:
            tokens = answer.read()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/decode?format=flac", tokens)) as answer:
            audio = answer.read()
    assert audio.startswith(b"fLaC")
    print(f"{len(recording)} bytes of audio, {len(tokens)} bytes of tokens, {len(audio)} bytes of audio")


if __name__ == "__main__":
    main()

"""python tests/stress/kills.py FOLDER COUNT: `blazen-codec encode -o`, killed at random times and at every step of writing.

Each run is a fork of this process, in which everything is imported already. Prints JSON: what was there after each kill.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import blazen_codec_core as bc
import blazen_codec_snac.backend
from blazen_codec_core import files
from blazen_codec_core.cli import encode  # noqa: F401 imported here, so that no run has to
from blazen_codec_core.cli.main import main
from blazen_codec_core.conformance.signals import voice

FOLDER, COUNT = Path(sys.argv[1]), int(sys.argv[2])
SOURCE, OUT = FOLDER / "in.wav", FOLDER / "out.tokens"
STEPS = ("open", "write_bytes", "fsync", "replace")
ROUNDS = 3
"""Of dying before and after each step, so that what is found does not hang on when the others die."""
assert blazen_codec_snac.backend


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def rigged(step: str, after: bool) -> None:
    """Makes this process die right before or right after one step of writing a file."""
    places = {"open": os, "write_bytes": files.Path, "fsync": os, "replace": os}
    real = getattr(places[step], step)

    def deadly(*arguments: object, **options: object) -> object:
        if not after:
            die()
        made = real(*arguments, **options)
        die()
        return made

    setattr(places[step], step, deadly)


def run(seconds: float | None, rig: tuple[str, bool] | None = None) -> float:
    """One run of the command, killed after so many seconds; how long it took."""
    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
            if rig:
                rigged(*rig)
            with contextlib.suppress(SystemExit):
                main(["encode", str(SOURCE), "-c", "snac_tiny", "-fo", str(OUT), "--device", "cpu", "--quiet"])
        os._exit(0)
    started = time.perf_counter()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.perf_counter() - started


def found(old: bytes | None, new: bc.CodecTokens) -> str:
    """What is there after a kill."""
    if not OUT.exists():
        return "none" if old is None else "LOST"
    if OUT.read_bytes() == old:
        return "old"
    try:
        return "new" if bc.CodecTokens.open(OUT) == new else "BROKEN"
    except bc.CodecError:
        return "BROKEN"


bc.write_audio(SOURCE, voice(2.0, 24_000), 24_000)
whole = sorted(run(None) for _ in range(5))[2]
new = bc.CodecTokens.open(OUT)
old_tokens = bc.CodecTokens.from_codes(bc.Registry().find("snac_tiny").spec, [np.zeros(4 // s, int) for s in (4, 2, 1, 1)])
draw = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else None)
results: Counter[str] = Counter()
rigs = [(step, after) for step in STEPS for after in (False, True)] * ROUNDS
plans: list[tuple[float | None, tuple[str, bool] | None]] = [(None, rig) for rig in rigs]
for number in range(COUNT):
    plans.append((draw.uniform(0, 1.2 * whole) if number % 2 else draw.uniform(0.7, 1.1) * whole, None))
for number, (seconds, rig) in enumerate(plans):
    OUT.unlink(missing_ok=True)
    old = None
    if number % 3:
        old_tokens.save(OUT)
        old = OUT.read_bytes()
    run(seconds, rig)
    results[found(old, new)] += 1
left = [path.name for path in FOLDER.iterdir() if path not in (SOURCE, OUT)]
print(json.dumps({"kills": len(plans), "seconds_of_a_run": round(whole, 3), "found": results, "temporary_files_left": len(left)}))

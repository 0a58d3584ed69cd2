"""python tests/helpers/isolated_finetune.py NAME: a short run of the trainer, from the command to the report.

Run by `nox -s finetune` and `nox -s build` in an environment that holds nothing for tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import blazen_codec_core as bc
from blazen_codec_core import audio
from blazen_codec_core.conformance.signals import voice

name = sys.argv[1]
with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    (folder / "recordings").mkdir()
    for number in range(3):
        audio.write(folder / "recordings" / f"{number}.wav", voice(0.6, 24_000, number)[None], 24_000)
    program = [Path(sys.executable).with_name("blazen-codec"), "finetune", name, "--data", folder / "recordings"]
    options = ["-o", folder / "run", "--steps", 2, "--batch", 2, "--seconds", 0.3, "--device", "cpu"]
    subprocess.run(list(map(str, [*program, *options])), check=True)
    pcm = voice(0.5, 24_000)
    codec = bc.load(name, weights=str(folder / "run"))
    assert codec.decode(codec.encode(pcm, 24_000)).shape == (1, len(pcm))
    print((folder / "run" / "report.md").read_text())

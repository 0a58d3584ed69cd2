from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.corpora import corpus


@pytest.fixture(scope="session")
def recordings(tmp_path_factory) -> Path:
    """Twelve, two of them broken."""
    return corpus(tmp_path_factory.mktemp("recordings"), 12, broken=2)


@pytest.fixture
def memory_of_tokenizing(tmp_path):
    """The most memory, in MiB, that a process takes that tokenises a source by itself."""

    def measured(source: Path) -> float:
        script = (
            "import resource, sys, blazen_codec_core as bc;"
            "bc.tokenize_dataset(sys.argv[1], 'snac_tiny', sys.argv[2], executor=bc.Executor(workers=1), shard_minutes=1);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        command = [sys.executable, "-c", script, str(source), str(tmp_path / f"of {source.name}")]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return measured

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # for `signals` and `sites`
os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the Hub, and none may wait for it

settings.register_profile(
    "default",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # a change is judged by what it changes; elsewhere, new cases are tried every time
)
settings.load_profile("default")

ALIKE = {"dac_24khz", "dac_44khz_16kbps", "snac_44khz"}
"""Models that differ from another one in numbers only: tests of these are among the slow ones."""

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if ALIKE & set(map(str, parameters)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def codecs():
    """Codecs with random weights, loaded once for the whole run: `codecs("snac_24khz")`."""
    import blazen_codec_core as bc

    made: dict[tuple, bc.DynCodecProvider] = {}

    def get(name: str, **options):
        key = (name, *sorted(options.items()))
        if key not in made:
            made[key] = bc.load(name, **{"weights": "random:0", "device": "cpu", **options})
        return made[key]

    return get


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; gives its exit code, standard output and standard error."""
    from blazen_codec_core.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call

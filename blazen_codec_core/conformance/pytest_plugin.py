"""pytest plugin. Every pytest loads it if core is installed, so it does nothing without `--codec`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ASKED = {False: "test_codec.py", True: "test_continuous_codec.py"}
"""File of the contracts, by whether a codec is continuous."""
SUBJECTS = pytest.StashKey[Sequence[Any]]()
WITH_CHECKS = (
    "contracts",
    "exactness",
    "invalid_input",
    "latents",
    "lifecycle",
    "spec_claims",
    "test_codec",
    "test_continuous_codec",
)
pytest.register_assert_rewrite(*(f"blazen_codec_core.conformance.{name}" for name in WITH_CHECKS))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("blazen-codec", "conformance of neural audio codecs")
    group.addoption("--codec", action="append", default=[], metavar="NAME", help="run all contracts on this installed codec")
    group.addoption(
        "--codec-weights",
        metavar="WHERE",
        help="a file, a folder, a Hub id or random:SEED (default: shipped, else random:0)",
    )
    group.addoption("--codec-device", default="cpu", metavar="DEVICE", help="device of the codec (default: cpu)")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    names = config.getoption("--codec")
    if not names:
        return
    from ..installation import missing

    for package in ("hypothesis", "psutil"):
        if importlib.util.find_spec(package) is None:
            raise pytest.UsageError(str(missing(f"--codec needs {package}", "conformance")))
    from ..errors import CodecError
    from .reporter import ContractReporter
    from .subject import Subject

    subjects = [Subject(name, config.getoption("--codec-weights"), config.getoption("--codec-device")) for name in names]
    try:
        kinds = dict.fromkeys(subject.spec.is_continuous for subject in subjects)
    except CodecError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[SUBJECTS] = subjects
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = []
    config.args.extend(str(Path(__file__).with_name(ASKED[kind])) for kind in kinds)
    if config.get_verbosity() <= 0 and (standard := config.pluginmanager.get_plugin("terminalreporter")):
        config.pluginmanager.unregister(standard)
        config.pluginmanager.register(ContractReporter(config), "terminalreporter")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Set a contract's title in the report to the first line of its docstring."""
    if isinstance(item, pytest.Function) and item.cls and item.config.getoption("--codec"):
        from .contracts import OnSubjects

        if issubclass(item.cls, OnSubjects):
            title: Any = (item.function.__doc__ or item.name).strip().splitlines()[0].rstrip(".")
            item.user_properties += [("codec", str(item.callspec.params["subject"])), ("contract", title)]

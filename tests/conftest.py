from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.memory_watch import LIMIT, MemoryRelease, MemoryWatch, release_memory

os.environ["HF_HUB_OFFLINE"] = "1"  # no test needs the Hub, and none may wait for it
os.environ.update(RAY_worker_niceness="0")  # of 15: beside other tests, Ray's workers would get a twentieth of a core
os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "32"  # of 1024: every shape of a thousand tests would take a gigabyte in the end
sys.dont_write_bytecode = False  # as some containers ask for
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of hundreds of commands would compile PyTorch's modules: 3 s more
for name, value in {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():  # read when torch is imported, which is later
    os.environ.setdefault(name, value)  # threads that wait leave the core to whatever else runs on this machine
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, each with a core of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "default",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # a change is judged by what it changes; elsewhere, new cases are tried every time
)
settings.load_profile("default")

ALIKE = {"dac_16khz", "dac_24khz", "dac_44khz", "dac_44khz_16kbps", "encodec_32khz", "snac_32khz", "snac_44khz"}
"""Models that differ from another one in numbers only: tests of these are among the slow ones."""

LARGE = (
    "tests/core/test_pools.py",
    "tests/dataset/test_limits.py",
    "tests/encodec/test_formats.py",
    "tests/integration/",
    "tests/stress/",
)
"""Tests which beside each other would take too much memory."""

LOADED = 31_000_000
"""Parameters of the codecs that stay loaded for the next test; once prepared, each takes 12 bytes and more."""

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--memory-limit", type=int, default=LIMIT, metavar="BYTES", help="a run with a higher peak fails")
    parser.addoption(
        "--kills", type=int, default=8, metavar="COUNT", help="how often runs of `tokenize` are killed, and interrupted"
    )
    parser.addoption("--serve-soak", type=float, default=20, metavar="SECONDS", help="how long clients of a server go on")
    parser.addoption("--soak", type=float, default=600, metavar="SECONDS", help="how long threads, forks and interrupts go on")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(MemoryRelease(), "memory release")
    if not is_worker(config):
        config.pluginmanager.register(MemoryWatch(config.getoption("--memory-limit")), "memory watch")


def is_worker(config: pytest.Config) -> bool:
    """Whether pytest-xdist started this process to run a share of the tests."""
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels, the first time, in another process: LLVM keeps the memory that compiling took."""
    if not session.config.option.collectonly and not is_worker(session.config):
        load = "from blazen_codec_core.nn.kernels.backends import load_cpu_backend; load_cpu_backend()"
        subprocess.run([sys.executable, "-c", load], cwd=session.config.rootpath, check=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give a process whole files, whose tests share codecs; one process gets all large tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "large" if file.startswith(LARGE) else file

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if ALIKE & set(map(str, parameters)) and "narrow_networks" not in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Forget where errors that are parameters were raised: their tracebacks would keep whole codecs until the session ends."""
    for value in item.callspec.params.values() if hasattr(item, "callspec") else ():
        if isinstance(value, BaseException):
            value.__traceback__ = value.__context__ = value.__cause__ = None


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


def parameters(codec) -> int:
    """Number of parameters of a loaded codec."""
    return sum(parameter.numel() for parameter in codec.backend.loaded().network.parameters())


@pytest.fixture(scope="module")
def codecs():
    """Codecs with random weights: `codecs("snac_24khz")`. Recently used ones stay loaded; the others load again when used."""
    import blazen_codec_core as bc

    made: OrderedDict[tuple, bc.DynCodecProvider] = OrderedDict()

    def get(name: str, **options):
        key = (name, *sorted(options.items()))
        if key not in made:
            made[key] = bc.load(name, **{"weights": "random:0", "device": "cpu", **options})
        made.move_to_end(key)
        loaded = [codec for codec in made.values() if codec.is_loaded]
        while len(loaded) > 1 and sum(map(parameters, loaded)) > LOADED:
            loaded.pop(0).unload()
        return made[key]

    yield get
    for codec in made.values():
        codec.unload()
    made.clear()
    release_memory()


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

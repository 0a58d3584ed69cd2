"""nox -s tests lint types alone; `nox -l` lists all."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "alone", "new_plugin", "mimi"]
nox.options.error_on_missing_interpreters = True
CONSTRAINTS = ("-c", "constraints.txt")
PROJECT = ".[fast,plot,test]"
PLUGINS = ("-e", "plugins/dac[test]", "-e", "plugins/encodec[upstream]", "-e", "plugins/snac[upstream]")
WITHOUT_WHAT_THEY_ASK_FOR = ("descript-audio-codec", "descript-audiotools")
"""The authors' packages of DAC, to test against; they pin a protobuf of 2022."""
ALONE = {
    "dac": ("dac_tiny",),
    "encodec": ("encodec_tiny",),
    "snac": ("snac_tiny",),
}
BESIDE = {"dac": ("protobuf>=5",)}
"""What a plugin must get along with."""


def install(session: nox.Session, *packages: str, groups: tuple[str, ...] = ()) -> None:
    """Installs with the tested versions, and the dependency groups of `pyproject.toml`."""
    pins = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups) if groups else ()
    session.install(*CONSTRAINTS, *packages, *pins)


def install_for_tests(session: nox.Session, project: str = PROJECT, groups: tuple[str, ...] = ()) -> None:
    install(session, "-e", project, *PLUGINS, groups=groups)
    session.install(*CONSTRAINTS, "--no-deps", *WITHOUT_WHAT_THEY_ASK_FOR)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, but for what is slow."""
    install_for_tests(session)
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The rest of it, with a cluster and what else reads datasets."""
    install_for_tests(session, ".[fast,plot,ray,test]", groups=("readers",))
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The pages of `compare` and `serve` in Chromium, which has to be there: `apt-get install chromium`, or CHROMIUM=its path."""
    install_for_tests(session, groups=("browser",))
    session.run("pytest", "-m", "browser", "tests/browser", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The kernels for GPUs, through Triton's interpreter."""
    install_for_tests(session, groups=("gpu",))
    session.run("pytest", "-m", "gpu", "tests/gpu", *session.posargs, env={"TRITON_INTERPRET": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, both ways."""
    install(session, groups=("lint",))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict on core and the plugins."""
    install(session, "-e", PROJECT, *PLUGINS, groups=("types",))
    session.run("mypy")


@nox.session
@nox.parametrize("plugin", list(ALONE), ids=list(ALONE))
def alone(session: nox.Session, plugin: str) -> None:
    """One plugin installed alone, as its users install it: what it brings, and that it works."""
    install(session, ".", f"plugins/{plugin}", *BESIDE.get(plugin, ()))
    session.run("python", "-m", "pip", "check")
    session.run("python", "tests/alone.py", *ALONE[plugin])


@nox.session
def new_plugin(session: nox.Session) -> None:
    """What `blazen-codec new-plugin` writes, installed as its author would, against its own tests and the contracts."""
    folder = Path(session.create_tmp())
    shutil.rmtree(folder / "acme-codec", ignore_errors=True)
    install(session, ".")
    session.run("blazen-codec", "new-plugin", "acme", "-o", str(folder))
    install(session, ".", f"{folder / 'acme-codec'}[test]")
    session.run("python", "-m", "pip", "check")
    session.chdir(folder / "acme-codec")
    session.run("pytest")
    session.run("pytest", "--codec", "acme_16khz")


@nox.session
def mimi(session: nox.Session) -> None:
    """The third-party codec in `examples/mimi`, installed alone, against its own tests and the contracts."""
    install(session, ".", "examples/mimi[test]")
    session.run("python", "-m", "pip", "check")
    session.chdir("examples/mimi")
    session.run("pytest")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Ours against every peer: `nox -s benchmarks -- -o FOLDER`, which takes an hour or two on two cores."""
    install_for_tests(session, groups=("benchmarks",))
    session.run("python", "-m", "benchmarks", "all", *session.posargs)

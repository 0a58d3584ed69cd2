"""nox -s tests lint types alone; `nox -l` lists all."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests", "alone"]
nox.options.error_on_missing_interpreters = True
CONSTRAINTS = ("-c", "constraints.txt")
PROJECT = ("-e", ".[plot,test]", "-e", "plugins/encodec[upstream]", "-e", "plugins/snac[upstream]")


def install(session: nox.Session, *packages: str, groups: tuple[str, ...] = ()) -> None:
    """Installs with the tested versions, and the dependency groups of `pyproject.toml`."""
    pins = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups) if groups else ()
    session.install(*CONSTRAINTS, *packages, *pins)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite."""
    install(session, *PROJECT)
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, both ways."""
    install(session, groups=("lint",))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict on core and the plugins."""
    install(session, *PROJECT, groups=("types",))
    session.run("mypy")


@nox.session
@nox.parametrize("plugin,model", [("snac", ("snac_tiny",)), ("encodec", ("encodec_24khz", "random:0"))], ids=["snac", "encodec"])
def alone(session: nox.Session, plugin: str, model: tuple[str, ...]) -> None:
    """One plugin installed alone, as its users install it: what it brings, and that it works."""
    install(session, ".", f"plugins/{plugin}")
    session.run("python", "tests/alone.py", *model)

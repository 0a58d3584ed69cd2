"""nox -s tests lint types alone; `nox -l` lists all."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "docs", "tests", "alone", "finetune", "new_plugin", "mimi"]
nox.options.error_on_missing_interpreters = True
nox.options.default_venv_backend = "uv"
CONSTRAINTS = ("-c", "constraints.txt")
MORE_MEMORY = ("--memory-limit=10000000000",)
"""In bytes, for twenty pages in Chromium, for two of the largest networks in each of two processes, and for a cluster."""
WITH_PIP = ("--seed",)
"""With which tests install throw-away distributions."""
IN_TWO = ("-n", "2")
"""Two processes of pytest."""
SAME_EVERYWHERE = ("compile_cache", "exporting", "graphs", "padding", "pipeline", "released")
"""Tests in `tests/core/nn` whose results do not depend on the processor."""
KERNELS = (
    "tests/core/nn",
    "tests/integration/test_tiny.py",
    *(f"--ignore=tests/core/nn/test_{name}.py" for name in SAME_EVERYWHERE),
)
PLATFORMS = {
    "x86_64-unknown-linux-gnu": "with CUDA",
    "aarch64-unknown-linux-gnu": "with CUDA",
    "aarch64-apple-darwin": "for CPUs and Metal",
    "x86_64-pc-windows-msvc": "for CPUs",
}
"""Where PyTorch has builds, and what its build on the index is."""
PYTHONS = ("3.11", "3.14")
PLAIN = {"MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never", "UV_FIND_LINKS": None}
"""As on another machine: none of this one's wheels, and the oldest macOS that PyTorch is built for."""
ALONE = {
    "dac": ("dac_tiny",),
    "encodec": ("encodec_tiny",),
    "mimi": ("mimi_tiny",),
    "qwen3tts": ("qwen3tts_12hz", "random:0"),
    "snac": ("snac_tiny",),
}
PROJECTS = (".", "distributions/blazen-codec", *(f"plugins/{plugin}" for plugin in ALONE), "training")
HELPERS = Path("tests/helpers").resolve()
BESIDE = {"dac": ("protobuf>=5",)}
"""What a plugin must get along with."""


def install(session: nox.Session, *packages: str, groups: tuple[str, ...] = ()) -> None:
    """Installs with the tested versions, and the dependency groups of `pyproject.toml`."""
    pins = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *groups) if groups else ()
    session.install(*CONSTRAINTS, *packages, *pins)


def install_for_tests(session: nox.Session, *more: str, groups: tuple[str, ...] = ()) -> None:
    """Installs what the README's second command does, and more."""
    install(session, "-r", "tests/requirements.txt", *more, groups=groups)
    session.install("--no-deps", "-r", "tests/without-dependencies.txt")


@nox.session(venv_params=WITH_PIP)
def tests(session: nox.Session) -> None:
    """The suite, but for what is slow."""
    install_for_tests(session)
    session.run("pytest", *IN_TWO, *session.posargs)


@nox.session(venv_params=WITH_PIP)
def slow(session: nox.Session) -> None:
    """The rest of it, with a cluster and what else reads datasets."""
    install_for_tests(session, "-e", ".[ray]", groups=("readers",))
    session.run("pytest", "-m", "slow", *IN_TWO, *MORE_MEMORY, *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The pages of `compare` and `serve` in Chromium, which has to be there: `apt-get install chromium`, or CHROMIUM=its path."""
    install_for_tests(session, groups=("browser",))
    session.run("pytest", "-m", "browser", "tests/browser", *MORE_MEMORY, *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The kernels for GPUs, through Triton's interpreter, which runs one kernel at a time in a process."""
    install_for_tests(session, groups=("gpu",))
    environment = {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    session.run("pytest", *IN_TWO, "-m", "gpu", "tests/gpu", *session.posargs, env=environment)


@nox.session
def onnx(session: nox.Session) -> None:
    """Exported graphs under ONNX Runtime, folders of them behind the trait, and the example in C++ where its headers are.

    They come by `apt-get install libonnxruntime-dev nlohmann-json3-dev` on Debian 13, or lie in CPLUS_INCLUDE_PATH.
    """
    install_for_tests(session, "-e", ".[export]")
    session.run("pytest", "-m", "onnx", *IN_TWO, "tests/onnx", *MORE_MEMORY, *session.posargs)


@nox.session
def onnx_browser(session: nox.Session) -> None:
    """An exported model in Chromium and Node.js, under onnxruntime-web, which npm fetches; skipped without its registry."""
    install_for_tests(session, "-e", ".[export]", groups=("browser",))
    session.run("pytest", "-m", "browser", "tests/browser/onnx", *session.posargs)


@nox.session
def processors(session: nox.Session) -> None:
    """The kernels' tests as on processors with other vectors than this one's, and without numba."""
    install_for_tests(session)
    for capability in ("avx2", "default"):
        session.run("pytest", *IN_TWO, *KERNELS, *session.posargs, env={"ATEN_CPU_CAPABILITY": capability})
    session.run("uv", "pip", "uninstall", "numba", "llvmlite")
    session.run("pytest", *IN_TWO, *KERNELS, *session.posargs)


@nox.session(venv_params=WITH_PIP)
def bounds(session: nox.Session) -> None:
    """The kernels' tests and known tokens with checks of every index; `test_cpu_bounds.py` checks addresses."""
    install_for_tests(session)
    session.run(
        "pytest", *IN_TWO, *KERNELS, "tests/integration/test_known_tokens.py", *session.posargs, env={"NUMBA_BOUNDSCHECK": "1"}
    )


@nox.session
def resolve(session: nox.Session) -> None:
    """What the README's commands install can be had together from the plain index, on every platform. Nothing is installed.

    `nox -s resolve -- --torch-backend cpu` asks for PyTorch's builds for CPUs on Linux as well, which are on an index of its own.
    """
    blocks = re.findall(r"### Install and .*?```sh\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    installs = [shlex.split(line) for block in blocks for line in re.findall(r"pip install (.*?)(?: &&|$)", block)]
    wanted = [arguments for arguments in installs if "--no-deps" not in arguments]
    assert len(wanted) == 2, "the README's two commands are not found"
    file = Path(session.create_tmp()).resolve() / "requirements.txt"
    for arguments in wanted:
        file.write_text("\n".join(as_lines(arguments)))
        for platform, build in PLATFORMS.items():
            for python in PYTHONS:
                session.log(f"{shlex.join(arguments)}: {platform} ({build}), Python {python}")
                target = ("--python-platform", platform, "--python-version", python)
                command = ("uv", "--no-config", "pip", "compile", "--quiet", *target, *session.posargs, str(file))
                session.run(*command, silent=True, env=PLAIN)


def as_lines(arguments: list[str]) -> list[str]:
    """Arguments of `pip install` as a file of requirements has them, wherever it is: an option and its value in one line."""
    lines, left = [], iter(arguments)
    for argument in left:
        lines.append(f"{argument} {Path(next(left)).resolve()}" if argument in {"-c", "-r"} else argument)
    return lines


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, both ways, the language of docstrings and names, versions of distributions, and the layers: what may import what."""
    install(session, groups=("lint",))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tests/language.py")
    session.run("python", "distributions/versions.py")
    roots = [Path(), Path("training"), *(Path("plugins", plugin) for plugin in ALONE)]
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": os.pathsep.join(str(root.resolve()) for root in roots)})


@nox.session
def docs(session: nox.Session) -> None:
    """The site in `build/site`. A broken link fails, and so does a public name that is not documented or not in the reference."""
    install(session, groups=("docs",))
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def types(session: nox.Session) -> None:
    """Run mypy --strict on core, the plugins and the trainer."""
    install_for_tests(session, groups=("types",))
    session.run("mypy")


@nox.session
@nox.parametrize("plugin", list(ALONE), ids=list(ALONE))
def alone(session: nox.Session, plugin: str) -> None:
    """One plugin installed alone, as its users install it: what it brings, and that it works."""
    install(session, ".", f"plugins/{plugin}", *BESIDE.get(plugin, ()))
    session.run("uv", "pip", "check")
    session.run("python", "tests/helpers/isolated_install.py", *ALONE[plugin])


@nox.session
def finetune(session: nox.Session) -> None:
    """The trainer installed with one plugin, as its users install it: a short run of `blazen-codec finetune`, with its report."""
    install(session, ".", "plugins/encodec", "./training")
    session.run("uv", "pip", "check")
    session.run("python", "tests/helpers/isolated_finetune.py", "encodec_tiny")


@nox.session(name="build")
def build_distributions(session: nox.Session) -> None:
    """Wheels and sdists of every distribution in `dist/`, checked, and installed from the wheels alone; see RELEASING."""
    install(session, groups=("release",))
    folder, scratch = Path("dist").resolve(), Path(session.create_tmp()).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    for project in PROJECTS:
        session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(folder), project)
    again = scratch / "again"
    shutil.rmtree(again, ignore_errors=True)
    for project in PROJECTS:  # the wheel from the tree rather than from the sdist
        session.run("python", "-m", "build", "--installer", "uv", "--sdist", "--wheel", "--outdir", str(again), project)
    session.run("python", "distributions/archives.py", str(folder), str(again))
    session.run("twine", "check", "--strict", *map(str, sorted(folder.iterdir())))
    plugins = {plugin: (plugin,) for plugin in ALONE}
    for extra, brought in (plugins | {"all": tuple(ALONE), "encodec,training": ("encodec", "training")}).items():
        python = fresh_environment(session, scratch / "venv")
        front_door, *others = (
            wheel(folder, name) for name in ("blazen_codec", *(f"blazen_codec_{one}" for one in ("core", *brought)))
        )
        session.run("uv", "pip", "install", "--python", python, *CONSTRAINTS, f"{front_door}[{extra}]", *others)
        session.run("uv", "pip", "check", "--python", python)
        with session.chdir(scratch):  # away from the checkout's packages
            for plugin in brought if "training" not in brought else ():
                session.run(python, str(HELPERS / "isolated_install.py"), *ALONE[plugin], external=True)
            if "training" in brought:
                session.run(python, str(HELPERS / "isolated_finetune.py"), "encodec_tiny", external=True)
        session.log(f"blazen-codec[{extra}] works")


def wheel(folder: Path, name: str) -> str:
    """The one wheel of a distribution."""
    (path,) = folder.glob(f"{name}-*.whl")
    return str(path)


def fresh_environment(session: nox.Session, place: Path) -> str:
    """An empty environment, as the path of its Python."""
    session.run("uv", "venv", "--clear", "--quiet", str(place))
    return str(place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


@nox.session
def new_plugin(session: nox.Session) -> None:
    """What `blazen-codec new-plugin` writes, installed as its author would, against its own tests and the contracts."""
    folder = Path(session.create_tmp()).resolve()
    install(session, ".")
    for name, options in {"acme": (), "vae": ("--continuous",)}.items():
        project = folder / f"{name}-codec"
        shutil.rmtree(project, ignore_errors=True)
        session.run("blazen-codec", "new-plugin", name, "-o", str(folder), *options)
        install(session, ".", f"{project}[test]")
        session.run("uv", "pip", "check")
        with session.chdir(project):
            session.run("pytest")
            session.run("pytest", "--codec", f"{name}_16khz")


@nox.session
def mimi(session: nox.Session) -> None:
    """The third-party codec in `examples/mimi`, installed alone, against its own tests and the contracts."""
    install(session, ".", "examples/mimi[test]")
    session.run("uv", "pip", "check")
    session.chdir("examples/mimi")
    session.run("pytest")


@nox.session
def image(session: nox.Session) -> None:
    """The image of `deploy/Dockerfile`, built where Docker runs, else its steps; a recording goes through its server."""
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    session.run("python", "tests/helpers/image.py", str(folder))


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Ours against every peer: `nox -s benchmarks -- -o FOLDER`, which takes an hour or two on two cores."""
    install_for_tests(session, groups=("benchmarks",))
    session.run("python", "-m", "benchmarks", "all", *session.posargs)

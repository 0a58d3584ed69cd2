"""Loading of compiled kernels, their cache, and its robustness to damage."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from blazen_codec_core import SlowerNotice
from blazen_codec_core.nn.kernels import backends
from blazen_codec_core.nn.kernels.interface import Conv1dProblem

numba = pytest.importorskip("numba")
compiling = importlib.import_module("blazen_codec_core.nn.kernels.cpu.jit")
pytestmark = pytest.mark.skipif(backends.load_cpu_backend() is None, reason="numba is not available")


def scaled(x, factor):
    for i in range(x.size):
        x[i] *= factor


def work() -> None:
    """Compile or load a small kernel, and run it."""
    values = np.ones(5, np.float32)
    compiling.jit("void(f4[::1], f4)")(scaled).compiled()(values, 3)
    assert (values == 3).all()


@pytest.fixture
def troubles(monkeypatch):
    monkeypatch.setattr(compiling.compile_cache, "troubles", found := [])
    monkeypatch.setattr(compiling.compile_cache, "_reported", [])
    return found


@pytest.fixture
def kept(tmp_path, monkeypatch, troubles):
    """Return the file of the cached kernel."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.setattr(scaled, "__qualname__", "scaled")
    work()
    [path] = (tmp_path / "kept").rglob("*.loop")
    assert not troubles
    return path


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_cached_kernel_is_not_compiled_again(kept, troubles):
    before = kept.stat()
    work()
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not troubles


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: np.random.default_rng(0).bytes(len(data)),
        lambda data: changed(data, 0),
        lambda data: changed(data, len(data) // 2),
        lambda data: changed(data, len(data) - 1),
    ],
    ids=["empty", "cut in its digest", "cut", "longer", "zeros", "random", "first bit", "a bit in the middle", "last bit"],
)
def test_damaged_cache_is_compiled_again_and_stored(kept, troubles, damage):
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    work()
    data = kept.read_bytes()
    assert compiling.compile_cache._DIGEST(data[32:]).digest() == data[:32]
    assert [path for path in kept.parent.iterdir() if path.suffix == ".loop"] == [kept]
    assert not troubles


def test_folder_instead_of_the_cache_file(kept, troubles):
    kept.unlink()
    kept.mkdir()
    work()
    assert any(str(kept) in trouble for trouble in troubles)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)])
def test_special_file_instead_of_the_cache_file(kept, troubles, make):
    kept.unlink()
    make(kept)
    work()
    assert not kept.is_file()
    assert len(troubles) == 1


def test_unwritable_cache_folder(monkeypatch, troubles):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    work()
    assert len(troubles) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no limit of file sizes here")
def test_full_disk(kept, troubles):
    import resource

    kept.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(troubles) == 1
    assert list(kept.parent.iterdir()) == []


def test_one_warning_says_what_to_do(monkeypatch, troubles):
    troubles += ["/there/a.loop cannot be written: No space left on device", "/there/b.loop cannot be written"]
    with pytest.warns(SlowerNotice, match=r"/there/a\.loop .* No space left.*NUMBA_CACHE_DIR") as told:
        assert backends.load_cpu_backend.__wrapped__()
    assert len(told) == 1


@pytest.mark.parametrize(
    "error", [OSError("libLLVM is damaged"), ImportError("Numba needs NumPy 9"), RuntimeError("no"), TypeError()]
)
def test_kernels_that_fail_to_load_are_replaced(monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.warns(SlowerNotice, match=f"plain PyTorch.*{error}.*uninstall numba"):
        assert backends.load_cpu_backend.__wrapped__() is None


def test_layers_whose_kernels_cannot_be_compiled_use_others(monkeypatch):
    backend = backends.load_cpu_backend.__wrapped__()
    problem = Conv1dProblem(torch.zeros(3, 64, 64), None, frozen=True)
    if not backend.conv1d(problem):
        pytest.skip("this processor has no micro-kernels")
    assert backend.is_batch_exact

    def failing(self):
        raise compiling.CompileError("LLVM ran out of memory")

    monkeypatch.setattr(compiling.NativeFunction, "compiled", failing)
    with pytest.warns(SlowerNotice, match=r"plain PyTorch.*LLVM ran out of memory.*uninstall numba") as told:
        assert [backend.conv1d(problem), backend.codebook_search(torch.zeros(8, 64), None)] == [None, None]
    assert len(told) == 1
    assert not backend.is_batch_exact


def test_failure_of_numba_is_named():
    function = compiling.jit("void(f4[::1], no_type)")(scaled)
    with pytest.raises(compiling.CompileError, match="no_type"):
        function.compiled()


def test_no_warning_without_numba(monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert backends.load_cpu_backend.__wrapped__() is None


@pytest.mark.parametrize("load", ["from blazen_codec_core.nn.kernels.backends import load_cpu_backend; load_cpu_backend()", ""])
def test_kernels_start_no_threads(load):
    program = f"""
import torch
torch.set_num_threads(2)
{load}
import numba
from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise
from blazen_codec_core.nn.kernels.epilogue import ELU, Epilogue
CpuElementwise().write_activation(Epilogue(activation=ELU), x := torch.randn(1, 4000, 40), torch.empty_like(x))
assert torch.get_num_threads() == 2
numba.threading_layer()
"""
    run = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert run.stderr.strip().endswith("ValueError: Threading layer is not initialized.")


def test_kernels_work_without_the_chosen_cache():
    program = """
import torch
from blazen_codec_core.nn.kernels.backends import load_cpu_backend
backend = load_cpu_backend()
from blazen_codec_core.nn.kernels.epilogue import ELU, Epilogue
x = torch.randn(1, 4000, 40)
backend.elementwise(x.device, x.dtype).write_activation(Epilogue(activation=ELU), x, out := torch.empty_like(x))
torch.testing.assert_close(out, torch.nn.functional.elu(x))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": "/proc"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_nothing_is_compiled_without_numba():
    program = """
import sys
sys.modules["numba"] = None
import torch
from blazen_codec_core.nn import ELU
from blazen_codec_core.nn.kernels import dispatch
assert dispatch.load_cpu_backend() is None
with torch.no_grad():
    x = torch.randn(1, 4000, 40)
    torch.testing.assert_close(ELU()(x), torch.nn.functional.elu(x))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


PROGRAM = """
import hashlib, blazen_codec_core as bc
from blazen_codec_core.conformance.signals import voice
codec = bc.load("snac_tiny", device="cpu")
print(hashlib.sha256(b"".join(c.tobytes() for c in codec.encode(voice(2.0, 24_000), 24_000).codes)).hexdigest())
"""


def begun(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """Return the output of a process after checking that it has no warning."""
    out, err = process.communicate(timeout=1200)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.slow
def test_disabled_jit():
    process = begun(NUMBA_DISABLE_JIT="1")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out == ended(begun())
    assert err.count("SlowerNotice") == 1
    assert "NUMBA_DISABLE_JIT" in err


@pytest.mark.slow
def test_concurrent_compilation_survives_a_kill(tmp_path):
    """Damage every cached file in another way."""
    folder = tmp_path / "kept"
    killed, other = begun(NUMBA_CACHE_DIR=str(folder)), begun(NUMBA_CACHE_DIR=str(folder))
    while not list(folder.rglob("*.loop")) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    tokens = ended(other)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.loop")}  # what was killed leaves one begun
    assert ended(begun(NUMBA_CACHE_DIR=str(folder))) == tokens == ended(begun())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("[!.]*.loop")} == files
    draw = np.random.default_rng(0)
    for number, path in enumerate(files):
        data = path.read_bytes()
        path.write_bytes([data[: number * 97], draw.bytes(5000), b"", changed(data, int(draw.integers(len(data))))][number % 4])
    assert ended(begun(NUMBA_CACHE_DIR=str(folder))) == tokens
    assert all(Path(path).stat().st_size > 5000 for path in files)
    shutil.rmtree(folder)


def test_functions_that_kernels_call_have_names_of_their_own():
    """A process loads kernels of several others; of two functions with one name, all kernels would call the first."""
    package = importlib.import_module("blazen_codec_core.nn.kernels.cpu")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    dispatcher = type(numba.njit(scaled))
    dispatchers = [found for found in gc.get_objects() if type(found) is dispatcher]
    called = [one.py_func for one in dispatchers if one.targetoptions.get("inline") != "always"]
    names = [f"{function.__module__}.{function.__qualname__}" for function in set(called)]
    ours = [name for name in names if name.startswith(package.__name__)]
    assert len(ours) > 15
    assert sorted(ours) == sorted(set(ours))


COMPILED_APART = """
import sys
import torch
from blazen_codec_core.nn.kernels.cpu.depthwise_conv import DepthwiseConv1d
from blazen_codec_core.nn.kernels.cpu.direct_conv import DirectConv1d
from blazen_codec_core.nn.kernels.cpu.elementwise import CpuElementwise
from blazen_codec_core.nn.kernels.epilogue import SNAKE, Epilogue

x, ones = torch.ones(1, 3, 64), torch.ones(64)
snake = Epilogue(activation=SNAKE, parameters=(ones, ones))

def assemble():
    CpuElementwise().assemble_input(x[:, :0], x, 0, snake, made := torch.empty_like(x))
    return made

kernels = {
    "assemble": assemble,
    "depthwise": lambda: DepthwiseConv1d(torch.ones(1, 64), None, 1)(x, 3, snake),
    "direct": lambda: DirectConv1d(torch.eye(64)[None], None)(x, 3, snake),
}
for name in sys.argv[1:]:
    torch.testing.assert_close(kernels[name](), 1 + torch.sin(x) ** 2)
"""


@pytest.mark.slow
def test_kernels_that_several_processes_compiled_work_together(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for kernels in (["assemble"], ["depthwise", "direct"], ["assemble", "depthwise"], ["depthwise", "assemble"]):
        subprocess.run([sys.executable, "-c", COMPILED_APART, *kernels], env=environment, check=True)

"""The C++ example compiles, and decodes what the engine does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import blazen_codec_core as bc

EXAMPLE = Path(__file__).parents[2] / "examples/cpp"
COMPILER = os.environ.get("CXX") or shutil.which("c++")
INCLUDES = ("-I/usr/include/onnxruntime",)
"""Where Debian has the headers. `CPLUS_INCLUDE_PATH` names another place."""
HEADERS = "#include <onnxruntime_cxx_api.h>\n#include <nlohmann/json.hpp>\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled example, and the environment in which it finds ONNX Runtime: that of the Python package."""
    capi = Path(pytest.importorskip("onnxruntime").__file__).parent / "capi"
    libraries = list(capi.glob("libonnxruntime.so.*"))
    if COMPILER is None or not libraries:
        pytest.skip("needs a C++ compiler, and an onnxruntime package that has libonnxruntime.so")
    has_headers = subprocess.run(
        [COMPILER, "-E", "-x", "c++", *INCLUDES, "-"], input=HEADERS, text=True, capture_output=True, check=False
    )
    if has_headers.returncode:
        pytest.skip("needs onnxruntime_cxx_api.h and nlohmann/json.hpp: libonnxruntime-dev and nlohmann-json3-dev of Debian 13")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    flags = ("-std=c++20", "-Wall", "-Wextra", "-Werror", *INCLUDES, f"-L{folder}")
    subprocess.run([COMPILER, *flags, EXAMPLE / "roundtrip.cpp", "-lonnxruntime", "-o", folder / "roundtrip"], check=True)
    return folder / "roundtrip", os.environ | {"LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize("samples", [0, 1, 99, 5001])
def test_the_example_decodes_what_the_engine_does(program, exported, samples):
    path, environment = program
    pcm = np.random.default_rng(0).normal(0, 0.2, samples).astype(np.float32)
    done = subprocess.run([path, exported[0]], input=pcm.tobytes(), env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    codec = bc.load(exported[0], noise=False)
    expected = codec.decode(codec.encode(pcm, codec.sample_rate)) if samples else pcm
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), expected.reshape(-1))


def test_a_folder_that_is_not_there_is_an_error(program, tmp_path):
    path, environment = program
    done = subprocess.run([path, tmp_path], input=b"", env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr

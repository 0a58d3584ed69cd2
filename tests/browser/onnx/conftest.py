"""Exported folders beside the example's page and onnxruntime-web, as its README has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import blazen_codec_core as bc
from blazen_codec_core.onnx.export import export
from tests.helpers.mixed_codec import mixed_codec
from tests.helpers.npm_package import unpacked
from tests.helpers.static_files import serving

EXAMPLE = Path(__file__).parents[3] / "examples/browser"
RUNTIME = "onnxruntime-web"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Digest of the archive of the version that the README installs."""


@pytest.fixture(scope="session")
def mixed() -> bc.DynCodecProvider:
    """A codec of many layers, with a choice of codebooks and with noise."""
    return mixed_codec()


@pytest.fixture(scope="session")
def site(mixed: bc.DynCodecProvider, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with the runtime, `mixed`, and `model`, which is `snac_tiny` with graphs of streams alone."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="nox -s onnx_browser installs the extra `export`")
    site = tmp_path_factory.mktemp("site")
    (version,) = re.findall(rf"npm install {RUNTIME}@(\S+)", (EXAMPLE / "README.md").read_text())
    unpacked(RUNTIME, version, SHA512, site)
    shutil.copytree(EXAMPLE, site, dirs_exist_ok=True)
    export(mixed, site / "mixed", tile_frames=8, check=False)
    bc.export("snac_tiny", site / "model", what="step", check=False)
    (site / "empty.html").write_text("<!doctype html><link rel=icon href=data:,><main></main>")
    return site


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


@pytest.fixture(params=["node", "chromium"])
def javascript(request: pytest.FixtureRequest, site: Path) -> Callable[..., Any]:
    """Runs `(driver, codec, argument) => …`, where the codec is that of the folder `mixed`, in Node.js or in a page."""
    return in_node(site) if request.param == "node" else in_page(request)


BODY = """
    ort.env.wasm.numThreads = 1;
    const codec = await driver.ExportedCodec.open(ort, READ);
    return await (FUNCTION)(driver, codec, argument);
"""


def in_node(site: Path) -> Callable[..., Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")

    def run(function: str, argument: Any = None) -> Any:
        body = BODY.replace("READ", "async (name) => new Uint8Array(readFileSync(`mixed/${name}`))").replace("FUNCTION", function)
        program = f"""
            import {{ readFileSync, writeFileSync }} from "node:fs";
            import * as ort from "./node_modules/{RUNTIME}/dist/ort.wasm.min.mjs";
            import * as driver from "./codec_stream.js";
            const run = async (argument) => {{{body}}};
            writeFileSync(1, JSON.stringify(await run(JSON.parse(readFileSync(0, "utf8")))));
        """
        command = [node, "--input-type=module", "--eval", program]
        ran = subprocess.run(
            command, input=json.dumps(argument), capture_output=True, text=True, check=False, cwd=site, timeout=120
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout)

    return run


def in_page(request: pytest.FixtureRequest) -> Callable[..., Any]:
    address = request.getfixturevalue("address")
    page = request.getfixturevalue("opened")(f"{address}/empty.html")

    def run(function: str, argument: Any = None) -> Any:
        body = BODY.replace("READ", 'driver.filesAt("mixed/")').replace("FUNCTION", function)
        program = f"""async (argument) => {{
            const ort = await import("/node_modules/{RUNTIME}/dist/ort.wasm.min.mjs");
            const driver = await import("/codec_stream.js");
            {body}
        }}"""
        return page.evaluate(program, argument)

    return run

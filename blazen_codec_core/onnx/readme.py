"""The README of an exported folder, with a driver that needs NumPy and ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Iterator

from .manifest import FILE, NUM_CODEBOOKS, WEIGHTS, Manifest, Part

DRIVER = """\
import json, pathlib, numpy as np, onnxruntime as ort

manifest, sessions = json.loads(pathlib.Path("export.json").read_bytes()), {}

def run(graph, inputs):
    session = sessions.setdefault(graph["file"], sessions.get(graph["file"]) or ort.InferenceSession(graph["file"]))
    outputs = session.run(None, {value["name"]: inputs[value["name"]] for value in graph["inputs"]})
    return {value["name"]: array for value, array in zip(graph["outputs"], outputs)}

class Stream:
    def __init__(self, part, seed=0):
        self.part, self.seed, self.state, self.noise, self.begun = manifest["parts"][part], seed, {}, {}, False

    def push(self, inputs):  # inputs: whole blocks, as many as begin or step takes
        graph, self.begun = self.part["stream"]["step" if self.begun else "begin"], True
        return self.step(graph, inputs, graph["blocks"])

    def finish(self, inputs, blocks):  # blocks: those in the inputs, fewer than begin or step takes
        graph = self.part["stream"]["end"] if self.begun else self.part["whole"]
        return self.step(graph, inputs, blocks) if graph and blocks >= graph["blocks"] else {}

    def step(self, graph, inputs, blocks):
        noise = {n["name"]: self.normal(n["layer"], n["slope"] * blocks + n["offset"]) for n in graph["noise"]}
        outputs = run(graph, {**inputs, **noise, **self.state})
        self.state = {"state." + name[5:]: outputs.pop(name) for name in list(outputs) if name.startswith("next.")}
        return outputs

    def normal(self, layer, count):  # the next values of a layer's noise
        philox, left = self.noise.get(layer) or (np.random.Philox(key=np.array([self.seed, layer], np.uint64)), np.zeros(0))
        words = philox.random_raw(count // 2 + 1)
        radius = np.sqrt(-2 * np.log(((words >> np.uint64(32)) + 0.5) / 2**32))
        angle = (words & np.uint64(0xFFFFFFFF)) * (2 * np.pi / 2**32)
        values = np.concatenate([left, np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()])
        self.noise[layer] = philox, values[count:]
        return values[:count].astype(np.float32)
"""


def readme(manifest: Manifest) -> str:
    """Text of the README."""
    return "\n".join(_lines(manifest))


def _lines(manifest: Manifest) -> Iterator[str]:
    spec = manifest.codec
    graphs = [graph for part in manifest.parts.values() for graph in part.graphs]
    yield f"# {spec.name} as ONNX graphs\n"
    yield f"{spec.description}. {spec.summary}; weights `{manifest.label}`, {manifest.dtype}."
    yield f"Licence of the weights: {spec.license}.\n"
    yield f"All graphs share `{WEIGHTS}`; `{FILE}` describes their inputs, outputs and states. They run one signal at a time."
    yield f"Audio is float32 `(1, {spec.channels}, samples)` at {spec.sample_rate} Hz, nominally -1 … 1."
    yield "Codes are int64 `(1, codes)`, an input or output for each codebook."
    yield f"A frame has {spec.hop_length} samples; the codebooks have a code for every"
    yield f"{', '.join(map(str, spec.strides))} frames.\n"
    for name, part in manifest.parts.items():
        yield f"## The {name}\n"
        yield from _part_lines(part)
    if spec.segment and spec.segment.normalized:
        yield "The graphs take one segment, divided by its root mean square over all channels; multiply decoded audio by that.\n"
    if any(value.name == NUM_CODEBOOKS for graph in graphs for value in graph.inputs):
        yield "With fewer codebooks, pass zeros as the codes of the others, and the number of those used as"
        yield f"`{NUM_CODEBOOKS}`, int64 `(1,)`.\n"
    if any(graph.noise for graph in graphs):
        yield "Noise of a layer is a sequence of standard normal values from Philox with the key `(seed, layer)`."
        yield "Each graph takes the next of them. Zeros switch it off.\n"
    if any(part.stream for part in manifest.parts.values()):
        yield "## A driver in Python\n"
        yield f"```python\n{DRIVER}```\n"
        yield "`push` as many blocks as `begin` takes, then as many as `step` takes; `finish` with the rest, which may be none.\n"


def _part_lines(part: Part) -> Iterator[str]:
    block = ", ".join(f"{size} of `{name}`" for name, size in part.block.items())
    yield f"A signal has whole blocks, along the last axis: {block}. Pad audio with zeros to whole blocks.\n"
    yield "| graph | blocks | use |\n|---|---|---|"
    if part.whole:
        yield f"| `{part.whole.file}` | any number | a signal that is there as a whole |"
    if stream := part.stream:
        yield f"| `{stream.begin.file}` | {stream.begin.blocks} | the beginning of a stream |"
        yield f"| `{stream.step.file}` | {stream.step.blocks} | each tile that follows |"
        if stream.end:
            most = max(stream.end.blocks, stream.step.blocks - 1)
            blocks = f"{stream.end.blocks} to {most}" if stream.end.is_dynamic else most
            yield f"| `{stream.end.file}` | {blocks} | the rest of a stream |"
        yield "\nOutputs `next.*` of a graph are the inputs `state.*` of the graph after it."
        yield f"At most {stream.latency_samples} samples are held back."
        if not stream.end:
            yield "A stream ends without another graph."
    yield ""

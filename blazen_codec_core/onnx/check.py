"""Comparison of exported graphs, run by ONNX Runtime, with the codec that they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InferenceError
from ..provider import DynCodecProvider
from ..specs import CodecSpec
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .manifest import AUDIO, Manifest, Part, code_names
from .precisions import PRECISIONS
from .runtime import Arrays, GraphStream, Runtime, blocks_of, run_whole
from .sessions import decoder_inputs, encoder_inputs

SHORT_BLOCKS = (1, 2, 5)
"""Lengths of signals, in blocks of frames."""
NOISE_SEED = 0
"""Seed of the noise on both sides."""


@dataclass(frozen=True)
class Report:
    """Result of a comparison.

    Attributes:
        tokens: Tokens compared, of all signals, whole and in chunks.
        differing_tokens: Tokens that differ, by ties.
        max_pcm_error: Largest difference of audio decoded from the same tokens, as a share of its peak where that is above 1.
    """

    tokens: int
    differing_tokens: int
    max_pcm_error: float

    @property
    def agreement(self) -> float:
        """Share of tokens that agree."""
        return 1 - self.differing_tokens / max(1, self.tokens)


def check_export(codec: DynCodecProvider, folder: Path, manifest: Manifest) -> Report:
    """Compare graphs with their codec on signals of several lengths, whole and in chunks.

    Raises:
        InferenceError: They differ by more than rounding.
    """
    runtime = Runtime(folder, manifest)
    tokens = differing = 0
    errors = [0.0]
    for pcm in signals(codec.spec, manifest):
        reference = codec.encode(pcm, codec.sample_rate, num_codebooks=codec.spec.usable_codebooks[-1])
        if encoder := manifest.parts.get("encoder"):
            (inputs,) = encoder_inputs(codec.spec, pcm / np.float32(scale_of(reference)))
            for outputs in runs(runtime, encoder, inputs):
                pairs = list(zip((outputs[name] for name in code_names(codec.spec)), reference.codes, strict=True))
                tokens += sum(code.size for _, code in pairs)
                differing += sum(count_differing(found, code) for found, code in pairs)
        if decoder := manifest.parts.get("decoder"):
            audio = codec.decode(reference) / scale_of(reference)
            (inputs,) = decoder_inputs(codec.spec, reference.codes)
            for outputs in runs(runtime, decoder, inputs):
                errors.append(difference(outputs[AUDIO][0], audio))
    report = Report(tokens, differing, float(np.max(errors)))
    least, most = PRECISIONS[manifest.dtype].least_agreement, PRECISIONS[manifest.dtype].most_pcm_error
    if report.agreement < least or not report.max_pcm_error <= most:
        raise InferenceError(
            f"the graphs of {codec.spec.name} differ from the codec: {report.agreement:.3%} of the tokens agree (expected "
            f"{least:.1%}), and audio differs by {report.max_pcm_error:.2g} (expected at most {most:g}); nothing was exported"
        )
    return report


def signals(spec: CodecSpec, manifest: Manifest) -> Iterator[Pcm]:
    """Noisy tones `(channels, samples)`, shorter and longer than the beginning of a stream."""
    rng, block = np.random.default_rng(0), spec.block_frames * spec.hop_length
    lengths = {count * block for count in SHORT_BLOCKS}
    for part in manifest.parts.values():
        if stream := part.stream:
            begin, tile = (graph.blocks * part.block_samples for graph in (stream.begin, stream.step))
            lengths |= {begin, begin + block, begin + 2 * tile + block}
    if spec.segment:
        lengths = {min(length, spec.segment.length) for length in (*lengths, spec.segment.length)}
    for length in sorted(lengths):
        tone = np.sin(2 * np.pi * rng.uniform(80, 800) * np.arange(length) / spec.sample_rate)
        yield (0.3 * tone + 0.1 * rng.standard_normal((spec.channels, length))).astype(np.float32)


def scale_of(tokens: CodecTokens) -> float:
    """Scale that the only segment of a signal is divided by."""
    return 1.0 if tokens.scales is None else float(tokens.scales[0, 0])


def runs(runtime: Runtime, part: Part, inputs: Arrays) -> Iterator[Arrays]:
    """Outputs of a signal: as a whole, and in chunks of several sizes."""
    blocks = blocks_of(part, inputs)
    if part.whole:
        yield run_whole(runtime, part, inputs, NOISE_SEED)
    if part.stream and (part.whole or blocks >= part.stream.begin.blocks):
        tile = part.stream.step.blocks
        for size in {max(1, tile // 3), tile + 1, blocks}:
            stream = GraphStream(runtime, part, NOISE_SEED)
            outputs = [output for chunk, last in chunks(part, inputs, size) for output in stream.run(chunk, last)]
            yield joined(outputs)


def chunks(part: Part, inputs: Arrays, size: int) -> Iterator[tuple[Arrays, bool]]:
    """Inputs in chunks of `size` blocks, each with whether it is the last; the last one is empty."""
    for start in (*range(0, blocks_of(part, inputs), size), blocks_of(part, inputs)):
        ranges = {name: slice(start * each, (start + size) * each) for name, each in part.block.items()}
        chunk = {name: array[..., ranges[name]] if name in ranges else array for name, array in inputs.items()}
        yield chunk, start == blocks_of(part, inputs)


def joined(outputs: Sequence[Arrays]) -> Arrays:
    """Outputs one after the other in time."""
    return {name: np.concatenate([output[name] for output in outputs], -1) for name in outputs[0]}


def count_differing(found: NDArray[Any], expected: NDArray[Any]) -> int:
    """Number of tokens that differ; all of them if there are too few."""
    return int((found != expected).sum()) if found.shape == expected.shape else expected.size


def difference(found: Pcm, expected: Pcm) -> float:
    """Largest difference of audio that begins with what is expected, as a share of its peak where that is above 1."""
    if found.shape[1] < expected.shape[1]:
        return float("inf")
    return float(np.abs(found[:, : expected.shape[1]] - expected).max() / max(1.0, np.abs(expected).max()))

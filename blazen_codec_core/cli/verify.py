from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import numpy as np

from ..errors import EngineNotAvailable
from ..plugins.registry import Registry
from ..specs import LoadOptions
from ..transcode import Recording
from ..validation import Pcm
from .options import AUDIO, as_json, bandwidth, bandwidth_of, loading, num_codebooks, print_json, quiet

if TYPE_CHECKING:
    from ..torch_backend.upstream import UpstreamBackend

AGREEMENT = 0.9999
PCM_ERROR = 1e-4


@click.command("verify")
@click.argument("name")
@click.option("--audio", "source", type=AUDIO, help="audio to compare on; default: 4 s of tones and noise")
@bandwidth
@num_codebooks
@loading
@quiet
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    name: str,
    source: Path | None,
    bandwidth: float | None,
    num_codebooks: int | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare this implementation with its authors' package, on the same audio and weights.

    The exit code is 1 if fewer than 99.99 % of the tokens agree, or the decoded audio differs by more than 1e-4 from that of the
    authors' forward pass of the whole signal. Where they also decode in another way, the difference of their own two is shown.
    """
    options.pop("engine")
    registry = Registry()
    entry = registry.find(name)
    if entry.spec.upstream is None:
        raise EngineNotAvailable(f"{entry.spec.name} has no upstream engine to compare with")
    ours, theirs = (
        registry.provider(entry.qualified_name, LoadOptions.of(engine=engine, **options)) for engine in ("native", "upstream")
    )
    bandwidth = bandwidth_of(entry.spec, bandwidth, num_codebooks)
    pcm = Recording.at(source, ours).whole() if source else probe(ours.sample_rate, ours.channels)
    mine, reference = (codec.encode(pcm, codec.sample_rate, bandwidth=bandwidth) for codec in (ours, theirs))
    differing = [int((a != b).sum()) for a, b in zip(mine.codes, reference.codes, strict=True)]
    total = sum(code.size for code in mine.codes)
    whole = theirs.decode(reference)
    error = float(np.abs(ours.decode(reference) - whole).max())
    others = cast("UpstreamBackend", theirs.backend).other_decodings(reference)
    other_errors = {how: float(np.abs(audio - whole).max()) for how, audio in others.items()}
    agreement = 1 - sum(differing) / total
    passed = agreement >= AGREEMENT and error <= PCM_ERROR
    summary = {
        "codec": mine.codec,
        "weights": mine.weights,
        "seconds": mine.seconds,
        "codebooks": mine.num_codebooks,
        "tokens": total,
        "differing_tokens": differing,
        "agreement": agreement,
        "max_pcm_error": error,
        "upstream_pcm_errors": other_errors,
        "passed": passed,
    }
    if as_json:
        print_json(summary)
    elif not quiet:
        click.echo(f"tokens   {total - sum(differing)} of {total} agree ({agreement:.4%}), differing by codebook: {differing}")
        click.echo(f"audio    differs by at most {error:.2e}, from the same tokens")
        for how, difference in other_errors.items():
            click.echo(f"authors' audio {how} differs from their own by at most {difference:.2e}")
        click.echo("passed" if passed else f"FAILED: expected at least {AGREEMENT:.2%} of tokens and at most {PCM_ERROR:g}")
    if not passed:
        ctx.exit(1)


def probe(sample_rate: int, channels: int, seconds: float = 4.0) -> Pcm:
    """Synthesize a varied test signal: a sweep, a beating chord, bursts of noise, silence."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    sweep = np.sin(2 * np.pi * (80 + 600 * t) * t)
    chord = sum(np.sin(2 * np.pi * f * t) / 3 for f in (220.0, 277.2, 331.0))
    noise = rng.standard_normal((channels, t.size)) * np.maximum(0, np.sin(2 * np.pi * 1.5 * t)) ** 4
    gate = (t % 2) < 1.7
    return np.asarray((0.2 * sweep + 0.2 * chord + 0.15 * noise) * gate, np.float32)

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..audio import loudness
from ..evaluation import evaluate, plots
from ..files import make_folder
from ..plugins.registry import Registry
from ..specs import LoadOptions
from .files import check_writable
from .options import AUDIO, as_json, force, judging, loading, mono, print_json, quiet, say
from .progress import bar

LARGE = 100
"""Report size in MB above which the command suggests a smaller excerpt."""


@click.command("compare")
@click.argument("sources", metavar="AUDIO...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-c", "--codec", "names", multiple=True, required=True, metavar="NAME[@KBPS]",
    help="a model, optionally at a bandwidth, or opus@KBPS; repeatable",
)  # fmt: skip
@click.option("-o", "--output", type=AUDIO, help="the report, a self-contained HTML file")
@force
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="a folder for the figures as PNG")
@click.option("--seconds", type=click.FloatRange(min=evaluate.MIN_SECONDS), help="length of the excerpt of each recording")
@judging
@mono
@loading
@quiet
@as_json
def command(
    sources: tuple[Path, ...],
    names: tuple[str, ...],
    output: Path | None,
    force: bool,
    pictures: Path | None,
    seconds: float | None,
    judge: evaluate.Scorer,
    mono: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare codecs on recordings: an HTML report to listen to, figures, and metrics.

    The report plays all versions sample-aligned and loudness-matched, and offers blind tests. It shows spectrograms, differences,
    tokens and metrics. Opus needs ffmpeg or opus-tools. Needs the extra `compare`.
    """
    if not (output or pictures or as_json):
        raise click.UsageError("no output is given; use -o report.html, --pictures FOLDER or --json")
    from ..comparison import compare, serialize
    from ..comparison import systems as asked
    from ..comparison.render import report

    systems = asked.systems(names, asked.cached_providers(Registry(), LoadOptions.of(**options)))
    paths = evaluate.recordings(sources)
    check(judge, pictures=bool(output or pictures))
    if output:
        if output.suffix.lower() not in (".html", ".htm"):
            raise click.UsageError(f"{output} is no name for a web page; end it in .html")
        check_writable(output, force)
    if pictures:
        make_folder(pictures)
    facts, shown = [], []
    with bar("comparing", len(paths), quiet) as advance:
        for system in systems:
            system.prepare()
        for number, path in enumerate(paths, 1):
            excerpt = compare.Clip(path, seconds=seconds, mono=mono)
            for remark in excerpt.remarks:
                say(remark, quiet)
            one = compare.compare(excerpt, systems, judge)
            facts.append(serialize.facts(one))
            if output:
                shown.append(serialize.page_data(one))
            if pictures:
                draw(one, pictures, f"{number:02d}-{path.stem}")
            advance(1)
    written = partial(say, quiet=quiet or as_json)
    if output:
        size = report.write(report.html(shown, facts), output)
        written(f"wrote {output}, {size / 1e6:.1f} MB")
        if size > LARGE * 1e6:
            say("the report is large; --seconds 30 takes 30 s of each recording", quiet)
    if pictures:
        from ..comparison.render.figures import rate_quality

        rate_quality(serialize.means(facts), pictures / "rate-quality.png")
        written(f"wrote the figures in {pictures}")
    if as_json:
        print_json(serialize.summary(facts))


def check(judge: evaluate.Scorer, *, pictures: bool) -> None:
    """Fail before the work starts if a package is missing."""
    judge.check_available()
    loudness.check_available()
    if pictures:
        plots.check_available()


def draw(one: Any, folder: Path, stem: str) -> None:
    """Write the figures of one recording."""
    from ..comparison.render import figures

    figures.spectrograms(one, folder / f"{stem}.spectrograms.png")
    figures.tokens(one, folder / f"{stem}.tokens.png")

"""Report of a run: the codec before and after, on the held-out recordings, by the project's own comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blazen_codec_core.comparison import compare, serialize
from blazen_codec_core.comparison.render import report as page
from blazen_codec_core.comparison.systems import CodecSystem
from blazen_codec_core.errors import CodecError, EngineNotAvailable, InvalidInput
from blazen_codec_core.evaluation.evaluate import QUALITIES, Scorer
from blazen_codec_core.files import replacing
from blazen_codec_core.plugins.registry import Registry
from blazen_codec_core.specs import LoadOptions

from .recordings import Recordings, Skipped
from .settings import Settings

SECONDS = 30.0
"""Most seconds of a recording that are compared."""
HEARD = 6
"""Recordings that the page plays."""
COLUMNS = {"stoi": "STOI", "log_mel_distance": "log-mel distance", "pesq": "PESQ", "si_sdr_db": "SI-SDR, dB"}


def write(
    settings: Settings,
    recordings: Recordings,
    folder: Path,
    model: Path,
    *,
    device: str = "auto",
    done: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Compare the codec before and after; write `report.html`, `report.md` and `report.json`, and return the last's content.

    Raises:
        InvalidInput: No held-out recording can be compared.
    """
    scorer, registry, skipped = _scorer(), Registry(), list(recordings.skipped)
    systems = [
        CodecSystem(registry.provider(settings.model, LoadOptions(device=device, weights=weights)), name)
        for name, weights in (("before", settings.weights), ("after", str(model)))
    ]
    for system in systems:
        system.prepare()
    facts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for recording in recordings.held_out[: settings.evaluated]:
        try:
            clip = compare.Clip(recording.path, seconds=SECONDS, mono=systems[0].codec.channels == 1)
            compared = compare.compare(clip, systems, scorer)
        except CodecError as error:
            skipped.append(Skipped(recording.path, str(error)))
            continue
        facts.append(serialize.facts(compared))
        if len(shown) < HEARD:
            shown.append(serialize.page_data(compared))
        done()
    if not facts:
        raise InvalidInput(f"no held-out recording can be compared; the last: {skipped[-1].reason}")
    title = f"{settings.model} before and after {settings.steps} steps on {Path(settings.data).name}"
    page.write(page.html(shown, facts, title), folder / "report.html")
    content = serialize.summary(facts) | {"skipped": [f"{one.reason}" for one in skipped]}
    _write_text(folder / "report.json", json.dumps(content, indent=1) + "\n")
    _write_text(folder / "report.md", markdown(title, content))
    return content


def _scorer() -> Scorer:
    """Return the scorer of the metrics that are installed."""
    try:
        (scorer := Scorer()).check_available()
    except EngineNotAvailable:
        (scorer := Scorer([name for name in QUALITIES if name != "pesq"])).check_available()
    return scorer


def markdown(title: str, content: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    recordings = content["recordings"]
    seconds = sum(recording["seconds"] for recording in recordings)
    return "\n".join(
        [
            f"# {title}",
            "",
            f"{len(recordings)} held-out recordings, {seconds:.0f} s. `report.html` plays them.",
            "",
            *table(content["systems"]),
            "",
            "Every recording, STOI and log-mel distance:",
            "",
            "| recording | before | after |",
            "|---|---|---|",
            *(f"| {recording['name']} | {' | '.join(map(_pair, recording['systems']))} |" for recording in recordings),
            *(["", "Skipped:", "", *(f"- {reason}" for reason in content["skipped"])] if content["skipped"] else []),
            "",
        ]
    )


def table(systems: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table with the means of each system."""
    columns = [name for name in COLUMNS if systems[0][name] is not None]
    return [
        f"| | {' | '.join(COLUMNS[name] for name in columns)} |",
        f"|---|{'---|' * len(columns)}",
        *(f"| {system['system']} | {' | '.join(_number(system[name]) for name in columns)} |" for system in systems),
    ]


def _pair(system: dict[str, Any]) -> str:
    return f"{_number(system['stoi'])}, {_number(system['log_mel_distance'])}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")

"""The example of a page that speaks, with the stand-in of its language model."""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blazen_codec_core as bc
from tests.helpers.asgi import running_application

CODEC = "snac_tiny"
LISTENERS = 4


@dataclass
class SpeakingPage:
    """A running example.

    Attributes:
        address: Host and port of the page.
        language_model: Host and port of the stand-in.
        text: What the stand-in answers.
        pool: Pool of the page's server.
        speech: Names of `speech.py`.
    """

    address: str
    language_model: str
    text: str
    pool: Any
    speech: dict[str, Any]


@contextlib.contextmanager
def speaking_page(root: Path, ids: int, speed: float) -> Iterator[SpeakingPage]:
    """Run the example; the stand-in answers with so many ids, at `speed` times real time."""
    folder = root / "examples/orpheus_server"
    model, speech = (runpy.run_path(str(folder / name)) for name in ("language_model.py", "speech.py"))
    written, rate = model["ids_as_text"](bc.load(CODEC), str(root / "examples/speech.flac"))
    with running_application(model["application"]("orpheus", written[:ids], speed * rate)) as language_model:
        speaker = speech["speaker_of"](CODEC, f"http://{language_model}/v1", "orpheus", LISTENERS)
        with running_application(speech["application"](speaker)) as address:
            yield SpeakingPage(address, language_model, "".join(written[:ids]), speaker._pool, speech)

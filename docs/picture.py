"""python docs/picture.py [FILE]: draw the README's picture, a recording that becomes tokens and audio again, from a real run.

The recording is `examples/speech.flac`, the codec `snac_tiny`. The default file is `docs/roundtrip.svg`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

import blazen_codec_core as bc

ROOT = Path(__file__).parent.parent
CODEC, START, SECONDS = "snac_tiny", 1.0, 2.0
WIDTH, LEFT, RIGHT = 1000, 150, 20
WAVE, ROW, GAP = 90, 22, 26
BACKGROUND, TEXT, BEFORE, AFTER = "#fbfbf8", "#333344", "#3b6ea8", "#a8563b"


def wave(pcm: NDArray[np.float32], top: float, colour: str) -> str:
    """Outline of the least and the largest sample of each pixel."""
    columns = np.array_split(pcm, WIDTH - LEFT - RIGHT)
    middle, scale = top + WAVE / 2, WAVE / 2 / max(float(np.abs(pcm).max()), 1e-6)
    upper = [f"{LEFT + x},{middle - scale * column.max():.1f}" for x, column in enumerate(columns)]
    lower = [f"{LEFT + x},{middle - scale * column.min():.1f}" for x, column in enumerate(columns)]
    return f'<path d="M{" ".join(upper)} {" ".join(reversed(lower))}Z" fill="{colour}" stroke="{colour}" stroke-width=".7"/>'


def book(codes: NDArray[np.uint32], size: int, top: float) -> str:
    """Cells of the tokens of a codebook; equal tokens have equal colours."""
    step = (WIDTH - LEFT - RIGHT) / len(codes)
    cells = []
    for number, code in enumerate(codes.tolist()):
        share = code / size
        colour = f"hsl({360 * (share * 7 % 1):.0f} 45% {45 + 30 * share:.0f}%)"
        cells.append(
            f'<path d="M{LEFT + number * step:.1f} {top}h{step - 0.6:.1f}v{ROW - 3}h-{step - 0.6:.1f}z" fill="{colour}"/>'
        )
    return "".join(cells)


def label(text: str, y: float, small: str = "") -> str:
    below = f'<tspan x="12" dy="15" font-size="11">{escape(small)}</tspan>' if small else ""
    return f'<text x="12" y="{y}">{escape(text)}{below}</text>'


def draw(path: Path) -> None:
    """Encode and decode the recording, and write the picture."""
    codec = bc.load(CODEC)
    pcm, rate = bc.read_audio(ROOT / "examples" / "speech.flac")
    tokens = codec.encode(pcm, rate)
    decoded = codec.decode(tokens)
    samples = slice(round(START * rate), round((START + SECONDS) * rate))
    shown = tokens[START : START + SECONDS]
    parts = [label("recording", 55, f"{rate / 1000:g} kHz, {16 * rate / 1000:g} kbps"), wave(pcm[0, samples], 15, BEFORE)]
    y: float = 15 + WAVE + GAP
    for number, codes in enumerate(shown.codes, 1):
        parts += [
            label(f"codebook {number}: {codes.shape[1] / shown.seconds:.0f} Hz", y + 14),
            book(codes[0], tokens.codebook_size, y),
        ]
        y += ROW
    parts += [label("decoded", y + GAP + 40, f"from {tokens.kbps:.2f} kbps"), wave(decoded[0, samples], y + GAP, AFTER)]
    height = y + GAP + WAVE + 15
    title = f"{SECONDS:g} seconds of speech, their tokens in {len(shown.codes)} codebooks, and the audio decoded from these"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{title}" '
        f'font-family="sans-serif" font-size="13" fill="{TEXT}"><title>{title}</title>'
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>' + "\n".join(parts) + "</svg>\n",
        "utf-8",
        newline="\n",
    )


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs" / "roundtrip.svg")

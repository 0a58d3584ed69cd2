"""Layouts of language models that write EnCodec's tokens. A model is a row of data."""

from __future__ import annotations

from blazen_codec_core.tokens.layouts import NO_CODE, Specials, TableLayout

LAYOUTS = (
    TableLayout("encodec_flat", "codebooks interleaved by frame, each offset by the size of those before"),
    TableLayout(
        "musicgen_delay",
        "MusicGen: codebook k delayed by k frames",
        spacing=0,
        delays=1,
        fillers=NO_CODE,
        source="Copet et al. 2023, figure 1; https://github.com/facebookresearch/audiocraft: modules/codebooks_patterns.py",
    ),
    TableLayout(
        "bark_coarse",
        "Bark's coarse model: two codebooks interleaved by frame, after 10000 semantic ids",
        base=10_000,
        num_codebooks=2,
        markers=Specials(begin=12_050, padding=12_048),
        source="https://github.com/suno-ai/bark: bark/generation.py, generate_coarse",
    ),
    TableLayout(
        "bark_fine",
        "Bark's fine model: eight codebooks side by side",
        spacing=0,
        num_codebooks=8,
        fillers=Specials(padding=0),
        source="https://github.com/suno-ai/bark: bark/generation.py, generate_fine",
    ),
)

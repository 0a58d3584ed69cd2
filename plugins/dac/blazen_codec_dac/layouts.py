"""Layouts of language models that write DAC's tokens. A model is a row of data."""

from __future__ import annotations

from blazen_codec_core.tokens.layouts import NO_CODE, Specials, TableLayout

LAYOUTS = (
    TableLayout("dac_flat", "codebooks interleaved by frame, each offset by the size of those before"),
    TableLayout("dac_delay", "codebook k delayed by k frames", spacing=0, delays=1, fillers=NO_CODE),
    TableLayout(
        "parler_tts",
        "Parler-TTS: codebook k delayed by k frames, begin 1025, end and padding 1024",
        spacing=0,
        delays=1,
        fillers=Specials(begin=1, end=0, padding=0),
        num_codebooks=9,
        source="https://github.com/huggingface/parler-tts: parler_tts/modeling_parler_tts.py, build_delay_pattern_mask",
    ),
    TableLayout(
        "dia",
        "Dia: codebooks delayed by 0, 8, 9 … 15 frames, begin 1026, end 1024, padding 1025",
        spacing=0,
        delays=(0, *range(8, 16)),
        fillers=Specials(begin=2, end=0, padding=1),
        num_codebooks=9,
        source="https://github.com/nari-labs/dia: dia/config.py, dia/audio.py, dia/model.py",
    ),
)

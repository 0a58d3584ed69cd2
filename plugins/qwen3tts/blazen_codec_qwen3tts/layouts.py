"""Layout of the language model that writes the tokens."""

from __future__ import annotations

from blazen_codec_core.tokens.layouts import Specials, TableLayout

LAYOUTS = (
    TableLayout(
        "qwen3_tts",
        "Qwen3-TTS: 16 codebooks side by side, from 2149 to 2150 in place of a step's first id",
        spacing=0,
        markers=Specials(begin=2149, end=2150, padding=2148),
        num_codebooks=16,
        source="https://github.com/QwenLM/Qwen3-TTS: qwen_tts/core/models/modeling_qwen3_tts.py, generate; ids of config.json in "
        "Qwen/Qwen3-TTS-12Hz-0.6B-Base",
    ),
)

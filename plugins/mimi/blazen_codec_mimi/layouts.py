"""Layouts of language models that write Mimi's tokens. A model is a row of data."""

from __future__ import annotations

from blazen_codec_core.tokens.layouts import Specials, TableLayout

LAYOUTS = (
    TableLayout(
        "moshi",
        "Moshi: 8 codebooks side by side, all but the first delayed by one frame, begin 2048",
        spacing=0,
        delays=(0, *[1] * 7),
        fillers=Specials(begin=0, padding=0),
        num_codebooks=8,
        source="Défossez et al. 2024, section 3.4; https://github.com/kyutai-labs/moshi: moshi/models/lm.py, loaders.py",
    ),
    TableLayout(
        "csm",
        "CSM: 32 codebooks side by side, ended by a frame of zeros",
        spacing=0,
        end_code=0,
        num_codebooks=32,
        source="https://github.com/SesameAILabs/csm: generator.py, _tokenize_audio and generate",
    ),
)

"""Layouts of language models that write SNAC's tokens. A model is a row of data."""

from __future__ import annotations

from blazen_codec_core.tokens.layouts import IdText, Specials, TableLayout

ORPHEUS_TEXT = 128_256
"""Id of `<custom_token_0>`, the first after Llama 3's."""

LAYOUTS = (
    TableLayout("snac_interleaved", "SNAC codebooks interleaved by time, one offset per slot, starting at 0"),
    TableLayout(
        "orpheus",
        "Orpheus: SNAC codebooks interleaved by time, one offset per slot, starting at 128266",
        base=ORPHEUS_TEXT + 10,
        # Begin and end of speech; begin and end of human, begin and end of AI, padding.
        markers=Specials(begin=128_257, end=128_258, padding=128_263, others=(128_259, 128_260, 128_261, 128_262)),
        text=IdText("<custom_token_{}>", ORPHEUS_TEXT),
        source="https://github.com/canopyai/Orpheus-TTS: orpheus_tts_pypi/orpheus_tts/decoder.py; its training notebook",
    ),
    TableLayout(
        "mini_omni",
        "Mini-Omni: slot k of a SNAC frame delayed by k steps, 4160 ids per slot, starting at 152000",
        base=152_000,
        spacing=4_160,
        delays=1,
        # End, padding; input, answer, split. The beginning is padding.
        fillers=Specials(begin=1, end=0, padding=1, others=(2, 3, 4)),
        source="https://github.com/gpt-omni/mini-omni: utils/snac_utils.py, inference.py",
    ),
)

"""What the authors' packages make of recordings, for ours to be held against."""

from __future__ import annotations

from typing import Any

import numpy as np

import blazen_codec_core as bc

Made = list[tuple[bc.CodecTokens, np.ndarray]]


def there_and_back(
    codecs: Any, name: str, recordings: list[np.ndarray], options: dict[str, Any] | None = None, **loading: Any
) -> Made:
    """The tokens that the authors' package makes of each recording, and what it decodes them to.

    Ours is not loaded meanwhile, nor theirs afterwards: two of full size side by side want more memory than a test run has.

    Args:
        codecs: The fixture.
        options: Of encoding.
    """
    codecs(name, **loading).unload()
    theirs = codecs(name, engine="upstream", **loading)
    encoded = [theirs.encode(pcm, theirs.sample_rate, **(options or {})) for pcm in recordings]
    made = [(tokens, theirs.decode(tokens)) for tokens in encoded]
    theirs.unload()
    return made

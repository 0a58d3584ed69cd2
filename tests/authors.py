"""What the authors' packages make of recordings, for ours to be held against."""

from __future__ import annotations

from typing import Any

import numpy as np

import blazen_codec_core as bc


def there_and_back(
    theirs: bc.DynCodecProvider, recordings: list[np.ndarray], **options: Any
) -> list[tuple[bc.CodecTokens, np.ndarray]]:
    """The tokens of each recording, and what these decode to.

    Then their model is unloaded: two of full size side by side want more memory than a test run has.
    """
    encoded = [theirs.encode(pcm, theirs.sample_rate, **options) for pcm in recordings]
    made = [(tokens, theirs.decode(tokens)) for tokens in encoded]
    theirs.unload()
    return made

"""Recipes of the models that are trained, out of the plugins' own networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

import blazen_codec_dac.checkpoint as dac
import blazen_codec_encodec.checkpoint as encodec
import blazen_codec_snac.checkpoint as snac
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_dac.network import DacNetwork
from blazen_codec_dac.specs import DAC_TINY
from blazen_codec_dac.specs import SPECS as DAC_SPECS
from blazen_codec_encodec.network import EncodecNetwork
from blazen_codec_encodec.specs import ENCODEC_TINY
from blazen_codec_snac.network import SnacNetwork
from blazen_codec_snac.specs import SNAC_TINY

DAC_SPEC = next(spec for spec in DAC_SPECS if spec.architecture == DAC_TINY)


@dataclass(frozen=True)
class Recipe:
    """A model and what is its own in training.

    Attributes:
        network: Makes it, without weights.
        published: Its weights under the names that its authors' package knows, each whole,
        ours: and back: the network, the weights, and where they are from.
        choices: How many codebooks a signal may use; one of them is drawn for some (quantizer dropout).
        samples: Of a cut, whole groups of frames.
    """

    network: Callable[[], CodecNetwork]
    published: Callable[[CodecNetwork], dict[str, Tensor]]
    ours: Callable[[CodecNetwork, Mapping[str, Tensor], str], dict[str, Tensor]]
    choices: tuple[int, ...]
    samples: int


RECIPES = {
    "encodec_tiny": Recipe(
        partial(EncodecNetwork, ENCODEC_TINY),
        partial(encodec.to_published, weight_norm=False),
        encodec.from_published,
        ENCODEC_TINY.codebook_choices,
        samples=9_600,
    ),
    "dac_tiny": Recipe(
        partial(DacNetwork, DAC_TINY),
        partial(dac.to_published, weight_norm=False),
        partial(dac.from_published, DAC_SPEC),
        tuple(range(1, DAC_TINY.n_codebooks + 1)),
        samples=9_600,
    ),
    "snac_tiny": Recipe(
        partial(SnacNetwork, SNAC_TINY),
        partial(snac.to_published, weight_norm=False),
        snac.from_published,
        (len(SNAC_TINY.vq_strides),),
        samples=9_600,
    ),
}

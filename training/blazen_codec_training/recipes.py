"""Recipes of the trained models, which use the plugins' networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

import blazen_codec_dac.checkpoint as dac
import blazen_codec_encodec.checkpoint as encodec
import blazen_codec_mimi.checkpoint as mimi
import blazen_codec_snac.checkpoint as snac
from blazen_codec_core.nn import CodecNetwork
from blazen_codec_dac.network import DacNetwork
from blazen_codec_dac.specs import DAC_TINY
from blazen_codec_dac.specs import SPECS as DAC_SPECS
from blazen_codec_encodec.network import EncodecNetwork
from blazen_codec_encodec.specs import ENCODEC_TINY
from blazen_codec_mimi.network import MimiNetwork
from blazen_codec_mimi.specs import MIMI_TINY
from blazen_codec_snac.network import SnacNetwork
from blazen_codec_snac.specs import SNAC_TINY

DAC_SPEC = next(spec for spec in DAC_SPECS if spec.architecture == DAC_TINY)


@dataclass(frozen=True)
class Recipe:
    """A model and its training settings.

    Attributes:
        network: Creates the network without weights.
        published: Converts a network's weights to the names of its authors' package, without weight norm.
        ours: Converts such weights back, given the network, the weights, and their origin for messages.
        choices: Numbers of codebooks that a signal may use, for quantizer dropout.
        samples: Samples per cut, a multiple of the padding unit.
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
    "mimi_tiny": Recipe(
        partial(MimiNetwork, MIMI_TINY),
        mimi.to_published,
        mimi.from_published,
        tuple(range(1, MIMI_TINY.num_quantizers + 1)),
        samples=30_720,
    ),
    "snac_tiny": Recipe(
        partial(SnacNetwork, SNAC_TINY),
        partial(snac.to_published, weight_norm=False),
        snac.from_published,
        (len(SNAC_TINY.vq_strides),),
        samples=9_600,
    ),
}

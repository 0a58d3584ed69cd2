"""Comparison of the settings in audiocraft's checkpoints (`xp.cfg`) with the model's."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import yaml

from blazen_codec_core import UnknownSettingsNotice, WeightsUnavailable

from .specs import EncodecArchitecture

CONFIG = "xp.cfg"
FIELDS = {
    "sample_rate": "sampling_rate",
    "channels": "audio_channels",
    "encodec.sample_rate": "sampling_rate",
    "encodec.channels": "audio_channels",
    "encodec.causal": "use_causal_conv",
    "encodec.renormalize": "normalize",
    "seanet.causal": "use_causal_conv",
    "seanet.dilation_base": "dilation_growth_rate",
    "seanet.lstm": "num_lstm_layers",
    "seanet.n_filters": "num_filters",
    "seanet.n_residual_layers": "num_residual_layers",
    "seanet.norm": "norm_type",
    "seanet.pad_mode": "pad_mode",
    "seanet.ratios": "upsampling_ratios",
    "seanet.true_skip": "use_conv_shortcut",
    "seanet.decoder.trim_right_ratio": "trim_right_ratio",
}
"""This project's names by audiocraft's."""
OPPOSITE = frozenset({"seanet.true_skip"})
"""Settings with inverted meaning."""
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
MOST_REFERENCES = 8
LONGEST = 1 << 17
"""Longest settings in characters."""


class _Tree(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """YAML loader without aliases, which OmegaConf does not write, and which could expand a few lines beyond memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def check(content: Any, architecture: EncodecArchitecture, origin: str, name: str) -> None:
    """Compare a checkpoint's settings, if it has any, with the model's.

    Raises:
        WeightsUnavailable: The settings differ; the message names the first difference.
    """
    if not isinstance(content, Mapping) or CONFIG not in content:
        return
    said = settings(content[CONFIG]) if isinstance(content[CONFIG], str) else {}
    if not said.keys() & FIELDS.keys():
        warnings.warn(
            f"{origin}: no setting in its {CONFIG} could be read; all were ignored",
            UnknownSettingsNotice,
            stacklevel=1,
        )
    for theirs, ours in FIELDS.items():
        wanted = getattr(architecture, ours)
        wanted = not wanted if theirs in OPPOSITE else list(wanted) if isinstance(wanted, tuple) else wanted
        if theirs in said and said[theirs] != wanted:
            raise WeightsUnavailable(
                f"{origin} is of another model: {theirs} in its {CONFIG} is {said[theirs]!r:.100}, but {name} has {wanted!r} "
                f"({ours}). For other settings, load with architecture='from-weights' and a config.json that has them"
            )


def settings(text: str) -> dict[str, Any]:
    """Parse the settings in `FIELDS` from OmegaConf's YAML, by dotted names; empty for invalid YAML."""
    if len(text) > LONGEST:
        return {}
    try:
        tree = yaml.load(text, _Tree)  # a `SafeLoader`
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError):  # the last two for invalid dates and numbers
        return {}
    return {name: value for name in FIELDS if (value := _resolve(tree, name)) is not None}


def _resolve(tree: Any, name: str) -> Any:
    """Resolve a dotted name, following one reference; `None` if it does not exist."""
    for _ in range(MOST_REFERENCES):
        value = tree
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if not isinstance(value, str) or "${" not in value:
            return value
        reference = REFERENCE.fullmatch(value)
        if reference is None:
            return None
        name = reference[1]
    return None

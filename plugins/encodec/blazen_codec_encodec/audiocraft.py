"""Settings that audiocraft writes into its checkpoints, `xp.cfg`, held against the model's."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

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
"""Audiocraft's names of settings to ours."""
OPPOSITE = frozenset({"seanet.true_skip"})
"""Settings that are true where ours is false."""
KEY = re.compile(r"( *)([\w.]+):(?: +(.*))?")
ITEM = re.compile(r" *- +(.*)")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
MOST_REFERENCES = 8


def check(content: Any, architecture: EncodecArchitecture, origin: str, name: str) -> None:
    """Holds a checkpoint's own settings, where it has any, against those of the model.

    Raises:
        WeightsUnavailable: It is of other settings; the message names the first.
    """
    if not isinstance(content, Mapping) or CONFIG not in content:
        return
    said = settings(content[CONFIG]) if isinstance(content[CONFIG], str) else {}
    if not said.keys() & FIELDS.keys():
        warnings.warn(
            f"{origin}: none of the settings in its {CONFIG} can be read, and they were left out of account",
            UnknownSettingsNotice,
            stacklevel=1,
        )
    for theirs, ours in FIELDS.items():
        wanted = getattr(architecture, ours)
        wanted = not wanted if theirs in OPPOSITE else list(wanted) if isinstance(wanted, tuple) else wanted
        if theirs in said and said[theirs] != wanted:
            raise WeightsUnavailable(
                f"{origin} is of another model: {theirs} in its {CONFIG} is {said[theirs]!r:.100}, but {name} has {wanted!r}, "
                f"{ours}. A model of other settings loads with architecture='from-weights' and a config.json that says them"
            )


def settings(text: str) -> dict[str, Any]:
    """Values by dotted names, from as much of YAML as OmegaConf writes; what is not understood is left out."""
    found: dict[str, Any] = {}
    path: list[tuple[int, str]] = []
    for line in (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()):
        if item := ITEM.fullmatch(line):
            values = found.setdefault(".".join(name for _, name in path), [])
            if isinstance(values, list):
                values.append(_value(item[1]))
        elif key := KEY.fullmatch(line):
            indent = len(key[1])
            path = [*(step for step in path if step[0] < indent), (indent, key[2])]
            if key[3]:
                found[".".join(name for _, name in path)] = _value(key[3])
    return {name: value for name, said in found.items() if (value := _resolved(said, found)) is not None}


def _value(text: str) -> Any:
    """A scalar or a list in one line; `None` for what is neither."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false", "null") else text)
    except (ValueError, RecursionError):
        pass
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    return None if text[0] in "[{|>&*!" else text.strip("'\"")


def _resolved(value: Any, found: Mapping[str, Any]) -> Any:
    """What a reference to another setting stands for; `None` where that is not there."""
    for _ in range(MOST_REFERENCES):
        if not isinstance(value, str) or "${" not in value:
            return value
        reference = REFERENCE.fullmatch(value)
        value = found.get(reference[1]) if reference else None
    return None

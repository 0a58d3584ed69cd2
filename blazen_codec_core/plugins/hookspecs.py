"""Hooks that a plugin may implement. Each hook is optional; the docstrings are the contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from ..specs import CodecSpec

if TYPE_CHECKING:
    from ..tokens.formats import TokenFormat
    from ..tokens.layouts import TokenLayout

PROJECT = "blazen_codec"
"""The entry-point group, and the name of the plugin manager."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's implementation of a hook."""


@hookspec
def blazen_codec_specs() -> Iterable[CodecSpec]:  # type: ignore[empty-body]
    """Return the specs of the plugin's models. Called whenever codecs are listed, so it must be fast and not import torch."""


@hookspec
def blazen_codec_formats() -> Iterable[TokenFormat]:  # type: ignore[empty-body]
    """Return the token file formats of the plugin."""


@hookspec
def blazen_codec_layouts() -> Iterable[TokenLayout]:  # type: ignore[empty-body]
    """Return the token layouts of language models for the plugin's codecs."""

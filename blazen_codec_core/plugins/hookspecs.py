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
    """The models this plugin offers. Called whenever codecs are listed, so it must be quick and import no torch."""


@hookspec
def blazen_codec_formats() -> Iterable[TokenFormat]:  # type: ignore[empty-body]
    """The token files this plugin reads and writes."""


@hookspec
def blazen_codec_layouts() -> Iterable[TokenLayout]:  # type: ignore[empty-body]
    """The token orders that language models use with this plugin's codecs."""

"""Hooks that this plugin implements. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from blazen_codec_core import CodecSpec, hookimpl

from .specs import SPECS

if TYPE_CHECKING:
    from blazen_codec_core import TokenLayout


@hookimpl
def blazen_codec_specs() -> Iterable[CodecSpec]:
    return SPECS


@hookimpl
def blazen_codec_layouts() -> Iterable[TokenLayout]:
    from .layouts import LAYOUTS

    return LAYOUTS

"""Hooks that this plugin implements. The entry point in `pyproject.toml` names this module."""

from collections.abc import Iterable

from blazen_codec_core import CodecSpec, hookimpl

from .specs import SPECS


@hookimpl
def blazen_codec_specs() -> Iterable[CodecSpec]:
    return SPECS

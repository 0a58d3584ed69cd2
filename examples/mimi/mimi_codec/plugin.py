"""Hooks that this plugin implements."""

from collections.abc import Iterable

from blazen_codec_core import CodecSpec, hookimpl

from .specs import SPEC


@hookimpl
def blazen_codec_specs() -> Iterable[CodecSpec]:
    return [SPEC]

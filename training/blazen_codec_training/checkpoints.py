"""Checkpoints of a run: the state of its parts and the number of steps, replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from blazen_codec_core.errors import CorruptFile, reason
from blazen_codec_core.files import replacing


class Part(Protocol):
    """Part of a run that has a state."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


def save(path: Path, parts: Mapping[str, Part], step: int, fabric: Fabric) -> None:
    """Write a checkpoint after `step` steps; the first process writes it."""
    if fabric.is_global_zero:
        state = {name: part.state_dict() for name, part in parts.items()}
        with replacing(path) as temporary:
            torch.save({**state, "step": step}, temporary)
    fabric.barrier()


def load(path: Path, parts: Mapping[str, Part], fabric: Fabric) -> int:
    """Restore the parts; return the number of steps.

    Raises:
        CorruptFile: The file is damaged, or of a run with other settings.
    """
    try:
        saved = torch.load(path, map_location=fabric.device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return int(saved["step"])
    except Exception as error:  # PyTorch raises many kinds for damaged files
        raise CorruptFile(f"{path} cannot be resumed from: {reason(error)}. Remove it to start again") from error

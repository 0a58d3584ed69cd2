"""Files of weights in the layout that a model's publisher uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...errors import InvalidInput
from ...files import make_folder, replacing

SAFETENSORS = ".safetensors"
SUFFIXES = (SAFETENSORS, ".pt", ".pth", ".th", ".bin", ".ckpt")
"""Suffixes of files; a path without one is a folder."""
CONFIG = "config.json"


def write(path: Path, name: str, state: Mapping[str, Tensor], content: Any, config: Mapping[str, Any] | None) -> Path:
    """Write weights to a file or into a folder, and return the file. Unfinished files never take a final name.

    Args:
        name: Name of the file in a folder.
        state: State dict, for safetensors.
        content: Content in PyTorch's format.
        config: Settings for a folder, if they are not in the file.

    Raises:
        InvalidInput: The file cannot be written; `DiskTrouble` if no other file could be either.
    """
    if path.is_dir() or not path.suffix:
        make_folder(path)
        if config is not None:
            with replacing(path / CONFIG) as temporary:
                temporary.write_text(json.dumps(config, indent=2) + "\n", "utf-8", newline="\n")
        path = path / name
    if path.suffix not in SUFFIXES:
        raise InvalidInput(f"{path} has suffix {path.suffix!r}; weights are written to {', '.join(SUFFIXES)}, or into a folder")
    with replacing(path) as temporary:
        if path.suffix == SAFETENSORS:
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, temporary)
        else:
            torch.save(_on_host(content), temporary)
    return path


def _on_host(content: Any) -> Any:
    """Copy of nested dicts with all tensors on the host."""
    if isinstance(content, Tensor):
        return content.detach().cpu().clone()
    if isinstance(content, Mapping):
        return {name: _on_host(value) for name, value in content.items()}
    return content

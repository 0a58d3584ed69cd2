"""Lightning Fabric for the devices, processes and precision of a run."""

from __future__ import annotations

import logging
from typing import Any

from lightning_fabric import Fabric

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)


def new_fabric(device: str = "cpu", processes: int = 1, precision: Any = "32-true") -> Fabric:
    """Return Fabric for a device.

    Args:
        device: `auto` or a PyTorch device such as `cpu`, `cuda`, `cuda:1` or `mps`.
        processes: Processes that share each batch, each on a device of its own, or all on the CPU.
        precision: Precision of the codec as Fabric names it, such as `bf16-mixed`.
    """
    kind, _, index = device.partition(":")
    devices: Any = [int(index)] if index else processes
    strategy = "ddp_spawn" if processes > 1 else "auto"
    return Fabric(accelerator=kind, devices=devices, strategy=strategy, precision=precision)

"""Graphs that compute in int8, by ONNX Runtime's dynamic quantization: each call finds the ranges of its activations."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_ir import Model, Node

KINDS = ("Conv", "Gemm", "LSTM", "MatMul")
"""Operators that are quantized."""
LEAST_WEIGHTS = 1 << 12
"""Layers of fewer weights stay in float32: they are few bytes, and cost most of the quality and of the time."""
MOST_CONSTANTS = 1 << 30
"""Bound of the elements of a weight that is computed from others while a graph is exported, such as a transposed one."""
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Metadata that says that constants are folded; otherwise the quantizer asks for it on the root logger."""


def in_int8(model: Model) -> Model:
    """Copy of a graph in which large layers multiply int8 by int8."""
    import onnx_ir
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxscript import optimizer

    with unchanged_root_logger(), TemporaryDirectory() as folder:
        optimizer.fold_constants(model, input_size_limit=MOST_CONSTANTS, output_size_limit=MOST_CONSTANTS)
        model.metadata_props.update(PREPARED)
        small = [node.name for node in model.graph if node.op_type in KINDS and count_weights(node) < LEAST_WEIGHTS]
        path = Path(folder, "graph.onnx")
        quantize_dynamic(
            onnx_ir.to_proto(model),
            path,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=small,
        )
        return onnx_ir.load(path)


def count_weights(node: Node) -> int:
    """Number of constant weights of a layer."""
    weight = node.inputs[1]
    constant = weight.const_value if weight is not None else None
    return math.prod(constant.shape.numpy()) if constant is not None else 0


@contextmanager
def unchanged_root_logger() -> Iterator[None]:
    """Context in which functions such as `logging.info` do not set up the root logger, which is the host's."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)

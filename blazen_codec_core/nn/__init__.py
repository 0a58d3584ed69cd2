"""PyTorch layers with explicit stream state, for authors of codec plugins."""

from .activation import Snake, Tanh
from .attention import LocalAttention
from .conv import Conv1d, ConvTranspose1d
from .layer import Chain, Layer, NoiseSource, Residual, Seeded, State, StreamSetup, reset_parameters
from .network import CodecNetwork
from .noise import CounterNoise, NoiseBlock
from .quantize import Quantized, ResidualVectorQuantizer, VectorQuantizer

__all__ = [
    "Chain",
    "CodecNetwork",
    "Conv1d",
    "ConvTranspose1d",
    "CounterNoise",
    "Layer",
    "LocalAttention",
    "NoiseBlock",
    "NoiseSource",
    "Quantized",
    "Residual",
    "ResidualVectorQuantizer",
    "Seeded",
    "Snake",
    "State",
    "StreamSetup",
    "Tanh",
    "VectorQuantizer",
    "reset_parameters",
]

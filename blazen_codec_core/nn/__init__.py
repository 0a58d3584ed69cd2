"""PyTorch layers with explicit stream state, for authors of codec plugins."""

from .activation import ELU, Snake, Tanh
from .attention import LocalAttention
from .conv import Conv1d, Convolving, ConvTranspose1d
from .layer import Chain, InTiles, Layer, NoiseSource, Pointwise, Residual, Seeded, State, StreamSetup, prepare, reset_parameters
from .network import CodecNetwork
from .noise import CounterNoise, NoiseBlock
from .norm import TimeNorm
from .padding import Crop, EdgePadding, ReflectPadding, ZeroPadding, same_padding
from .quantize import FactorizedQuantizer, Quantized, ResidualVectorQuantizer, VectorQuantizer
from .recurrent import LSTM

__all__ = [
    "ELU",
    "LSTM",
    "Chain",
    "CodecNetwork",
    "Conv1d",
    "ConvTranspose1d",
    "Convolving",
    "CounterNoise",
    "Crop",
    "EdgePadding",
    "FactorizedQuantizer",
    "InTiles",
    "Layer",
    "LocalAttention",
    "NoiseBlock",
    "NoiseSource",
    "Pointwise",
    "Quantized",
    "ReflectPadding",
    "Residual",
    "ResidualVectorQuantizer",
    "Seeded",
    "Snake",
    "State",
    "StreamSetup",
    "Tanh",
    "TimeNorm",
    "VectorQuantizer",
    "ZeroPadding",
    "prepare",
    "reset_parameters",
    "same_padding",
]

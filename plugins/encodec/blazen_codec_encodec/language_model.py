"""The authors' language model over tokens, which gives the probabilities for entropy coding.

Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.3.

Probabilities are rounded to multiples of 2**-24, and decoding fails if they differ from the encoder's. Therefore the arithmetic
uses the authors' operations in the same order, bit-exactly. Theirs depends on the number of threads; this module always uses one
thread. Results may still differ between processors and PyTorch releases.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blazen_codec_core import LoadOptions
from blazen_codec_core.nn.checkpoints import state_dicts
from blazen_codec_core.nn.kernels.thread_counts import one_thread
from blazen_codec_core.torch_backend.guard import inference_guard
from blazen_codec_core.weights import RandomWeights, locate_file

from .specs import LanguageModelSpec

CHANNELS, LAYERS, HEADS, HIDDEN = 200, 5, 8, 800
LONGEST_PERIOD = 10_000.0


class Block(nn.Module):
    """Transformer layer: causal attention and a feed-forward layer of width `HIDDEN`, with residuals and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True, dtype=torch.float32)
        self.linear1 = nn.Linear(CHANNELS, HIDDEN, dtype=torch.float32)
        self.linear2 = nn.Linear(HIDDEN, CHANNELS, dtype=torch.float32)
        self.norm1, self.norm2 = (nn.LayerNorm(CHANNELS, dtype=torch.float32) for _ in range(2))

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """Run one step `(1, 1, channels)` after the steps `past` `(1, steps, channels)`."""
        seen = torch.cat([past, x], dim=1)
        hidden = torch.zeros(1, seen.shape[1], dtype=torch.bool, device=x.device)  # masks nothing, but selects the kernel
        x = self.norm1(x + self.self_attn(x, seen, seen, attn_mask=hidden, need_weights=False)[0])
        y: Tensor = self.norm2(x + self.linear2(F.gelu(self.linear1(x))))
        return y


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(CHANNELS, dtype=torch.float32)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))


class LanguageModel(nn.Module):
    """Language model for the codes of the next frame, in all codebooks, given the previous frames."""

    def __init__(self, spec: LanguageModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.transformer = Transformer()
        self.emb = nn.ModuleList(nn.Embedding(spec.entries + 1, CHANNELS, dtype=torch.float32) for _ in range(spec.codebooks))
        self.linears = nn.ModuleList(nn.Linear(CHANNELS, spec.entries, dtype=torch.float32) for _ in range(spec.codebooks))


class Predictor:
    """Predictor that steps through the frames of one segment.

    Args:
        threads: Use the process's threads instead of one, like the authors' package.
    """

    def __init__(self, model: LanguageModel, *, threads: bool = False) -> None:
        self._model = model
        self._alone = nullcontext if threads else one_thread
        self._past = [torch.zeros(1, 1, CHANNELS, dtype=torch.float32, device="cpu") for _ in range(LAYERS)]
        self._step = 0

    def next(self, before: list[int] | None, codebooks: int) -> Tensor:
        """Predict the probabilities `(entries, codebooks)` of the next frame.

        Args:
            before: Codes of the previous frame; `None` for the first frame.
        """
        model, context = self._model, self._model.spec.context
        ids = [0] * codebooks if before is None else [1 + code for code in before]
        with inference_guard(), self._alone():
            x = sum(model.emb[k](torch.tensor([[id]])) for k, id in enumerate(ids))
            x = model.transformer.norm_in(x) + _position(self._step)
            for number, layer in enumerate(model.transformer.layers):
                past = self._past[number]
                self._past[number] = torch.cat([past, x], dim=1)[:, -context:]
                x = layer(x, past)
            logits = torch.stack([model.linears[k](x) for k in range(codebooks)], dim=1).permute(0, 3, 1, 2)
            self._step += 1
            return torch.softmax(logits, dim=1)[0, :, :, 0]


def _position(step: int) -> Tensor:
    """Compute the sinusoidal embedding of a position, cosines first."""
    place = torch.tensor([[[step]]])
    index = torch.arange(CHANNELS // 2, dtype=torch.float32).view(1, 1, -1)
    phase = place / (LONGEST_PERIOD ** (index / (CHANNELS // 2 - 1)))
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)


def draw(model: nn.Module, generator: torch.Generator) -> None:
    """Fill a model with PyTorch's default random weights, without the global generator, which threads share."""

    def fill(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(module.in_features)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight, generator=generator)
            nn.init.zeros_(module.in_proj_bias)
            nn.init.zeros_(module.out_proj.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()

    model.apply(fill)  # children first, as they are made


def load(spec: LanguageModelSpec, name: str, weights: str | None, loading: LoadOptions) -> LanguageModel:
    """Load the language model of a codec.

    Args:
        name: Name of the codec.
        weights: A file or `random:SEED`; the published weights if `None`.
        loading: Options for offline use and the download folder.

    Raises:
        WeightsUnavailable: The weights cannot be found or downloaded, or have another model.
    """
    found = locate_file((spec.weights,), f"the language model of {name}", loading.model_copy(update={"weights": weights}))
    with inference_guard(inference=False):
        with torch.device("meta"):  # draws no random numbers
            model = LanguageModel(spec).eval().requires_grad_(False)
        model.to_empty(device="cpu")
        if isinstance(found, RandomWeights):
            draw(model, torch.Generator().manual_seed(found.seed))
            return model
    state = state_dicts.tensors(state_dicts.read(found.path), str(found.path))
    state_dicts.load(model, state, str(found.path))
    return model

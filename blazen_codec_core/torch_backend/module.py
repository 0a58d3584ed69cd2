"""A codec as a PyTorch module: tensors in and out on its device, latents, and gradients."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import NoiseSource, StreamSetup
from ..nn.layers.noise import CounterNoise
from ..specs import CodecSpec
from ..validation import is_int
from .guard import network_guard
from .tensor_checks import Lengths, check_codes, check_finite, check_lengths, check_shape
from .tensor_runs import TensorRunner
from .tensor_tokens import TensorTokens, frames_of, longest_signal

if TYPE_CHECKING:
    from .backend import Loaded, TorchCodecBackend


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Result of `CodecModule.quantize`.

    Attributes:
        codes: Indices of each codebook in int64, `(batch, frames / stride)`.
        latents: Sum of the entries, `(batch, latent, frames)`; its gradient passes straight through to the input.
        commitment_loss: Mean squared distance of the input's projections from their entries, with gradients to the input.
        codebook_loss: The same distance, with gradients to the entries.
    """

    codes: tuple[Tensor, ...]
    latents: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor

    @property
    def loss(self) -> Tensor:
        """`commitment_loss`."""
        return self.commitment_loss


@dataclasses.dataclass(frozen=True)
class Reconstruction(Quantization):
    """Result of `CodecModule.forward`.

    Attributes:
        audio: `(batch, channels, samples)`, as long as the input.
    """

    audio: Tensor


class TrackedParameter(nn.Parameter):
    """Parameter that counts accesses to `data`, through which values change without PyTorch's version counter."""

    accesses = 0

    @property
    def data(self) -> Tensor:
        self.accesses += 1
        values: Tensor = nn.Parameter.data.__get__(self)  # type: ignore[attr-defined]
        return values

    @data.setter
    def data(self, values: Tensor) -> None:
        self.accesses += 1
        nn.Parameter.data.__set__(self, values)  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> TrackedParameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.detach().clone(), self.requires_grad)
        return memo[id(self)]  # type: ignore[no-any-return]

    @property
    def version(self) -> tuple[int, int]:
        """Value that changes when the parameter may have been written to."""
        return self._version, self.accesses


class Snapshot(NamedTuple):
    """Parameters at the time when kernels were prepared for them."""

    parameters: tuple[nn.Parameter, ...]
    versions: tuple[Any, ...]

    @classmethod
    def of(cls, network: nn.Module) -> Snapshot:
        parameters = tuple(network.parameters())
        return cls(parameters, tuple(map(_version, parameters)))

    def equals(self, other: Snapshot) -> bool:
        same = len(self.parameters) == len(other.parameters) and all(map(operator.is_, self.parameters, other.parameters))
        return same and self.versions == other.versions


def _version(parameter: nn.Parameter) -> Any:
    return parameter.version if isinstance(parameter, TrackedParameter) else parameter._version


class CodecModule(nn.Module):
    """A codec as a module. Signals are `(batch, channels, time)`, in tensors on its device.

    Its weights are its own copy: the provider that it comes from keeps its weights, whatever is trained here. It comes in `eval`
    mode, with parameters that require gradients.

    - Calls that record gradients run PyTorch's operations on whole signals. A frozen codec, after `requires_grad_(False)`, passes
      on gradients to its input.
    - In `eval` mode, calls that record none run prepared kernels in tiles: their results are the provider's, to the bit on a CPU.
      After weights were written to, they run PyTorch's operations until the next `eval()` or `prepare()`.
    - In `train` mode all calls run PyTorch's operations, and the noise of decoders is drawn from PyTorch's generator.

    Attributes:
        network: Encoder, quantizer and decoder, whose signals are `(batch, time, channels)`.
        spec: Description of the model.
    """

    network: CodecNetwork

    def __init__(self, backend: TorchCodecBackend, network: CodecNetwork, loaded: Loaded) -> None:
        super().__init__()
        self.spec: CodecSpec = backend.spec
        self.network = network
        for module in network.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    setattr(module, name, TrackedParameter(parameter.detach(), requires_grad=True))
        self._base, self._weights = backend.with_network(loaded), cast(str | None, loaded.weights)
        self._prepared, self._snapshot = self._base, Snapshot.of(network)
        self._may_prepare = False
        super().train(False)

    # training and inference

    def train(self, mode: bool = True) -> CodecModule:
        """Choose between `train` and `eval` mode; `eval` lets the next call prepare kernels for weights that have changed."""
        self._may_prepare = not mode
        super().train(mode)
        return self

    def prepare(self) -> CodecModule:
        """Prepare kernels for the current weights, and switch to `eval` mode."""
        self.eval()
        self._prepared_backend()
        return self

    def _prepared_backend(self) -> TorchCodecBackend | None:
        """Backend with kernels for the current weights; `None` if there are none."""
        now = Snapshot.of(self.network)
        if now.equals(self._snapshot):
            return self._prepared
        if not self._may_prepare or (prepared := self._base.with_weights_of(self.network)) is None:
            return None
        self._prepared, self._weights = prepared, None
        self._snapshot, self._may_prepare = Snapshot.of(self.network), False
        return self._prepared

    def _backend_for(self, *inputs: Tensor | None) -> TorchCodecBackend | None:
        """Backend whose prepared kernels run a call with these inputs; `None` if PyTorch's operations do."""
        if self.training:
            return None
        tensors = [x for x in inputs if x is not None]
        if torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, *self.network.parameters())):
            return None
        return self._prepared_backend()

    @property
    def _weight(self) -> nn.Parameter:
        """Any weight, except those of the quantizer."""
        return next(chain(self.network.decoder.parameters(), self.network.encoder.parameters()))

    @property
    def _device(self) -> torch.device:
        return self._weight.device

    @property
    def _dtype(self) -> torch.dtype:
        return self._weight.dtype

    # signals

    def encode_latents(self, x: Tensor, lengths: Lengths = None) -> Tensor:
        """Encode audio to latents, before the quantizer.

        Args:
            x: Audio `(batch, channels, samples)` in floating point, nominally -1 … 1.
            lengths: Samples of each signal; what follows in its row is ignored.

        Returns:
            `(batch, latent, frames)`, with zeros after the frames of shorter signals. Where the codec works in segments, the
            frames of all segments follow one another.

        Raises:
            InvalidInput: The tensor is no such audio, or the lengths do not fit it.
            InferenceError: PyTorch raised an error.
        """
        signal, counts = self._check_audio(x, lengths)
        return self._runner(self._backend_for(x), len(x)).encode_latents(signal, counts).transpose(1, 2)

    def scales(self, x: Tensor, lengths: Lengths = None) -> Tensor | None:
        """Scales `(batch, segments)` that segments of audio are divided by; `None` for codecs that do not normalize segments.

        Args:
            x: As for `encode_latents`.
            lengths: As for `encode_latents`.

        Raises:
            InvalidInput: As for `encode_latents`.
        """
        signal, counts = self._check_audio(x, lengths)
        return self._runner(None, len(x)).scales(signal, counts)

    def quantize(self, z: Tensor, num_codebooks: int | Tensor | None = None) -> Quantization:
        """Quantize latents.

        Args:
            z: `(batch, latent, frames)`, with whole blocks of `spec.block_frames` frames if codebooks have several rates.
            num_codebooks: Number of codebooks, or the number for each signal, `(batch,)` (quantizer dropout); all by default.

        Raises:
            InvalidInput: The latents or the number do not fit the quantizer.
        """
        self.spec.check_has_tokens()
        self._check_latents(z)
        quantizer = self.network.quantizer
        if z.shape[2] % quantizer.group:
            raise InvalidInput(f"latents have {z.shape[2]} frames; {self.spec.name} quantizes multiples of {quantizer.group}")
        used = self._check_codebooks(num_codebooks, z)
        backend = self._backend_for(z)
        with _without_autocast(z.device), network_guard(z.device) if backend else nullcontext():
            own = backend.loaded().network.quantizer if backend else quantizer
            q = own(z.transpose(1, 2).to(own.dtype), used)
        latents = q.z.transpose(1, 2).to(z.dtype)
        parts = tuple(q.indices), latents, q.commitment, q.codebook
        return Quantization(*parts) if backend is None else Quantization(tuple(map(_own, q.indices)), *map(_own, parts[1:]))

    def embed(self, codes: Sequence[Tensor]) -> Tensor:
        """Sum the entries of codes to latents `(batch, latent, frames)`, with gradients to the codebooks.

        Args:
            codes: Indices of all or the first codebooks, `(batch, frames / stride)` each.

        Raises:
            InvalidTokens: The codes do not fit the codebooks.
        """
        self.spec.check_has_tokens()
        indices = check_codes(self.network.quantizer, self.spec, codes, self._device)
        with _without_autocast(self._device):
            z = self.network.quantizer.decode(indices)
        return z.transpose(1, 2).to(self._dtype)

    @property
    def codebooks(self) -> list[Tensor]:
        """Entries of each codebook as latents, `(entries, latent)`, with gradients; `embed` adds those of all codebooks."""
        self.spec.check_has_tokens()
        with _without_autocast(self._device):
            return [vectors.to(self._dtype) for vectors in self.network.quantizer.vectors]

    def decode_latents(self, z: Tensor, lengths: Lengths = None, scales: Tensor | None = None) -> Tensor:
        """Decode latents, quantized or not, to audio.

        Args:
            z: `(batch, latent, frames)`.
            lengths: Samples of each signal; all samples of the frames by default.
            scales: From `scales`; by default segments are not scaled.

        Returns:
            `(batch, channels, samples)`, with zeros after shorter signals.

        Raises:
            InvalidInput: The latents, the lengths or the scales do not fit the model.
            InferenceError: PyTorch raised an error.
        """
        self._check_latents(z)
        longest = longest_signal(self.spec, z.shape[2])
        counts = check_lengths(lengths, len(z), longest)
        for samples in set(counts):
            if frames_of(self.spec, samples) > z.shape[2]:
                raise InvalidInput(f"a length is {samples} samples, which need more than the {z.shape[2]} frames of the latents")
        if scales is not None and not (self.spec.segment and self.spec.segment.normalized):
            raise InvalidInput(f"scales were given, but {self.spec.name} does not normalize segments; leave them out")
        runner = self._runner(self._backend_for(z, scales), len(z))
        return runner.decode_latents(z.transpose(1, 2), counts, scales).transpose(1, 2)

    def encode(self, x: Tensor, lengths: Lengths = None, num_codebooks: int | None = None) -> TensorTokens:
        """Encode audio to codes, on the device.

        Args:
            x: As for `encode_latents`.
            lengths: As for `encode_latents`.
            num_codebooks: Number of codebooks, one of `spec.usable_codebooks`; the default if `None`.

        Raises:
            InvalidInput: As for `encode_latents`, or the audio holds NaN or infinite samples, or the number is not usable.
            InferenceError: PyTorch raised an error.
        """
        signal, counts = self._check_audio(x, lengths)
        count = self.spec.codebooks_for(None, num_codebooks)
        check_finite(x)
        with torch.no_grad():
            backend = self._backend_for(x)
            runner = self._runner(backend, len(x))
            codes = [_own(code).long() for code in runner.encode(signal.detach(), counts, count)]
            scales = runner.scales(signal.detach(), counts)
        return TensorTokens(self.spec, tuple(codes), tuple(counts), scales, weights=self._weights if backend else None)

    def decode(self, codes: Sequence[Tensor], lengths: Lengths = None) -> Tensor:
        """Decode codes to audio `(batch, channels, samples)`.

        Args:
            codes: From `encode`, or indices of all or the first codebooks, `(batch, frames / stride)` each.
            lengths: Samples of each signal; those of the codes by default.

        Raises:
            InvalidTokens: The codes do not fit the codebooks.
            InvalidInput: The lengths do not fit the codes.
            InferenceError: PyTorch raised an error.
        """
        own = codes if isinstance(codes, TensorTokens) else None
        counts = own.lengths if own and lengths is None else lengths
        return self.decode_latents(self.embed(codes), counts, own.scales if own else None)

    def forward(self, x: Tensor, lengths: Lengths = None, num_codebooks: int | Tensor | None = None) -> Reconstruction:
        """Encode, quantize and decode, with gradients straight through the quantizer. Continuous codecs do not quantize.

        Args:
            x: As for `encode_latents`.
            lengths: As for `encode_latents`.
            num_codebooks: As for `quantize`.

        Raises:
            InvalidInput: As for these methods.
            InferenceError: PyTorch raised an error.
        """
        _, counts = self._check_audio(x, lengths)
        z = self.encode_latents(x, counts)
        q = Quantization((), z, z.new_zeros(()), z.new_zeros(())) if self.spec.is_continuous else self.quantize(z, num_codebooks)
        audio = self.decode_latents(q.latents, counts, self.scales(x, counts))
        return Reconstruction(q.codes, q.latents, q.commitment_loss, q.codebook_loss, audio)

    # weights

    def save_weights(self, path: str | PathLike[str]) -> Path:
        """Write the weights in the published layout, which `load(name, weights=path)` and the authors' package read.

        Args:
            path: File, whose suffix chooses safetensors or PyTorch's format; or a folder, which gets the settings too.

        Returns:
            The file.

        Raises:
            NotYetImplemented: The plugin cannot write weights.
            DiskTrouble: The file cannot be written.
        """
        return self._base.save_weights(self.network, Path(path))

    def __deepcopy__(self, memo: dict[int, Any]) -> CodecModule:
        """Copy with weights of its own, whose kernels are prepared when they are needed."""
        made = type(self)(self._base, copy.deepcopy(self.network, memo), self._base.loaded())
        for one, other in zip(made.parameters(), self.parameters(), strict=True):
            one.requires_grad_(other.requires_grad)
        is_current = Snapshot.of(self.network).equals(self._snapshot)
        made._prepared, made._weights = self._prepared, self._weights
        made._snapshot = Snapshot.of(made.network) if is_current else Snapshot((), ())
        made._may_prepare = self._may_prepare
        nn.Module.train(made, self.training)
        memo[id(self)] = made
        return made

    # checks

    def _check_audio(self, x: Tensor, lengths: Lengths) -> tuple[Tensor, tuple[int, ...]]:
        """Audio as `(batch, samples, channels)` in float32 or float64, and the length of each signal."""
        check_shape("signals", x, self.spec.channels, self._device, "samples")
        wide = torch.float64 if self._dtype == torch.float64 else torch.float32
        return x.to(wide).transpose(1, 2), check_lengths(lengths, len(x), x.shape[2])

    def _check_latents(self, z: Tensor) -> None:
        channels = self.spec.latent_channels or self.network.quantizer.channels
        check_shape("latents", z, channels, self._device, "frames")

    def _check_codebooks(self, number: int | Tensor | None, z: Tensor) -> int | Tensor | None:
        most = len(self.network.quantizer)
        if number is None or (is_int(number) and 1 <= number <= most):
            return number
        if isinstance(number, Tensor) and number.shape == z.shape[:1] and not number.is_floating_point():
            if bool(((number < 1) | (number > most)).any()):
                raise InvalidInput(f"num_codebooks is {number.tolist()}; each must be 1 to {most}")
            return number.to(z.device)
        raise InvalidInput(f"num_codebooks is {number!r}; expected 1 to {most}, or a tensor of {len(z)} such numbers")

    # runs

    def _runner(self, backend: TorchCodecBackend | None, rows: int) -> TensorRunner:
        """Runner with prepared kernels, or with PyTorch's operations."""
        if backend is None:
            return TensorRunner(self.spec, self.network, self._setup, lambda: nullcontext(1))
        return backend.runner(backend.loaded().network)

    def _setup(self, rows: int) -> StreamSetup:
        return StreamSetup(rows, self._device, self._dtype, self._noise(rows), dynamic_length=False)

    def _noise(self, rows: int) -> NoiseSource | None:
        options = self._base.options
        if not options.noise:
            return None
        if not self.training:
            return CounterNoise(self._base.setup(1).noise.seed, self._device, self._dtype)  # type: ignore[union-attr]
        return lambda layer, position, count: torch.randn(rows, count, 1, device=self._device, dtype=self._dtype)


def _own(x: Tensor) -> Tensor:
    """A tensor that autograd may use, even if it was made in inference mode."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


@contextmanager
def _without_autocast(device: torch.device) -> Iterator[None]:
    """Context for quantizers, whose neighbouring entries would coincide in half precision."""
    with torch.autocast(device.type, enabled=False):
        yield

"""Codecs on other engines with the same weights, as callables from audio to codes and from codes to audio.

Peers run under their best conditions: folded weight norm, graphs of fixed shape, no batching or copying around them.
"""

from __future__ import annotations

import atexit
import copy
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

import blazen_codec_core as bc
from blazen_codec_core.torch_backend.upstream import stand_in

Array = NDArray[Any]
TRAINING = {"cluster_size", "embed_avg", "inited"}
"""Buffers of codebooks for training only."""


STEPS = (1, 4, 8)
"""Frames of a step of decoding, for codecs of language models."""
CONTEXT = 25
"""Frames of context that Qwen3-TTS's authors decode anew for each window."""
MOST_TIES = 0.02
"""Fraction of tokens that may differ between engines; a broken tie changes all later codebooks."""


@dataclass(frozen=True)
class Engine:
    """An engine prepared for one recording of a given length, whole and, if it streams exactly, frame by frame.

    Attributes:
        decode_steps: Decoding in steps, by the number of frames of a step; peers may decode a window for each.
    """

    name: str
    encode: Callable[[], Any] | None
    decode: Callable[[], Any]
    encode_stream: Callable[[], Any] | None = None
    decode_stream: Callable[[], Any] | None = None
    decode_steps: Mapping[int, Callable[[], Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """Input of every engine: both codecs, the audio, and its tokens."""

    ours: bc.DynCodecProvider
    theirs: bc.DynCodecProvider
    pcm: Array
    tokens: bc.CodecTokens

    @property
    def model(self) -> Any:
        """The authors' network."""
        return self.theirs.backend.loaded().network

    @property
    def bandwidth(self) -> float:
        """Bandwidth in kbps; 0 if the authors' model has no setting for it."""
        spec: Any = self.ours.spec
        if spec.family != "encodec":
            return 0.0
        return float(spec.architecture.target_bandwidths[spec.usable_codebooks.index(self.tokens.num_codebooks)])

    @property
    def segments(self) -> list[Array]:
        """The audio in segments; one padded segment for models without segments."""
        segment = self.ours.spec.segment
        if not segment:
            block = self.ours.spec.block_frames * self.ours.spec.hop_length
            return [np.pad(self.pcm, ((0, 0), (0, -self.pcm.shape[1] % block)))[None]]
        starts = range(0, self.pcm.shape[1], segment.stride)
        return [self.pcm[None, :, start : start + segment.length] for start in starts]

    @property
    def frames(self) -> list[Array]:
        """The padded audio in blocks of frames, `(channels, samples)`, for models without segments."""
        block = self.ours.spec.block_frames * self.ours.spec.hop_length
        padded = np.pad(self.pcm, ((0, 0), (0, -self.pcm.shape[1] % block)))
        return [np.ascontiguousarray(padded[:, start : start + block]) for start in range(0, padded.shape[1], block)]

    @property
    def codes(self) -> list[list[Array]]:
        """Codes of each segment, `(1, frames)` per codebook."""
        pieces, start = [], 0
        lengths = self.tokens.segment_frames if self.ours.spec.segment else [self.tokens.frames]
        for frames in lengths:
            pieces.append(
                [
                    code[:, start // stride : (start + frames) // stride].astype(np.int64)
                    for code, stride in zip(self.tokens.codes, self.tokens.strides, strict=True)
                ]
            )
            start += frames
        return pieces


def engines(job: Job, missing: Callable[[str, Exception], None]) -> Iterator[Engine]:
    """Yield this project's engine, then all available peers; call `missing` for the others."""
    ours, theirs = job.ours, job.theirs
    yield Engine(
        "ours",
        lambda: ours.encode(job.pcm, ours.sample_rate),
        lambda: ours.decode(job.tokens),
        lambda: push_all(ours.encoder_session(job.pcm.shape[0], latency="lowest"), job.frames),
        lambda: push_all(ours.decoder_session(latency="lowest"), job.tokens.parts(ours.spec.block_frames)),
        {frames: session_steps(job, frames) for frames in STEPS} if ours.spec.family == "qwen3tts" else {},
    )
    streams = moshi_streams(job) if ours.spec.family == "mimi" else (None, None)
    steps = {frames: window_steps(job, frames) for frames in STEPS} if ours.spec.family == "qwen3tts" else {}
    yield Engine("authors", lambda: theirs.encode(job.pcm, ours.sample_rate), lambda: theirs.decode(job.tokens), *streams, steps)
    if ours.spec.family == "qwen3tts":
        windows = job.model.decoder.chunked_decode
        codes = torch.from_numpy(np.stack(job.codes[0], axis=1))
        yield Engine("authors_windows", None, lambda: _inference(lambda: windows(codes)))
    for make in (exported, transformers, rustymimi, onnxruntime, openvino):
        try:
            engine = make(job)
        except Exception as error:  # peers may fail in any way during import or export; measure the others
            missing(make.__name__, error)
        else:
            if engine:
                yield engine


def push_all(session: Any, pieces: Iterable[Any]) -> None:
    """Push all pieces to a session, and finish it."""
    for piece in pieces:
        session.push(piece)
    session.finish()


def session_steps(job: Job, frames: int) -> Callable[[], None]:
    """This project's decoder session in steps of some frames."""
    return lambda: push_all(job.ours.decoder_session(tile_frames=frames), job.tokens.parts(frames))


def window_steps(job: Job, frames: int) -> Callable[[], None]:
    """The decoder of Qwen3-TTS's authors for each step on a window of its frames and `CONTEXT` before, as servers run it."""
    decoder, codes = job.model.decoder, torch.from_numpy(np.stack(job.codes[0], axis=1))

    def decode() -> None:
        with torch.inference_mode():
            for start in range(0, codes.shape[2], frames):
                decoder(codes[:, :, max(0, start - CONTEXT) : start + frames])

    return decode


def moshi_streams(job: Job) -> tuple[Callable[[], None], Callable[[], None]]:
    """Mimi's authors' model, frame by frame."""
    from moshi.utils.compile import no_compile

    model, codes = job.model, torch.from_numpy(np.stack(job.codes[0], axis=1))
    frames = [torch.from_numpy(frame)[None] for frame in job.frames]

    def encode() -> None:
        with torch.inference_mode(), no_compile(), model.streaming(1):
            model.set_num_codebooks(codes.shape[1])
            for frame in frames:
                model.encode(frame)

    def decode() -> None:
        with torch.inference_mode(), no_compile(), model.streaming(1):
            for frame in codes.split(1, dim=2):
                model.decode(frame)

    return encode, decode


def fold_weight_norm(model: nn.Module) -> Any:
    """Return a copy of a model without weight normalization; its weights are bit-exact."""
    for module in model.modules():
        if hasattr(module, "weight_g"):  # a tensor that autograd computed cannot be deep-copied
            module.weight = module.weight.detach()
    twin: Any = copy.deepcopy(model)
    for module in twin.modules():
        if parametrize.is_parametrized(module):  # `remove_parametrizations` would also remove them from the original
            weight = module.weight.detach()
            module.__class__ = type(module).__bases__[0]
            del module.parametrizations
            module.register_parameter("weight", nn.Parameter(weight))
        elif hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return twin.eval().requires_grad_(False)


def direct_tensors(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield the direct tensors of each module, in the modules' order, without those for training only."""
    for module in model.modules():
        direct = {name: tensor for name, tensor in module.state_dict().items() if "." not in name and name not in TRAINING}
        if direct:
            yield direct


def transplant(source: nn.Module, target: nn.Module) -> None:
    """Copy all weights between two folded models of one architecture, whose modules differ only in their names."""
    for part in ("encoder", "quantizer", "decoder"):
        pairs = zip(direct_tensors(getattr(source, part)), direct_tensors(getattr(target, part)), strict=True)
        for values, targets in pairs:
            for (_, value), (_, tensor) in zip(sorted(values.items()), sorted(targets.items()), strict=True):
                tensor.copy_(value.reshape(tensor.shape))


def transformers_model(job: Job) -> Any:
    """Return Hugging Face's model with the authors' weights; `None` for families that it does not have."""
    spec = job.ours.spec
    with stand_in("torchaudio"):
        if spec.family == "encodec":
            from transformers import EncodecConfig, EncodecModel

            a: Any = spec.architecture
            names = set(EncodecConfig().to_dict()) & set(type(a).model_fields)
            model: Any = EncodecModel(EncodecConfig(**{name: getattr(a, name) for name in names}))
        elif spec.family == "dac":
            from transformers import DacConfig, DacModel

            model = DacModel(DacConfig(sampling_rate=spec.sample_rate, n_codebooks=spec.num_codebooks))
        elif spec.family == "mimi":
            from transformers import MimiModel

            with tempfile.TemporaryDirectory() as folder:
                job.ours.module.save_weights(folder)
                return MimiModel.from_pretrained(folder, local_files_only=True).eval().requires_grad_(False)
        else:
            return None
    model = fold_weight_norm(model)
    transplant(fold_weight_norm(job.model), model)
    return model


def transformers(job: Job) -> Engine | None:
    spec, model = job.ours.spec, transformers_model(job)
    if model is None:
        return None
    pcm = torch.from_numpy(job.pcm)[None]
    if spec.family == "dac":
        codes = torch.from_numpy(np.stack(job.codes[0], axis=1))
        return _check(
            job,
            "transformers",
            lambda: [list(model.encode(job_padded(job)).audio_codes.unbind(1))],
            lambda: model.decode(audio_codes=codes).audio_values,
        )
    if spec.family == "mimi":
        codes, books = torch.from_numpy(np.stack(job.codes[0], axis=1)), job.tokens.num_codebooks
        return _check(
            job,
            "transformers",
            lambda: [list(model.encode(job_padded(job), num_quantizers=books).audio_codes.unbind(1))],
            lambda: model.decode(codes).audio_values,
        )
    bandwidth = job.bandwidth
    encoded = _inference(lambda: model.encode(pcm, bandwidth=bandwidth))
    return _check(
        job,
        "transformers",
        lambda: (
            [list(piece[0].unbind(0)) for piece in model.encode(pcm, bandwidth=bandwidth).audio_codes.unbind(0)]
            if spec.segment
            else [list(model.encode(pcm, bandwidth=bandwidth).audio_codes[0].unbind(1))]
        ),
        lambda: model.decode(encoded.audio_codes, encoded.audio_scales),
        compare=not spec.segment,
    )


def rustymimi(job: Job) -> Engine | None:
    """Return Kyutai's implementation in Rust; `None` for other codecs than Mimi."""
    if job.ours.spec.family != "mimi":
        return None
    import rustymimi as package
    from safetensors.torch import save_file

    joined = {"in_projs.0.weight": "in_proj_weight", "out_projs.0.weight": "out_proj.weight"}
    state = {}
    for name, tensor in job.model.state_dict().items():
        new = next((name.replace(old, one) for old, one in joined.items() if name.endswith(old)), name)
        state[new] = tensor.contiguous()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        save_file(state, path)
        tokenizer = package.Tokenizer(path, num_codebooks=job.tokens.num_codebooks)
    pcm, codes = job.segments[0], np.stack(job.codes[0], axis=1).astype(np.uint32)
    frames, steps = [frame[None] for frame in job.frames], [codes[:, :, t : t + 1].copy() for t in range(codes.shape[2])]

    def streamed(step: Callable[[Array], Any], pieces: list[Array]) -> None:
        tokenizer.reset()
        for piece in pieces:
            step(piece)

    checked = _check(
        job, "rustymimi", lambda: [list(tokenizer.encode(pcm).astype(np.int64).swapaxes(0, 1))], lambda: tokenizer.decode(codes)
    )
    return replace(
        checked,
        encode_stream=lambda: streamed(tokenizer.encode_step, frames),
        decode_stream=lambda: streamed(tokenizer.decode_step, steps),
    )


def job_padded(job: Job) -> Tensor:
    return torch.from_numpy(job.segments[0])


def _inference(work: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return work()


def _check(job: Job, name: str, encode: Callable[[], Any], decode: Callable[[], Any], compare: bool = True) -> Engine:
    """Return an engine after checking that its tokens match the authors', except for ties."""
    if compare:
        encoded = _inference(encode)
        for segment, found in zip(job.codes, encoded, strict=True):
            for expected, code in zip(segment, found, strict=True):
                differ = np.mean(expected != np.asarray(code).reshape(expected.shape))
                if differ > MOST_TIES:
                    raise ValueError(f"{name} gives other tokens than the authors' package: {differ:.1%} differ")
    return Engine(name, lambda: _inference(encode), lambda: _inference(decode))


class Encoder(nn.Module):
    """Encoder for one segment, made of the authors' modules."""

    def __init__(self, family: str, model: Any, books: int, bandwidth: float) -> None:
        super().__init__()
        self.family, self.model, self.books, self.bandwidth = family, model, books, bandwidth

    def forward(self, x: Tensor) -> Any:
        model = self.model
        if self.family == "snac":
            return tuple(model.encode(x))
        if self.family == "mimi":
            return tuple(model.encode(x).unbind(1))
        if self.family == "qwen3tts":
            return tuple(model.encoder.encode(x, num_quantizers=self.books).audio_codes.unbind(1))
        if self.family == "dac":
            return tuple(model.quantizer(model.encoder(x), self.books)[1].unbind(1))
        if model.normalize:
            x = x / (x.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + 1e-8)
        return tuple(model.quantizer.encode(model.encoder(x), model.frame_rate, self.bandwidth).unbind(0))


class Decoder(nn.Module):
    """Decoder for one segment, made of the authors' modules."""

    def __init__(self, family: str, model: Any) -> None:
        super().__init__()
        self.family, self.model = family, model

    def forward(self, *codes: Tensor) -> Tensor:
        model = self.model
        if self.family == "snac":
            pcm: Tensor = model.decode(list(codes))
        elif self.family == "mimi":
            pcm = model.decode(torch.stack(codes, 1))
        elif self.family == "qwen3tts":
            pcm = model.decoder(torch.stack(codes, 1))
        elif self.family == "dac":
            pcm = model.decode(model.quantizer.from_codes(torch.stack(codes, 1))[0])
        else:
            pcm = model.decoder(model.quantizer.decode(torch.stack(codes)))
        return pcm


def restore_noise(model: nn.Module) -> nn.Module:
    """Replace this project's noise blocks by the authors' own."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "SharedNoise":
                from snac.layers import NoiseBlock

                block = NoiseBlock(child.linear.in_channels)
                block.linear = child.linear
                setattr(parent, name, block)
    return model


logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def graphs(job: Job) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Export the authors' encoder and decoder to ONNX, by the segment's length in samples and in frames."""
    spec = job.ours.spec
    model = restore_noise(fold_weight_norm(job.model))
    encoder = Encoder(spec.family, model, job.tokens.num_codebooks, job.bandwidth).eval()
    decoder = Decoder(spec.family, model).eval()
    encoders = {piece.shape[2]: _export(encoder, (torch.from_numpy(piece.copy()),)) for piece in _lengths(job.segments, 2)}
    first = [piece[0] for piece in job.codes]
    decoders = {
        codes[0].shape[1]: _export(decoder, tuple(torch.from_numpy(code.copy()) for code in codes))
        for codes in {code.shape[1]: piece for code, piece in zip(first, job.codes, strict=True)}.values()
    }
    return encoders, decoders


def _lengths(pieces: list[Array], axis: int) -> list[Array]:
    """Return one array of each length."""
    return list({piece.shape[axis]: piece for piece in pieces}.values())


def _export(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, inputs, opset_version=18, dynamo=True, verbose=False, optimize=True)
        program.save(buffer)
    return buffer.getvalue()


def onnxruntime(job: Job) -> Engine:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3

    def build(graph: bytes) -> Callable[[list[Array]], list[Array]]:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        return lambda arrays: list(session.run(None, dict(zip(names, arrays, strict=True))))

    return _of_graphs(job, "onnxruntime", build)


def exported(job: Job) -> Engine:
    """This project's exported graphs, with all codebooks: whole segments, and sessions in the shortest steps."""
    from blazen_codec_core.onnx.export import export
    from blazen_codec_core.onnx.manifest import Manifest
    from blazen_codec_core.onnx.runtime import Runtime, run_whole
    from blazen_codec_core.onnx.sessions import decoder_inputs, encoder_inputs

    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    export(job.ours, folder := scratch / "graphs")
    runtime, spec = Runtime(folder, manifest := Manifest.read(folder)), job.ours.spec
    audio = [inputs for segment in job.segments for inputs in encoder_inputs(spec, segment[0])]
    codes = [inputs for segment in job.codes for inputs in decoder_inputs(spec, segment)]
    engine = Engine(
        "exported",
        lambda: [run_whole(runtime, manifest.parts["encoder"], inputs, 0) for inputs in audio],
        lambda: [run_whole(runtime, manifest.parts["decoder"], inputs, 0) for inputs in codes],
    )
    if spec.segment:
        return engine
    codec = bc.load(folder)
    return replace(
        engine,
        encode_stream=lambda: push_all(codec.encoder_session(job.pcm.shape[0]), job.frames),
        decode_stream=lambda: push_all(codec.decoder_session(), job.tokens.parts(spec.block_frames)),
    )


def openvino(job: Job) -> Engine:
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino as ov

    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}

    def build(graph: bytes) -> Callable[[list[Array]], list[Array]]:
        request = core.compile_model(core.read_model(io.BytesIO(graph)), "CPU", settings).create_infer_request()
        return lambda arrays: list(request.infer(arrays).values())

    return _of_graphs(job, "openvino", build)


def _of_graphs(job: Job, name: str, build: Callable[[bytes], Callable[[list[Array]], list[Array]]]) -> Engine:
    encoders, decoders = graphs(job)
    encode = {length: build(graph) for length, graph in encoders.items()}
    decode = {length: build(graph) for length, graph in decoders.items()}
    pieces, codes = [np.ascontiguousarray(piece) for piece in job.segments], job.codes
    return _check(
        job,
        name,
        lambda: [encode[piece.shape[2]]([piece]) for piece in pieces],
        lambda: [decode[segment[0].shape[1]](segment) for segment in codes],
    )

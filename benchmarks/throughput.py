"""Throughput of batches in every precision, compared with the authors' package and transformers, for GPUs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.table import Table

import blazen_codec_core as bc
from blazen_codec_core.nn.kernels.aten.conv import tf32_scope

from . import peers, timing

Array = NDArray[Any]
OURS = ("float32", "tfloat32", "bfloat16", "float16")
PEERS = (("authors", "float32"), ("authors", "tfloat32"), ("transformers", "tfloat32"), ("transformers", "bfloat16"))
"""By default, PyTorch runs float32 convolutions on a GPU in TF32 (`tfloat32`), and so do these packages."""


@dataclass(frozen=True)
class Engine:
    """Encoder and decoder from and to host memory; codes are `(batch, frames)` per codebook."""

    name: str
    dtype: str
    encode: Callable[[], Sequence[Array]]
    decode: Callable[[], Sequence[Array]]


def run(name: str, device: str, batch: int, seconds: float, rounds: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return one row per engine; see `benchmarks throughput --help`."""
    spec = bc.Registry().find(name).spec
    weights = None if spec.weights.package else "random:0"
    reference = bc.load(name, device=device, weights=weights, noise=False)
    items = [timing.voices(reference, seconds) * (1 - 0.5 * number / batch) for number in range(batch)]
    tokens = reference.encode_batch(items, spec.sample_rate)
    rows: list[dict[str, Any]] = []
    for dtype in OURS:
        rows.append(_measure(_ours(name, dtype, device, weights, items, tokens), batch, seconds, rounds))
    for engine in _peers(name, device, weights, items, tokens, say):
        try:
            rows.append(_measure(engine, batch, seconds, rounds))
        except Exception as error:  # peers may fail in any way; measure the others
            say(f"{name}: {engine.name} in {engine.dtype} failed: {error}")
    authors = {row["dtype"]: row for row in rows if row["engine"] == "authors"}
    base = authors.get("float32", rows[0])
    for row in rows:
        same = [float((one == other).mean()) for one, other in zip(row.pop("codes"), base["own_codes"], strict=True)]
        error = row.pop("audio") - base["own_audio"]
        row |= {"codec": name, "device": reference.device, "batch": batch, "seconds": seconds, "agreement": same}
        row["decoded_snr_db"] = float(10 * np.log10((base["own_audio"] ** 2).sum() / max((error**2).sum(), 1e-20)))
        for what in ("encode", "decode"):
            row[what + "_over"] = {dtype: row[what] / other[what] for dtype, other in authors.items()}
    for row in rows:
        del row["own_codes"], row["own_audio"]
    return rows


def _measure(engine: Engine, batch: int, seconds: float, rounds: int) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    codes, audio = engine.encode(), np.stack(engine.decode())
    taken = {what: timing.interleaved({what: getattr(engine, what)}, rounds)[what] for what in ("encode", "decode")}
    speeds = {what: batch * seconds / statistics.median(times) for what, times in taken.items()}
    spread = {f"{what}_spread": max(times) / min(times) for what, times in taken.items()}
    gib = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    row = {"engine": engine.name, "dtype": engine.dtype, **speeds, **spread, "gib": gib}
    return {**row, "codes": codes, "audio": audio, "own_codes": codes, "own_audio": audio}


def _ours(name: str, dtype: str, device: str, weights: str | None, items: list[Array], tokens: list[bc.CodecTokens]) -> Engine:
    codec = bc.load(name, device=device, dtype=dtype, weights=weights, noise=False)

    def encode() -> list[Array]:
        encoded = codec.encode_batch(items, codec.sample_rate)
        return [np.concatenate(book) for book in zip(*(item.codes for item in encoded), strict=True)]

    return Engine("ours", dtype, encode, lambda: codec.decode_batch(tokens))


def _peers(
    name: str, device: str, weights: str | None, items: list[Array], tokens: list[bc.CodecTokens], say: Callable[[str], None]
) -> list[Engine]:
    """Return the available peers, which run whole batches through their own models."""
    ours = bc.load(name, device="cpu", weights=weights)
    if not ours.spec.upstream:
        return []
    theirs = bc.load(name, device="cpu", engine="upstream", weights=weights, noise=False)
    theirs.load()
    job = peers.Job(ours, theirs, items[0], tokens[0])
    found = []
    for kind, dtype in PEERS:
        try:
            model = peers.transformers_model(job) if kind == "transformers" else job.model
            if model is not None:
                found.append(_peer(kind, dtype, model, job, device, items, tokens))
        except Exception as error:  # peers may fail in any way; measure the others
            say(f"{name}: {kind} in {dtype} failed: {error}")
    return found


def _peer(
    kind: str, dtype: str, model: Any, job: peers.Job, device: str, items: list[Array], tokens: list[bc.CodecTokens]
) -> Engine:
    spec, rough = job.ours.spec, dtype != "float32"
    type_ = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    kinds = {"authors": _AUTHORS, "transformers": _TRANSFORMERS}[kind]
    encode_with, decode_with = kinds[spec.family]
    block = spec.block_frames * spec.hop_length
    length = items[0].shape[1] if spec.segment else -(-items[0].shape[1] // block) * block
    padded = np.stack([np.pad(item, ((0, 0), (0, length - item.shape[1]))) for item in items])
    codes = [np.concatenate(book).astype(np.int64) for book in zip(*(item.codes for item in tokens), strict=True)]
    scales = np.concatenate([item.scales for item in tokens]) if tokens[0].scales is not None else None
    target = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")

    def on_device(work: Callable[[], Any]) -> Any:
        model.to(target, type_)
        for module in model.modules():
            if isinstance(module, torch.nn.LSTM):
                module.flatten_parameters()
        with torch.inference_mode(), tf32_scope(target, rough):
            return work()

    def encode() -> list[Array]:
        x = torch.from_numpy(padded).to(target, type_)
        return [book.cpu().numpy() for book in encode_with(model, x, job)]

    def decode() -> Sequence[Array]:
        books = [torch.from_numpy(book).to(target) for book in codes]
        factors = None if scales is None else torch.from_numpy(scales).to(target, type_)
        audio: Array = decode_with(model, books, factors, tokens[0])[..., : items[0].shape[1]].float().cpu().numpy()
        missing = items[0].shape[1] - audio.shape[2]
        return np.pad(audio, ((0, 0), (0, 0), (0, missing)), mode="reflect") if missing else audio

    return Engine(kind, dtype, lambda: on_device(encode), lambda: on_device(decode))


def _segments(tokens: bc.CodecTokens) -> list[int]:
    return list(tokens.segment_frames) if tokens.segment else [tokens.frames]


def _parts(books: list[torch.Tensor], factors: Any, tokens: bc.CodecTokens) -> list[tuple[torch.Tensor, Any]]:
    """Split codes into `(batch, books, frames)` and scales per segment."""
    codes = torch.stack(books, dim=1).split(_segments(tokens), dim=2)
    return [(part, None if factors is None else factors[:, number, None]) for number, part in enumerate(codes)]


def _encodec_encode(model: Any, x: torch.Tensor, job: peers.Job) -> list[torch.Tensor]:
    model.set_target_bandwidth(job.bandwidth)
    return list(torch.cat([codes for codes, _ in model.encode(x)], dim=2).unbind(1))


def _hub_encodec_encode(model: Any, x: torch.Tensor, job: peers.Job) -> list[torch.Tensor]:
    codes = model.encode(x, bandwidth=job.bandwidth).audio_codes  # (segments, batch, books, frames), the last one padded
    frames = _segments(job.tokens)
    return list(torch.cat([part[..., :count] for part, count in zip(codes, frames, strict=True)], dim=2).unbind(1))


def _hub_encodec_decode(model: Any, books: list[torch.Tensor], factors: Any, tokens: bc.CodecTokens) -> torch.Tensor:
    """Decode with segments of equal length, as transformers needs; the shorter last one is padded."""
    parts = _parts(books, factors, tokens)
    longest = parts[0][0].shape[2]
    codes = torch.stack([F.pad(part, (0, longest - part.shape[2])) for part, _ in parts])
    audio: torch.Tensor = model.decode(codes, [scale for _, scale in parts])[0]
    return audio


_AUTHORS: dict[str, tuple[Any, Any]] = {
    "encodec": (_encodec_encode, lambda model, books, factors, tokens: model.decode(_parts(books, factors, tokens))),
    "dac": (
        lambda model, x, job: model.encode(x)[1].unbind(1),
        lambda model, books, factors, tokens: model.decode(model.quantizer.from_codes(torch.stack(books, 1))[0]),
    ),
    "mimi": (
        lambda model, x, job: model.encode(x)[:, : job.tokens.num_codebooks].unbind(1),
        lambda model, books, factors, tokens: model.decode(torch.stack(books, 1)),
    ),
    "qwen3tts": (
        lambda model, x, job: model.encoder.encode(x, num_quantizers=job.tokens.num_codebooks).audio_codes.unbind(1),
        lambda model, books, factors, tokens: model.decoder(torch.stack(books, 1)),
    ),
    "snac": (lambda model, x, job: model.encode(x), lambda model, books, factors, tokens: model.decode(books)),
}
_TRANSFORMERS: dict[str, tuple[Any, Any]] = {
    "encodec": (_hub_encodec_encode, _hub_encodec_decode),
    "dac": (
        lambda model, x, job: model.encode(x).audio_codes.unbind(1),
        lambda model, books, factors, tokens: model.decode(audio_codes=torch.stack(books, 1)).audio_values[:, None],
    ),
    "mimi": (
        lambda model, x, job: model.encode(x, num_quantizers=job.tokens.num_codebooks).audio_codes.unbind(1),
        lambda model, books, factors, tokens: model.decode(torch.stack(books, 1)).audio_values,
    ),
}


def table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Times real time; brackets: relative to the authors' package, in float32 and as installed")
    left = ("codec", "engine", "type", "device")
    for column in (*left, "batch", "encode", "decode", "GiB", "tokens as the authors', per codebook", "decoded, SNR dB"):
        table.add_column(column, justify="left" if column in left else "right")
    for row in rows:
        shares = [f"{100 * share:.2f}" for share in row["agreement"]]
        agreement = " ".join(shares[:4] + ["…"] * (len(shares) > 4)) + " %"
        speeds = [f"{row[what]:.0f}{_brackets(row[what + '_over'])}" for what in ("encode", "decode")]
        name = (row["codec"], row["engine"], row["dtype"], row["device"])
        table.add_row(*name, str(row["batch"]), *speeds, f"{row['gib']:.1f}", agreement, f"{row['decoded_snr_db']:.1f}")
    return table


def _brackets(over: dict[str, float]) -> str:
    return f" ({', '.join(f'{ratio:.2f}' for ratio in over.values())})" if over else ""

"""Hypothesis strategies for inputs of a codec, mostly invalid ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..errors import InvalidTokens
from ..specs import CodecSpec, Segment
from ..tokens.tokens import CodecTokens
from ..validation import Pcm

FLOATS = ("float16", "float32", "float64", "longdouble", ">f4")
OTHERS = ("int16", "int32", "uint8", "bool", "complex64", "U3", "S2", "O", "M8[s]")
EXTREMES = (0.0, 1.0, -1.0, 1e-45, 1e-30, 999.0, 1e30, float("nan"), float("inf"), float("-inf"))
seeds = st.integers(0, 2**32 - 1)


def tries(count: int) -> settings:
    """Return settings for `count` examples, without deadline and database."""
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def audio(draw: st.DrawFn, spec: CodecSpec, longest: int = 2000) -> Pcm:
    """Draw valid audio for a model, `(channels, samples)`."""
    channels = draw(st.integers(1, 3)) if spec.channels == 1 else spec.channels
    rng = np.random.default_rng(draw(seeds))
    level = draw(st.sampled_from([0.0, 1e-20, 0.1, 1.0, 900.0]))
    return np.clip(rng.standard_normal((channels, draw(st.integers(1, longest)))) * level, -999, 999).astype(np.float32)


@st.composite
def arrays(draw: st.DrawFn, longest: int = 600) -> Any:
    """Draw arrays of any type, layout, shape and content."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(0, longest)),
            st.tuples(st.integers(0, 40), st.integers(0, longest)),
            st.lists(st.integers(0, 4), max_size=4).map(tuple),
        )
    )
    rng = np.random.default_rng(draw(seeds))
    values = np.asarray(rng.standard_normal(shape)) * draw(st.sampled_from([0.1, 1.0, 1e4, 1e30]))
    if draw(st.booleans()):
        values = np.asarray(values)  # products of 0-d arrays are scalars
        flat = values.reshape(-1)
        for _ in range(draw(st.integers(0, 3)) if flat.size else 0):
            flat[draw(st.integers(0, flat.size - 1))] = draw(st.sampled_from(EXTREMES))
    kind = draw(st.sampled_from([*FLOATS, *FLOATS, *OTHERS]))
    with np.errstate(all="ignore"):
        array = np.asarray((np.nan_to_num(values) if kind in OTHERS else values), dtype=kind)
    ways = [array, array.T, np.asfortranarray(array), array.tolist(), read_only(array)]
    return draw(st.sampled_from([*ways, array[..., ::-1], array[..., ::2]] if array.ndim else ways))


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


junk: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.lists(st.integers(), max_size=4),
    st.lists(st.lists(st.floats(), max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.just(object()),
)
"""Values that are neither audio nor tokens."""


def pcm(spec: CodecSpec) -> st.SearchStrategy[Any]:
    """Strategy for the audio argument: valid audio, other arrays, and junk."""
    return st.one_of(audio(spec, 600), audio(spec, 600), arrays(), arrays(), junk)


def sample_rates(spec: CodecSpec) -> st.SearchStrategy[Any]:
    """Strategy for the sample-rate argument, mostly the right one."""
    return st.one_of(*[st.just(spec.sample_rate)] * 8, st.integers(-1, 10**6), junk)


@st.composite
def codes(draw: st.DrawFn, spec: CodecSpec, blocks: int = 3) -> list[NDArray[Any]]:
    """Draw codes for `CodecTokens.from_codes`: valid for a model, or with one error."""
    rng = np.random.default_rng(draw(seeds))
    books = draw(st.sampled_from([*spec.usable_codebooks * 4, 0, 1, spec.num_codebooks + 1]))
    streams, frames = draw(st.integers(1, 2)), draw(st.integers(0, blocks)) * spec.block_frames
    strides = [*spec.strides, 1][:books]
    arrays = [rng.integers(0, spec.codebook_size, (streams, frames // stride)) for stride in strides]
    wrong = draw(st.sampled_from([*["nothing"] * 6, "value", "type", "length", "streams", "shape"]))
    if arrays and wrong != "nothing":
        index = draw(st.integers(0, len(arrays) - 1))
        array = arrays[index]
        if wrong == "value" and array.size:
            array[0, draw(st.integers(0, array.shape[1] - 1))] = draw(
                st.sampled_from([-1, spec.codebook_size, 2**31, 2**62, -(2**63)])
            )
        elif wrong == "type":
            arrays[index] = array.astype(draw(st.sampled_from(["float32", "uint64", "int8", "bool", "U1", "complex64"])))
        elif wrong == "length":
            arrays[index] = array[:, : draw(st.integers(0, array.shape[1]))]
        elif wrong == "streams":
            arrays[index] = np.repeat(array, draw(st.sampled_from([0, 2, 40])), axis=0)
        elif wrong == "shape":
            arrays[index] = array[None]
    return arrays


@st.composite
def tokens(draw: st.DrawFn, spec: CodecSpec) -> CodecTokens | None:
    """Draw tokens, possibly invalid for the model; `None` if `CodecTokens` refuses them."""
    fields: dict[str, Any] = {}
    for name, values in {
        "codec": st.sampled_from(["", "other:model", spec.identity.upper()]),
        "sample_rate": st.sampled_from([0, -1, 1, 2**40]),
        "hop_length": st.sampled_from([1, 3, 2**40]),
        "codebook_size": st.sampled_from([1, 2, 2**31 - 1]),
        "channels": st.sampled_from([0, -2, 2, 7, 10**6]),
        "num_samples": st.sampled_from([-1, 0, 1, 10**9]),
        "segment": st.sampled_from([None, Segment(length=8, stride=8), Segment(length=2**40, stride=2**40)]),
        "loudness": st.sampled_from([(), (-20.0,), (float("nan"),), (1e9,)]),
        "extra": st.sampled_from([{"x": 1}, {"window_frames": -1}, {"window_frames": 2**40, "window_padded": True}]),
        "strides": st.sampled_from([(1,), (2, 1), (0,), (-1,), (1, 1, 1)]),
    }.items():
        if draw(st.integers(0, 29)) == 0:
            fields[name] = draw(values)
    drawn = draw(codes(spec))
    try:
        tokens = CodecTokens.from_codes(spec, drawn)
        return CodecTokens(**{**tokens.__dict__, "codes": tokens.codes, "scales": tokens.scales, **fields})
    except InvalidTokens:
        return None


@st.composite
def flat(draw: st.DrawFn, spec: CodecSpec) -> Any:
    """Draw an argument for flat tokens, valid or not."""
    rng = np.random.default_rng(draw(seeds))
    count = draw(st.integers(0, 3 * sum(spec.block_frames // stride for stride in spec.strides)))
    values = rng.integers(0, spec.codebook_size, count).astype(draw(st.sampled_from(["uint32", "int64", "uint8", "float32"])))
    if values.size and draw(st.booleans()):
        values[-1] = draw(st.sampled_from([0, min(spec.codebook_size - 1, 255), 255]))
    return draw(st.one_of(st.just(values), st.just(values.tolist()), arrays(60), junk))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw a file with bytes changed, removed, inserted or truncated."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["change", "change", "flip", "remove", "insert", "end", "repeat"])):
            case "change":
                changed[start : start + 1] = draw(st.binary(min_size=1, max_size=1))
            case "flip":
                changed[start : start + 1] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in changed[start : start + 1])
            case "remove":
                del changed[start : start + draw(st.integers(1, 64))]
            case "insert":
                changed[start:start] = draw(st.binary(max_size=16))
            case "end":
                del changed[start:]
            case "repeat":
                changed[start:start] = changed[start : start + 64]
    return bytes(changed)

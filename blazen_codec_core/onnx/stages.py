"""Steps of a half that become graphs: a whole signal, or the beginning, the tiles and the end of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from ..errors import NotYetImplemented
from ..nn.layers.base import State
from .half_networks import HalfNetwork
from .tracing import Step, run

MOST_TILES = 256
"""Tiles after which the state of a stream must have settled."""
SETTLED = 3
"""Tiles that leave the signature of a settled state unchanged."""

WHOLE = Step(blocks=1, is_dynamic=True, last=True)


@dataclass(frozen=True)
class StreamSteps:
    """Steps of a stream.

    Attributes:
        latency_samples: Most samples that a stream holds back.
    """

    latency_samples: int
    begin: Step
    step: Step
    end: Step | None


def stream_steps(half: HalfNetwork, tile_frames: int) -> StreamSteps:
    """Steps of a stream in tiles of `tile_frames` frames.

    The state of a stream has plain values, such as samples still to be cropped, which a graph cannot hold. So the beginning has
    as many tiles as it takes until these values stay the same.

    Raises:
        NotYetImplemented: They never do.
    """
    tile = half.blocks_of(tile_frames)
    tiles, state = _settled(half, tile)
    begin = tiles * tile
    flushes = half.samples_covered(begin, True) > half.samples_covered(begin, False)
    least = 0 if flushes else 1
    end = Step(least, is_dynamic=tile - 1 > least, last=True, state=state) if tile - 1 >= least else None
    return StreamSteps(
        _latency_samples(half, begin, tile),
        Step(begin, is_dynamic=False, last=False),
        Step(tile, is_dynamic=False, last=False, state=state),
        end,
    )


def _settled(half: HalfNetwork, tile: int) -> tuple[int, State]:
    """Number of tiles after which a stream's signature stays the same, and the state there."""
    states: list[State] = []
    for count in range(1, MOST_TILES + 1):
        state, _ = run(half, Step(tile, is_dynamic=False, last=False, state=states[-1] if states else None), tile)
        states.append(state)
        first = count - SETTLED
        if first > 0 and len({state.signature() for state in states[first - 1 :]}) == 1 and _is_even(half, first, tile):
            return first, states[first - 1]
    raise NotYetImplemented(
        f"the {half.part} of {half.spec.name} has no step graph: its state has not settled after {MOST_TILES} tiles; "
        "export it with what='whole', or with more tile_frames"
    )


def _is_even(half: HalfNetwork, tiles: int, tile: int) -> bool:
    """Tell whether every tile after these gives as many samples as it has."""
    covered = [half.samples_covered(count * tile, False) for count in range(tiles, tiles + SETTLED + 1)]
    return all(after - before == tile * half.hop for before, after in pairwise(covered))


def _latency_samples(half: HalfNetwork, begin: int, tile: int) -> int:
    """Most samples that are in a stream of which no output is out; see `torch_backend.sessions.max_latency`."""
    starts = [0, begin, begin + tile]
    return max(end * half.hop - half.least_samples - half.samples_covered(start, False) for start, end in pairwise(starts))

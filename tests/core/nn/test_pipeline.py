"""The executor of pipelines: order, results, bounds, errors and threads."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blazen_codec_core import cancellation
from blazen_codec_core.errors import InferenceError
from blazen_codec_core.nn.pipeline import ITEMS_PER_THREAD, Join, Split, as_stage, run_parallel, run_pipeline

THREADS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    yield
    assert set(threading.enumerate()) <= before


class Recurrent:
    """A stage whose output depends on all items before, and which notices two at a time."""

    def __init__(self, factor: int, nap: float = 0.0) -> None:
        self.factor, self.nap, self.total, self.lock = factor, nap, 0, threading.Lock()

    def __call__(self, item: int) -> list[int]:
        assert self.lock.acquire(blocking=False), "two items in one stage"
        self.total = (self.factor * self.total + item) % 1_000_003
        time.sleep(self.nap)
        self.lock.release()
        return [self.total] * (self.total % 3)  # none, one or two items


def recurrent_outputs(count: int, items: int, threads: int, nap: float = 0.0) -> list[int]:
    outputs: list[int] = []

    def store(item: int) -> tuple[()]:
        outputs.append(item)
        return ()

    stages = [Recurrent(number + 2, nap) for number in range(count)]
    run_pipeline([*stages, store], range(items), threads)
    return outputs


@given(st.integers(0, 8), st.integers(0, 30), st.sampled_from(THREADS[1:]))
def test_results_are_those_of_a_serial_run(stages, items, threads):
    assert recurrent_outputs(stages, items, threads) == recurrent_outputs(stages, items, 1)


def test_results_do_not_depend_on_the_pace_of_the_threads():
    assert recurrent_outputs(5, 40, 5, nap=0.001) == recurrent_outputs(5, 40, 1)


@pytest.mark.parametrize("threads", THREADS)
def test_splitting_and_joining(threads):
    split, shapes, outputs = Split(4), [], []

    def note(x, last):
        shapes.append((x.shape[1], last))
        return x + 1

    lengths = [10, 4, 0, 3, 9]
    signals = [torch.randn(2, frames, 3) for frames in lengths]
    items = [(x, number == len(signals)) for number, x in enumerate(signals, 1)]
    run_pipeline([split, as_stage(note), Join(split), lambda item: outputs.append(item) or ()], items, threads)
    assert [frames for frames, _ in shapes] == [4, 4, 2, 4, 0, 3, 4, 4, 1]
    assert [last for _, last in shapes] == [False] * 8 + [True]
    assert [last for _, last in outputs] == [False] * 4 + [True]
    assert all(torch.equal(y, x + 1) for (y, _), x in zip(outputs, signals, strict=True))


def test_stages_run_side_by_side():
    both = threading.Barrier(2, timeout=30)
    waits = [True]

    def wait_for_the_other(item):
        if item == waits[0]:
            both.wait()
        return [item]

    run_pipeline([lambda item: wait_for_the_other(item == 1), lambda item: wait_for_the_other(not item)], range(2), 2)


@pytest.mark.parametrize("threads", THREADS[1:])
def test_few_items_are_alive(threads):
    class Tile:
        pass

    alive: weakref.WeakSet[Tile] = weakref.WeakSet()
    most = 0

    def read(item):
        nonlocal most
        tile = Tile()
        alive.add(tile)
        most = max(most, len(alive))
        return [tile]

    def slow(item):
        time.sleep(0.001)
        return [item]

    gc.collect()
    run_pipeline([read, slow, slow, slow, lambda item: ()], range(60), threads)
    assert most <= (ITEMS_PER_THREAD + 1) * threads


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("stage", range(3))
def test_an_error_stops_all_threads(stage, threads, error):
    seen = []

    def fail_at(number):
        def run(item):
            seen.append(item)
            if number == stage and item == 5:
                raise error("a stage failed")
            return [item]

        return run

    with pytest.raises(error, match="a stage failed"):
        run_pipeline([fail_at(number) for number in range(3)], range(10_000), threads)
    assert max(seen) <= 5 + ITEMS_PER_THREAD * threads


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_of_the_items_stops_all_threads(threads):
    def items():
        yield from range(7)
        raise ValueError("no more items")

    with pytest.raises(ValueError, match="no more items"):
        run_pipeline([lambda item: [item]] * 3, items(), threads)


def test_an_error_of_the_scope_is_raised():
    def scope():
        raise ValueError("no scope")

    with pytest.raises(ValueError, match="no scope"):
        run_pipeline([lambda item: time.sleep(0.01) or [item]] * 2, range(1_000), 2, scope)


def test_a_system_without_more_threads(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert recurrent_outputs(4, 20, 3) == recurrent_outputs(4, 20, 1)
    assert run_parallel(lambda item: item + 1, range(5), 3) == [1, 2, 3, 4, 5]


def test_one_item_starts_no_thread(monkeypatch):
    monkeypatch.delattr(threading.Thread, "start")
    assert len(recurrent_outputs(1, 1, 5)) == len(recurrent_outputs(1, 1, 1))


@pytest.mark.parametrize("threads", THREADS)
def test_independent_items(threads):
    def square(item):
        time.sleep(0.001 * (item % 3))
        return item * item

    assert run_parallel(square, range(30), threads) == [item * item for item in range(30)]


@pytest.mark.parametrize("threads", THREADS)
def test_the_first_error_of_independent_items_is_raised(threads):
    begun = []

    def fail(item):
        begun.append(item)
        time.sleep(0.02 if item == 4 else 0.005)  # the first one fails last
        if item in (4, 5):
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 4"):
        run_parallel(fail, range(1_000), threads)
    assert max(begun) < 50


@pytest.mark.parametrize("items", [2, 3])
def test_no_more_threads_start_than_tasks_wait(monkeypatch, items):
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread) or start(thread))
    run_pipeline([lambda item: [item]] * 30, range(items), 64)
    assert run_parallel(lambda item: item, range(items), 64) == list(range(items))
    assert len(started) <= 2 * (items - 1)


def test_an_interrupt_cancels_long_tasks_of_other_threads():
    main, begun, cancelled = threading.current_thread(), threading.Event(), []

    def work(item):
        if threading.current_thread() is main:
            assert begun.wait(10)
            raise KeyboardInterrupt
        begun.set()
        for _ in range(1_000):
            time.sleep(0.01)
            try:
                cancellation.check()
            except InferenceError:
                cancelled.append(item)
                raise
        return item

    with pytest.raises(KeyboardInterrupt):
        run_parallel(work, range(2), 2)
    assert len(cancelled) == 1
    cancellation.check()


def test_an_inner_scope_is_cancelled_with_the_outer_one():
    outer, inner = threading.Event(), threading.Event()
    with cancellation.cancel_scope(outer):
        with cancellation.cancel_scope(inner):
            cancellation.check()
            outer.set()
            with pytest.raises(InferenceError, match="cancelled"):
                cancellation.check()
        outer.clear()
        inner.set()
        cancellation.check()

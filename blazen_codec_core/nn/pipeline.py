"""Software pipeline: the stages of a chain run side by side, each on another item.

Stage s of item k runs as soon as stage s - 1 of item k and stage s of item k - 1 are done. A stage sees all items in order, one
at a time, whatever the number of threads, so its state and its results are those of a serial run. Threads share no loop and
meet at no barrier: one that the system suspends delays only its own task.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..cancellation import cancel_scope

T = TypeVar("T")
R = TypeVar("R")
Item = tuple[Any, bool]
"""A value and `last`: the signal ends with it."""
SECONDS_PER_THREAD = 160e-6
"""Processor time of a task for each thread. Python code of all threads takes turns, so more of them would wait for each other."""
MEASURED_TASKS = 4
"""Tasks after which more than two threads begin."""
Stage = Callable[[Any], Iterable[Any]]
"""Function from an item to the next stage's items."""
Step = Callable[..., Any]
"""Function from a value and `last=...` to a value."""
Scope = Callable[[], AbstractContextManager[object]]
ITEMS_PER_THREAD = 2
"""Most items in the pipeline, for each thread: one that it works on, and one that waits."""


class Split:
    """Stage that splits signals `(batch, frames, channels)` into tiles of at most `frames` frames."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.counts: deque[int] = deque()
        """Tiles of each signal that `Join` has not put together yet."""

    def __call__(self, item: Item) -> list[Item]:
        x, last = item
        tiles = torch.split(x, self.frames, dim=1)
        self.counts.append(len(tiles))
        return [(tile, last and number == len(tiles)) for number, tile in enumerate(tiles, 1)]


class Join:
    """Stage that puts the tiles of a `Split` together again."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._parts: list[Tensor] = []

    def __call__(self, item: Item) -> list[Item]:
        x, last = item
        self._parts.append(x)
        if len(self._parts) < self._split.counts[0]:
            return []
        self._split.counts.popleft()
        parts, self._parts = self._parts, []
        return [(torch.cat(parts, dim=1) if len(parts) > 1 else x, last)]


def as_stage(step: Step | Split | Join) -> Stage:
    """Stage that runs a step on each item."""
    return step if isinstance(step, Split | Join) else lambda item: [(step(item[0], last=item[1]), item[1])]


def run_steps(steps: Sequence[Step | Split | Join], value: Any, last: bool) -> list[Item]:
    """Outputs of steps that run in turn on one value, in this thread."""
    items = [(value, last)]
    for step in steps:
        if isinstance(step, Split | Join):
            items = list(chain.from_iterable(map(step, items)))
            continue
        for number, (part, is_last) in enumerate(items):
            items[number] = step(part, last=is_last), is_last
    return items


def run_pipeline(stages: Sequence[Stage], items: Iterable[Any], threads: int = 1, scope: Scope = nullcontext) -> None:
    """Run all items through all stages; what the last stage returns is dropped.

    The calling thread is one of the threads; the others have ended when this returns. An error of a stage, or of `items`,
    stops all of them, and is raised here.

    Args:
        threads: Most threads.
        scope: Context that each other thread runs in.
    """
    source = iter(items)
    first = list(islice(source, 2)) if threads > 1 else []
    if len(first) < 2:
        for _ in _serial(stages, chain(first, source)):
            pass
        return
    _Schedule(stages, chain(first, source), threads, scope).run()


def run_parallel(function: Callable[[T], R], items: Iterable[T], threads: int = 1, scope: Scope = nullcontext) -> list[R]:
    """Results of a function for items that do not depend on each other, in their order.

    No further items begin after an error. The first one in the order of the items is raised, as in a serial run.

    Args:
        threads: Most threads.
        scope: Context that each other thread runs in.
    """
    results: dict[int, R] = {}
    errors: dict[int, Exception] = {}

    def run(numbered: tuple[int, T]) -> tuple[()]:
        number, item = numbered
        try:
            results[number] = function(item)
        except Exception as error:
            errors[number] = error
        return ()

    def until_error() -> Iterator[tuple[int, T]]:
        for numbered in enumerate(items):
            if errors:
                return
            yield numbered

    if threads > 1:
        _Schedule([run], until_error(), threads, scope, is_ordered=False).run()
    else:
        for numbered in until_error():
            run(numbered)
    for number in sorted(errors):
        raise errors[number]
    return [results[number] for number in range(len(results))]


def _serial(stages: Sequence[Stage], items: Iterable[Any]) -> Iterable[Any]:
    """Lazily run items through stages, one item after the other."""
    for stage in stages:
        items = chain.from_iterable(map(stage, items))
    return items


class _Schedule:
    """Tasks of a pipeline, and the threads that take them.

    Args:
        is_ordered: A stage runs one item at a time, in order.
    """

    def __init__(
        self, stages: Sequence[Stage], items: Iterator[Any], threads: int, scope: Scope, *, is_ordered: bool = True
    ) -> None:
        self._stages, self._items, self._is_ordered = stages, items, is_ordered
        self._waiting: list[deque[Any]] = [deque() for _ in stages]
        self._is_busy = [False] * len(stages)
        self._count, self._max_count = 0, ITEMS_PER_THREAD * threads
        """Items that wait or run, and the most at which another begins."""
        self._done, self._seconds = 0, 0.0
        """Tasks done, and their processor time."""
        self._others: list[threading.Thread] = []
        self._max_others, self._idle, self._scope = threads - 1, 0, scope
        self._is_exhausted = self._is_stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self) -> None:
        """Run all tasks in this thread, and in others as long as tasks wait; an interrupt cancels their work."""
        given_up = threading.Event()
        try:
            with cancel_scope(given_up):
                self._work()
        except BaseException:  # such as an interrupt, for which a task of many tiles in another thread ends at the next one
            given_up.set()
            raise
        finally:
            self._stop()
            for other in self._others:
                if other.ident is not None:  # it was started
                    other.join()
        if self._error is not None:
            raise self._error

    def _call_another(self) -> None:
        """Wake or start a thread for a task that waits."""
        if self._idle:
            self._changed.notify()
        elif len(self._others) < min(self._max_others, self._count - 1, self._useful_others()):  # an item for each, at least
            other = threading.Thread(target=copy_context().run, args=(self._work_in_scope,), name="blazen-codec pipeline")
            self._others.append(other)
            try:
                other.start()
            except RuntimeError:  # the system allows no more threads; those that run do all tasks
                self._max_others = 0

    def _useful_others(self) -> int:
        """Most other threads that tasks as short as those of this pipeline keep busy; see `SECONDS_PER_THREAD`."""
        if not self._is_ordered:  # independent tasks are long
            return self._max_others
        if self._done < MEASURED_TASKS:
            return 1
        return max(1, round(self._seconds / self._done / SECONDS_PER_THREAD) - 1)

    def _work_in_scope(self) -> None:
        try:
            with self._scope():
                self._work()
        except BaseException as error:
            self._stop(error)

    def _work(self) -> None:
        """Run tasks until none is left."""
        task = self._next_task()
        while task:
            number, item = task
            start = time.thread_time()
            try:
                outputs = list(self._stages[number](item))
            except Exception as error:
                self._stop(error)
                return
            del item, task
            task = self._next_task((number, outputs, time.thread_time() - start))

    def _stop(self, error: BaseException | None = None) -> None:
        """Let no other task begin."""
        with self._changed:
            self._is_stopped, self._error = True, self._error or error
            self._changed.notify_all()

    def _next_task(self, done: tuple[int, list[Any], float] | None = None) -> tuple[int, Any] | None:
        """Pass on the outputs of a task; wait for the next one and return its stage and item, or `None` at the end."""
        with self._changed:
            if done:
                self._pass_on(*done)
            while not self._is_stopped:
                number = self._find_task()
                if number is not None:
                    self._is_busy[number] = self._is_ordered
                    item = self._waiting[number].popleft()
                    if self._find_task() is not None:
                        self._call_another()
                    return number, item
                if not self._count:
                    self._is_stopped = True
                    self._changed.notify_all()
                    break
                self._idle += 1
                try:
                    self._changed.wait()
                finally:
                    self._idle -= 1
        return None

    def _pass_on(self, number: int, outputs: list[Any], seconds: float) -> None:
        self._is_busy[number] = False
        self._done, self._seconds = self._done + 1, self._seconds + seconds
        if number + 1 == len(self._stages):
            outputs = []
        else:
            self._waiting[number + 1].extend(outputs)
        self._count += len(outputs) - 1

    def _find_task(self) -> int | None:
        """Deepest stage that can run, so that few items are alive; begin another item if there is none."""
        for number in range(len(self._stages) - 1, -1, -1):
            if self._waiting[number] and not self._is_busy[number]:
                return number
        if self._is_exhausted or self._count >= self._max_count or self._is_busy[0]:
            return None
        try:
            item = next(self._items)
        except StopIteration:
            self._is_exhausted = True
            return None
        self._waiting[0].append(item)
        self._count += 1
        return 0

"""Who is served, and who waits."""

from __future__ import annotations

import asyncio

import pytest

from blazen_codec_core.server.admission import Line, QueueFull


class Visitor:
    """Notes what it is told; ends its turn when it is let go."""

    def __init__(self, line: Line) -> None:
        self.line, self.places, self.served, self.done = line, [], asyncio.Event(), asyncio.Event()

    async def told(self, place: int) -> None:
        self.places.append(place)

    async def visit(self) -> None:
        async with self.line.turn(self.told):
            self.served.set()
            await self.done.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_first_come_first_served():
    line = Line(at_once=2, waiting=3)
    visitors = [Visitor(line) for _ in range(5)]
    async with asyncio.TaskGroup() as tasks:
        for visitor in visitors:
            tasks.create_task(visitor.visit())
        await settle()
        assert [visitor.served.is_set() for visitor in visitors] == [True, True, False, False, False]
        assert [visitor.places for visitor in visitors] == [[], [], [1], [2], [3]]
        with pytest.raises(QueueFull, match="2 clients are served and 3 wait"):
            await Visitor(line).visit()
        visitors[1].done.set()
        await settle()
        assert visitors[2].served.is_set()
        assert [visitor.places[-1] for visitor in visitors[3:]] == [1, 2]
        for visitor in visitors:
            visitor.done.set()
    assert all(visitor.served.is_set() for visitor in visitors)


async def test_who_leaves_the_line_makes_room():
    line = Line(at_once=1, waiting=2)
    served, leaves, stays = (Visitor(line) for _ in range(3))
    tasks = [asyncio.create_task(visitor.visit()) for visitor in (served, leaves, stays)]
    await settle()
    tasks[1].cancel()
    await settle()
    assert stays.places[-1] == 1
    served.done.set()
    stays.done.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert stays.served.is_set()


async def test_a_turn_that_fails_ends():
    line = Line(at_once=1, waiting=0)
    with pytest.raises(ZeroDivisionError):
        async with line.turn(lambda _: asyncio.sleep(0)):
            raise ZeroDivisionError
    await asyncio.wait_for(asyncio.gather(*(self_ending(line) for _ in range(1))), 1)


async def self_ending(line: Line) -> None:
    async with line.turn(lambda _: asyncio.sleep(0)):
        pass

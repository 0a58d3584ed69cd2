"""Many listeners of the page's server: when the first sound comes, and whether it plays on without gaps.

python examples/orpheus_server/listeners.py ws://127.0.0.1:8000/speak 1 20 100
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from statistics import median, quantiles

from websockets.asyncio.client import connect


@dataclass
class Heard:
    """Record of what one listener heard.

    Attributes:
        first: Seconds from the text to the first sound.
        ids: Ids that the language model had written by then.
        underruns: Parts that came after the sound before them had been played.
        seconds: Seconds of sound.
        took: Seconds until the last.
        lost: Groups of ids that were wrong.
    """

    first: float = 0.0
    ids: int = 0
    underruns: int = 0
    seconds: float = 0.0
    took: float = 0.0
    lost: int = 0


BUFFER = 0.25
"""Seconds that the page waits before it plays the first part."""


async def listen(url: str, text: str, wait: float) -> tuple[Heard, bytes]:
    """Listen to one text after `wait` seconds; return what was heard, and the PCM.

    Raises:
        RuntimeError: The server said an error.
    """
    await asyncio.sleep(wait)
    heard, parts, rate, plays = Heard(), [], 0, 0.0
    async with connect(url, max_size=None, open_timeout=60) as socket:
        began = time.perf_counter()
        await socket.send(json.dumps({"text": text}))
        async for message in socket:
            now = time.perf_counter() - began
            if isinstance(message, bytes):
                parts.append(message)
                seconds = len(message) / 2 / rate
                if seconds and not heard.first:
                    heard.first, plays = now, now + BUFFER
                heard.underruns += seconds > 0 and now > plays
                plays = max(plays, now) + seconds
                heard.seconds, heard.took = heard.seconds + seconds, now
                continue
            said = json.loads(message)
            if said["type"] == "error":
                raise RuntimeError(said["message"])
            rate, heard.ids = said.get("sample_rate", rate), said["ids"] if said["type"] == "began" else heard.ids
            heard.lost = said.get("lost", 0)
    return heard, b"".join(parts)


async def crowd(url: str, count: int, text: str = "Hello there.", over: float = 1.0) -> list[Heard]:
    """Listen `count` times at once; the texts come evenly over `over` seconds."""
    found = await asyncio.gather(*(listen(url, text, over * number / count) for number in range(count)))
    assert len({pcm for _, pcm in found}) == 1, "listeners of one text heard different sound"
    return [heard for heard, _ in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("counts", type=int, nargs="+")
    options = parser.parse_args()
    print("listeners  first sound, ms (median, p95)  ids  with underruns  times real time")
    for count in options.counts:
        found = asyncio.run(crowd(options.url, count))
        firsts = [1000 * heard.first for heard in found]
        late = quantiles(firsts, n=20)[-1] if count > 1 else firsts[0]
        ids, late_listeners = median(heard.ids for heard in found), sum(heard.underruns > 0 for heard in found)
        speed = median(heard.seconds / heard.took for heard in found)
        print(f"{count:9}  {median(firsts):21.0f} {late:5.0f}  {ids:3.0f}  {late_listeners:14}  {speed:15.2f}")

"""The example of a page that speaks: a language model's ids over OpenAI's protocol, heard as `decode` gives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import runpy
import time
import urllib.request

import numpy as np
import pytest
from websockets.sync.client import connect

import blazen_codec_core as bc
from tests.helpers.asgi import running_application
from tests.helpers.speaking_page import CODEC, LISTENERS, speaking_page

IDS = 900


@pytest.fixture(scope="module")
def page(root):
    with speaking_page(root, IDS, speed=3.0) as made:
        yield made


@pytest.fixture(scope="module")
def listeners(root):
    return runpy.run_path(str(root / "examples/orpheus_server/listeners.py"))


@pytest.fixture
def wanted(page):
    """Audio of all whole groups, in units of 16-bit PCM."""
    codec = bc.load(CODEC)
    reader = bc.Registry().layout("orpheus").reader(codec.spec, errors="drop")
    return codec.decode(reader.push(page.text))[0].clip(-1, 1) * 32767


def test_listeners_hear_it_while_it_is_written(page, listeners, wanted):
    async def together():
        return await asyncio.gather(*(listeners["listen"](f"ws://{page.address}/speak", f"Text {n}.", 0.0) for n in range(3)))

    for heard, pcm in asyncio.run(together()):
        np.testing.assert_allclose(np.frombuffer(pcm, "<i2"), wanted, rtol=0, atol=0.51)
        assert heard.lost == 0
        assert heard.ids < IDS // 2, "the model had written half when it was first heard"
    assert page.pool.stats().open == 0


def test_one_who_leaves_frees_the_stream(page):
    with connect(f"ws://{page.address}/speak") as socket:
        socket.send(json.dumps({"text": "I am leaving."}))
        while isinstance(socket.recv(), str):
            pass
        assert page.pool.stats().open == 1
    began = time.monotonic()
    while page.pool.stats().open:
        assert time.monotonic() - began < 60
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ('{"text": ""}', "expected a text of 1 to 2000 characters"),
        ('{"text": "a", "voice": "<|eot_id|>"}', "and the name of a voice"),
        ("nonsense", "expected a text"),
    ],
)
def test_what_cannot_be_said_is_an_error(page, message, told):
    with connect(f"ws://{page.address}/speak") as socket:
        socket.send(message)
        said = json.loads(socket.recv())
        assert said["type"] == "error"
        assert told in said["message"]


def test_a_model_that_fails_is_an_error(page):
    speaker = page.speech["speaker_of"](CODEC, f"http://{page.language_model}/v1", "unheard-of", 1)
    with running_application(page.speech["application"](speaker)) as address, connect(f"ws://{address}/speak") as socket:
        socket.send('{"text": "a"}')
        said = [json.loads(message) for message in socket]
    assert [message["type"] for message in said] == ["format", "error"]
    assert "the language model failed: " in said[1]["message"]
    assert "'unheard-of' does not exist" in said[1]["message"]


def test_more_listeners_than_the_pool_has_are_an_error(page, listeners):
    with contextlib.ExitStack() as stack:
        for _ in range(LISTENERS):
            stack.enter_context(page.pool.open())
        with pytest.raises(RuntimeError, match=f"{LISTENERS} streams are open"):
            asyncio.run(listeners["listen"](f"ws://{page.address}/speak", "Hello.", 0.0))


def test_the_stand_in_speaks_the_protocol(page):
    def asked(**more):
        body = json.dumps({"model": "orpheus", "prompt": "Hello", **more}).encode()
        request = urllib.request.Request(f"http://{page.language_model}/v1/completions", body)
        with urllib.request.urlopen(request) as answer:
            return answer.read().decode()

    choice = json.loads(asked(max_tokens=20))["choices"][0]
    streamed = [line.removeprefix("data: ") for line in asked(max_tokens=20, stream=True).split("\n\n") if line]
    assert streamed.pop() == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in streamed) == choice["text"]
    assert choice["finish_reason"] == "length"
    assert choice["text"].count("<custom_token_") == 20
    assert page.text.startswith(choice["text"])

"""Whole recordings over HTTP, what operators watch, bearer tokens and limits."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import blazen_codec_core as bc
from blazen_codec_core import transcode
from blazen_codec_core.protocol import ERRORS, SERVICE_CODES
from blazen_codec_core.server.api.access import Access, ClientLimits, read_tokens
from blazen_codec_core.server.api.answers import STATUS
from blazen_codec_core.server.api.routes import OPERATIONS, openapi
from blazen_codec_core.server.hosts import Hosts
from tests.helpers.live_server import PATIENCE, serving_api, wav
from tests.server.test_api_streams import END, hear, opened, streamed

SECRET, OTHER = "s" * 32, "o" * 32


@pytest.fixture(scope="module")
def served():
    with serving_api(("snac_tiny", "encodec_tiny")) as server:
        yield server


@pytest.fixture(scope="module")
def codec():
    return bc.load("snac_tiny", device="cpu")


def ask(served, path: str, body: bytes | None = None, **headers: str):
    """Status, body and headers of an answer."""
    request = urllib.request.Request(f"{served.url}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def failed(answer) -> tuple[int, str]:
    status, body, _ = answer
    return status, json.loads(body)["code"]


WRONG = {
    "no codec": ("/v1/encode", b"x", 400, "protocol"),
    "unknown codec": ("/v1/encode?codec=dac_44khz", b"x", 404, "unknown_codec"),
    "unknown parameter": ("/v1/encode?codec=snac_tiny&weights=x", b"x", 400, "protocol"),
    "bandwidth": ("/v1/encode?codec=snac_tiny&bandwidth=9", b"x", 422, "invalid_input"),
    "no audio": ("/v1/encode?codec=snac_tiny", b"dear diary" * 99, 422, "corrupt_file"),
    "nothing": ("/v1/encode?codec=snac_tiny", b"", 422, "invalid_input"),
    "cut off": ("/v1/encode?codec=snac_tiny", wav(1.0)[:20_000], 422, "corrupt_file"),
    "no tokens": ("/v1/decode", b"x" * 99, 422, "corrupt_file"),
    "format": ("/v1/decode?format=exe", b"x", 400, "protocol"),
}


class TestWholeRecordings:
    @pytest.mark.parametrize(("rate", "channels", "kind"), [(24_000, 1, "WAV"), (44_100, 2, "FLAC"), (16_000, 1, "OGG")])
    def test_a_file_gives_the_tokens_of_the_command_line(self, served, codec, tmp_path, rate, channels, kind):
        pcm, _ = soundfile.read(io.BytesIO(wav(1.5, rate, channels)))
        path = tmp_path / "in"
        soundfile.write(path, pcm, rate, format=kind)
        status, body, headers = ask(served, "/v1/encode?codec=snac_tiny", path.read_bytes())
        assert (status, headers["content-type"]) == (200, "application/vnd.blazen-codec.tokens")
        assert bc.CodecTokens.from_bytes(body) == transcode.encode(codec, transcode.Recording.at(path, codec))

    def test_options_are_those_of_encode(self, served):
        codec = bc.load("encodec_tiny", device="cpu")
        status, body, _ = ask(served, "/v1/encode?codec=encodec_tiny&num_codebooks=2&mono=true", wav(1.0, 24_000, 2))
        tokens = bc.CodecTokens.from_bytes(body)
        assert (status, tokens.num_codebooks, tokens.streams, tokens.codec) == (200, 2, 1, codec.spec.identity)

    @pytest.mark.parametrize("form", ["wav", "flac", "ogg", "pcm16", "float32"])
    def test_tokens_give_the_audio_of_the_command_line(self, served, codec, tmp_path, form):
        content = tmp_path / "in.wav"
        content.write_bytes(wav(1.5, 44_100, 2))
        tokens = transcode.encode(codec, transcode.Recording.at(content, codec))
        status, body, headers = ask(served, f"/v1/decode?format={form}", tokens.to_bytes())
        assert status == 200
        assert (headers["blazen-sample-rate"], headers["blazen-channels"], headers["blazen-samples"]) == ("44100", "2", "66150")
        transcode.decode_to_file(codec, tokens, tmp_path / f"out.{form if form in ('wav', 'flac', 'ogg') else 'wav'}")
        if form in ("wav", "flac"):
            assert body == (tmp_path / f"out.{form}").read_bytes()
        elif form == "ogg":
            assert soundfile.info(io.BytesIO(body)).frames == 66_150
        else:
            wanted = np.concatenate(list(transcode.restored_pieces(codec, tokens)), axis=1)
            kind, scale = ("<i2", 32768) if form == "pcm16" else ("<f4", 1)
            got = np.frombuffer(body, kind).reshape(-1, 2).T / scale
            np.testing.assert_allclose(got, wanted, atol=0.5 / scale if scale > 1 else 0)

    def test_json_goes_both_ways(self, served, codec):
        _, body, headers = ask(served, "/v1/encode?codec=snac_tiny", wav(1.0), Accept="application/json")
        assert headers["content-type"] == "application/json"
        made = json.loads(body)
        tokens = bc.CodecTokens.from_codes(
            codec.spec, [np.array(code) for code in made["codes"]], num_samples=made["num_samples"]
        )
        assert (tokens.num_samples, made["codec"]) == (24_000, "snac:snac_tiny")
        _, audio, _ = ask(served, "/v1/decode?format=float32", body, **{"Content-Type": "application/json"})
        np.testing.assert_array_equal(np.frombuffer(audio, "<f4"), codec.decode(tokens)[0])

    def test_a_body_in_chunks_without_a_length(self, served, codec):
        connection = http.client.HTTPConnection(served.where, timeout=PATIENCE)
        content = wav(1.0)
        parts = (content[start : start + 10_000] for start in range(0, len(content), 10_000))
        connection.request(
            "POST", "/v1/encode?codec=snac_tiny", parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        answer = connection.getresponse()
        assert (answer.status, bc.CodecTokens.from_bytes(answer.read()).num_samples) == (200, 24_000)
        connection.close()

    @pytest.mark.parametrize(("path", "body", "status", "code"), WRONG.values(), ids=WRONG)
    def test_what_cannot_be_done_is_said(self, served, path, body, status, code):
        assert failed(ask(served, path, body)) == (status, code)

    @pytest.mark.parametrize(
        "body", [b"[]", b"{", b'{"codec": "snac_tiny"}', b'{"codec": "snac_tiny", "codes": [[[1.5]]]}', b"[" * 9999]
    )
    def test_nonsense_in_json(self, served, body):
        assert failed(ask(served, "/v1/decode", body, **{"Content-Type": "application/json"})) == (422, "invalid_tokens")

    def test_tokens_of_a_codec_that_is_not_offered(self, served):
        tokens = bc.load("dac_tiny", device="cpu").encode(np.zeros(24_000, np.float32), 24_000)
        assert failed(ask(served, "/v1/decode", tokens.to_bytes())) == (404, "unknown_codec")

    def test_bodies_and_audio_have_limits(self, codec):
        with serving_api(bytes=60_000, seconds=2.0) as served:
            assert failed(ask(served, "/v1/encode?codec=snac_tiny", wav(1.5))) == (413, "too_large")
            flac = io.BytesIO()
            soundfile.write(flac, np.zeros(24_000 * 60), 24_000, format="FLAC")
            assert len(flac.getvalue()) < 60_000
            assert failed(ask(served, "/v1/encode?codec=snac_tiny", flac.getvalue())) == (413, "too_large")
            tokens = codec.encode(np.zeros(24_000 * 3, np.float32), 24_000)
            assert failed(ask(served, "/v1/decode", tokens.to_bytes())) == (413, "too_large")

    def test_a_body_may_not_trickle_in(self):
        with (
            serving_api(stall_seconds=0.4) as served,
            socket.create_connection(served.where.split(":"), timeout=PATIENCE) as slow,
        ):
            slow.sendall(
                f"POST /v1/encode?codec=snac_tiny HTTP/1.1\r\nHost: {served.where}\r\nContent-Length: 9\r\n\r\nx".encode()
            )
            assert slow.recv(1 << 12).startswith(b"HTTP/1.1 408")

    def test_a_client_that_leaves_frees_its_turn(self):
        with serving_api(jobs=1, waiting=0) as served:
            head = f"POST /v1/encode?codec=snac_tiny HTTP/1.1\r\nHost: {served.where}\r\nContent-Length: 99\r\n\r\n".encode()
            with socket.create_connection(served.where.split(":"), timeout=PATIENCE) as leaves:
                leaves.sendall(head)
                while not served.service.is_busy:
                    time.sleep(0.01)
                assert failed(ask(served, "/v1/encode?codec=snac_tiny", wav(0.5))) == (503, "busy")
            started = time.monotonic()
            while served.service.is_busy:
                assert time.monotonic() - started < 10
                time.sleep(0.01)
            assert ask(served, "/v1/encode?codec=snac_tiny", wav(0.5))[0] == 200

    def test_a_client_that_does_not_take_its_audio_is_left(self, codec, monkeypatch):
        monkeypatch.setattr("blazen_codec_core.server.door.CLOSE_SECONDS", 0.2)
        codes = [np.zeros(6000 // stride, int) for stride in codec.spec.strides]
        tokens = bc.CodecTokens.from_codes(codec.spec, codes).to_bytes()  # of a minute
        with serving_api(stall_seconds=0.5) as served, socket.socket() as stalls:
            stalls.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalls.connect(("127.0.0.1", int(served.where.split(":")[1])))
            head = f"POST /v1/decode?format=float32 HTTP/1.1\r\nHost: {served.where}\r\nContent-Length: {len(tokens)}\r\n\r\n"
            stalls.sendall(head.encode() + tokens)
            while not served.service.is_busy:
                time.sleep(0.01)
            started = time.monotonic()
            while served.service.is_busy or served.server.server_state.connections:
                assert time.monotonic() - started < 60
                time.sleep(0.05)
            received = 0
            with contextlib.suppress(ConnectionError):
                while part := stalls.recv(1 << 20):
                    received += len(part)
            assert 0 < received < 4 * 24_000 * 60


class TestWhatIsWatched:
    def test_codecs_are_those_offered(self, served):
        listed = json.loads(ask(served, "/v1/codecs")[1])["codecs"]
        assert [entry["name"] for entry in listed] == ["snac_tiny", "encodec_tiny"]
        spec = bc.Registry().find("snac_tiny").spec
        assert listed[0]["strides"] == list(spec.strides)
        assert listed[0]["bandwidths"] == list(spec.bandwidths)

    def test_it_is_alive_and_ready(self, served):
        assert json.loads(ask(served, "/health")[1])["status"] == "alive"
        assert json.loads(ask(served, "/ready")[1]) == {"status": "ready", "open_streams": 0}

    def test_it_is_not_ready_while_it_loads(self, monkeypatch):
        begun = []

        async def slow(self):
            begun.append(self)
            while len(begun) < 2:
                await asyncio.sleep(0.01)

        monkeypatch.setattr(bc.DynCodecProvider, "aload", slow)
        with serving_api(ready=False) as served:
            status, body, headers = ask(served, "/ready")
            assert (status, json.loads(body)["status"]) == (503, "loading")
            assert headers["retry-after"]
            begun.append(None)

    def test_nor_if_loading_failed(self):
        with serving_api(weights="/nowhere/at/all.safetensors") as served:
            while not served.service.failure:
                time.sleep(0.01)
            assert json.loads(ask(served, "/ready")[1])["status"] == "failed"
            status, body, _ = ask(served, "/v1/encode?codec=snac_tiny", wav(0.5))
            assert (status, json.loads(body)["code"]) == (503, "weights_unavailable")
            assert b"nowhere" not in body  # which is the server's business

    def test_metrics_count(self, codec):
        with serving_api() as served, opened(served) as socket:
            hear(socket, "ready")
            ask(served, "/v1/encode?codec=nonsense", b"x")
            streamed(served, [np.zeros(11, "<i4").tobytes() * 30, END])
            families = {family.name: family for family in text_string_to_metric_families(ask(served, "/metrics")[1].decode())}
            samples = {
                (sample.name, *sorted(sample.labels.values())): sample.value
                for family in families.values()
                for sample in family.samples
            }
            here = ("decode", "snac_tiny")
            assert samples["blazen_codec_streams_open", *here] == 1
            assert samples["blazen_codec_streams_total", *here] == 2
            assert samples["blazen_codec_ready_rows", *here] == samples["blazen_codec_queue_seconds", *here] == 0
            assert samples["blazen_codec_step_seconds_count", *here] > 0
            assert samples["blazen_codec_step_rows_total", *here] >= 30
            assert samples["blazen_codec_audio_seconds_total", *here] == pytest.approx(1.2)
            assert samples["blazen_codec_rejected_total", "unknown_codec"] == 1
            assert samples["blazen_codec_http_requests_total", "/v1/encode", "404"] == 1
            assert families["blazen_codec_underruns"].samples[0].labels == {"codec": "snac_tiny"}

    def test_openapi_has_every_route_and_every_message(self, served):
        described = json.loads(ask(served, "/openapi.json")[1])
        assert described["openapi"] == "3.1.0"
        for operation in OPERATIONS:
            assert described["paths"][operation.path][operation.method.lower()]["summary"]
        text = json.dumps(described)
        for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
            assert reference in described["components"]["schemas"]
        parameters = described["paths"]["/v1/encode"]["post"]["parameters"]
        assert {"codec", "bandwidth", "mono"} <= {parameter["name"] for parameter in parameters}
        messages = described["paths"]["/v1/stream"]["get"]["x-messages"]
        names = {kind: {each["$ref"].rsplit("/", 1)[1] for each in messages[kind]} for kind in messages}
        assert names["client"] == {"Open", "Ids", "Text", "Ping", "End"}
        assert names["server"] == {"Ready", "Ack", "Pong", "Ended", "Error"}

    def test_routes_are_no_others(self, served):
        paths = {getattr(route, "path", None) for route in served.server.config.app.routes}
        assert paths == {*openapi()["paths"], "/listen"}

    def test_every_code_has_a_status_or_is_the_servers_failure(self):
        assert {*ERRORS, *SERVICE_CODES} - set(STATUS) == {"plugin_error", "inference_error", "internal"}


@pytest.fixture(scope="module")
def closed():
    with serving_api(tokens=(SECRET, OTHER), client=ClientLimits(streams=1, requests=1)) as server:
        yield server


class TestTokens:
    @pytest.mark.parametrize("path", ["/v1/codecs", "/metrics"])
    def test_without_a_token_nothing_is_given(self, closed, path):
        status, body, headers = ask(closed, path)
        assert (status, json.loads(body)["code"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
        assert ask(closed, path, Authorization=f"Bearer {SECRET[:-1]}x")[0] == 401
        assert ask(closed, path, Authorization=f"Basic {SECRET}")[0] == 401
        assert ask(closed, path, Authorization=f"bearer {SECRET}")[0] == 200

    @pytest.mark.parametrize("path", ["/v1/encode?codec=snac_tiny", "/v1/decode"])
    def test_nor_is_anything_done(self, closed, path):
        assert failed(ask(closed, path, b"x")) == (401, "unauthorized")

    @pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json", "/listen"])
    def test_probes_and_descriptions_are_open(self, closed, path):
        assert ask(closed, path)[0] == 200

    def test_streams_take_it_in_the_first_message_or_the_header(self, closed):
        assert streamed(closed, []).last["code"] == "unauthorized"
        assert streamed(closed, [], token="x" * 32).last["code"] == "unauthorized"
        with opened(closed, token=SECRET) as socket:
            assert hear(socket, "ready").last["type"] == "ready"
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://{closed.where}/v1/stream", additional_headers={"Authorization": "Bearer no"}).__enter__()

    def test_one_client_has_so_many_streams_and_another_its_own(self, closed):
        with opened(closed, token=SECRET) as mine:
            hear(mine, "ready")
            assert streamed(closed, [], token=SECRET).last["code"] == "too_many"
            with opened(closed, token=OTHER) as other:
                assert hear(other, "ready").last["type"] == "ready"

    def test_and_so_many_requests(self):
        access = Access(limits=ClientLimits(requests=1))
        with access.request("a"), access.request("b"):
            with pytest.raises(bc.ServiceError, match="1 requests") as refused, access.request("a"):
                pass
            assert refused.value.code == "too_many"
        with access.request("a"):
            pass

    def test_a_token_is_compared_with_all_in_constant_time(self, monkeypatch):
        compared = []
        monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append(one) or one == other)
        assert Access((SECRET, OTHER)).client(f"Bearer {SECRET}", "1.2.3.4") == "token 1"
        assert len(compared) == 2
        assert {len(digest) for digest in compared} == {32}  # whatever the length of the token

    def test_tokens_are_in_no_message_and_no_log(self, closed, caplog):
        streamed(closed, [], token=SECRET, codec="nonsense")
        ask(closed, "/v1/encode?codec=nonsense", b"x", Authorization=f"Bearer {SECRET}")
        assert SECRET not in caplog.text + str(ask(closed, "/metrics", Authorization=f"Bearer {SECRET}"))

    def test_openapi_says_so(self, closed):
        described = json.loads(ask(closed, "/openapi.json")[1])
        assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
        assert "security" not in described["paths"]["/health"]["get"]

    def test_tokens_come_from_a_file_or_the_environment(self, tmp_path, monkeypatch):
        path = tmp_path / "tokens"
        path.write_text(f"# mine\n{SECRET}\n\n{OTHER}  # theirs\n")
        assert read_tokens(path) == [SECRET, OTHER]
        assert read_tokens(None) == []
        monkeypatch.setenv("BLAZEN_CODEC_TOKENS", f"{SECRET}, {OTHER}\n")
        assert read_tokens(None) == [SECRET, OTHER]

    @pytest.mark.parametrize("text", ["", "# none\n", "short", "x" * 999, "with a space in the middle", "\xff" * 20])
    def test_other_tokens_are_refused_and_not_shown(self, tmp_path, text):
        (tmp_path / "tokens").write_text(text)
        with pytest.raises(bc.InvalidInput) as refused:
            read_tokens(tmp_path / "tokens")
        assert not text.strip("# \n") or text not in str(refused.value)

    def test_an_empty_environment_is_an_error_and_no_open_door(self, monkeypatch):
        monkeypatch.setenv("BLAZEN_CODEC_TOKENS", " ")
        with pytest.raises(bc.InvalidInput):
            read_tokens(None)


class TestOrigins:
    @pytest.mark.parametrize("path", [operation.path for operation in OPERATIONS])
    def test_pages_of_other_origins_are_refused(self, served, path):
        body = None if path.startswith(("/v1/codecs", "/health", "/ready", "/metrics", "/openapi")) else b"x"
        assert failed(ask(served, path, body, Origin="http://evil.example")) == (403, "forbidden")
        assert failed(ask(served, path, body, Origin="null")) == (403, "forbidden")

    def test_other_names_are_refused(self, served):
        assert ask(served, "/v1/codecs", Host="evil.example")[0] == 400

    def test_names_can_be_added(self):
        with serving_api(hosts=Hosts(names=["codecs.example"])) as served:
            assert ask(served, "/v1/codecs", Host="codecs.example", Origin="https://codecs.example")[0] == 200


def test_the_command_serves_both_and_neither_page_nor_torch_with_tokens(tmp_path):
    (tmp_path / "tokens").write_text(SECRET)
    program = [sys.executable, "-m", "blazen_codec_core.cli.main", "serve", "-c", "snac_tiny", "--no-pesq", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*program, "--tokens-file", tmp_path / "tokens"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        where = process.stdout.readline().split("/")[2]

        class Here:
            url = f"http://{where}"

        assert ask(Here, "/")[0] == 404
        assert ask(Here, "/v1/codecs")[0] == 401
        assert ask(Here, "/v1/codecs", Authorization=f"Bearer {SECRET}")[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--page", "--tokens-file", "tokens"], "no login"),
        (["--no-page", "--no-api"], "nothing to serve"),
        (["--tokens-file", "none"], "none"),
    ],
)
def test_options_that_do_not_go_together(run, tmp_path, options, says):
    (tmp_path / "tokens").write_text(SECRET)
    code, _, err = run("serve", "-c", "snac_tiny", "--port", "0", *options)
    assert code != 0
    assert says in err

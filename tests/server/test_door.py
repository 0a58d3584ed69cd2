"""Who comes to a server: slowly, in numbers, from elsewhere, and under other names."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from blazen_codec_core.server import door
from blazen_codec_core.server.hosts import Hosts
from tests.helpers.live_server import CHUNK, PATIENCE, serving, visit, wav

SERVE = [sys.executable, "-m", "blazen_codec_core.cli.main", "serve", "-c", "snac_tiny", "--no-pesq", "--port", "0"]
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def dialled(where: str, said: bytes = b"") -> socket.socket:
    made = socket.create_connection(where.split(":"), timeout=PATIENCE)
    made.sendall(said)
    return made


def heard(connection: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    parts = []
    with connection:
        try:
            while part := connection.recv(1 << 16):
                parts.append(part)
        except ConnectionError:
            pass
    return b"".join(parts)


def status(where: str, *lines: str, path: str = "/") -> int:
    """Of the answer to a request with these header lines, told without a client that would mend them."""
    said = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "Connection: close", "", ""]).encode("latin-1")
    return int(heard(dialled(where, said)).split(b" ", 2)[1])


def opened(where: str, *lines: str, host: str | None = None) -> int:
    """Of a request to open a WebSocket with these header lines."""
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    said = "\r\n".join(
        ["GET /compare HTTP/1.1", f"Host: {host or where}", "Connection: Upgrade", *upgrade, *lines, "", ""]
    ).encode("latin-1")
    with dialled(where, said) as connection:
        return int(connection.recv(1 << 12).split(b" ", 2)[1])


class TestSlowOnes:
    @pytest.mark.parametrize("said", [b"", b"G", HEAD, HEAD + b"\r\n" + HEAD], ids=["silent", "a letter", "a part", "a second"])
    def test_a_head_that_does_not_come_ends_the_connection(self, said):
        with serving(("snac_tiny",), entering={"head_seconds": 0.5}) as where:
            started = time.monotonic()
            heard(dialled(where, said))
            assert time.monotonic() - started < 20

    def test_nor_does_one_that_trickles(self):
        with serving(("snac_tiny",), entering={"head_seconds": 0.5}) as where, dialled(where, HEAD) as connection:
            sent = 0
            with contextlib.suppress(ConnectionError):
                for sent in range(200):
                    connection.sendall(f"X-{sent}: x\r\n".encode())
                    time.sleep(0.05)
            assert sent < 199

    def test_sixty_four_idle_ones_keep_nobody_out(self):
        with serving(("snac_tiny",), entering={"head_seconds": 5.0}) as where:
            idle = [dialled(where, HEAD if number % 2 else b"") for number in range(64)]
            assert status(where, f"Host: {where}") == 200
            assert visit(where, wav(0.5)).order[-1] == "done"
            for connection in idle:
                heard(connection)

    def test_a_visit_takes_longer_than_a_head(self):
        with serving(("snac_tiny",), entering={"head_seconds": 0.3}) as where, connect(f"ws://{where}/compare") as visitor:
            time.sleep(1)
            visitor.send("nonsense")
            assert json.loads(visitor.recv(PATIENCE))["type"] == "error"

    def test_a_head_is_no_longer_than_heads_are(self):
        with serving(("snac_tiny",)) as where:
            assert heard(dialled(where, HEAD + b"X: " + b"x" * (2 * door.LARGEST_HEAD))).startswith(b"HTTP/1.1 400")


class TestNumbers:
    def test_beyond_a_limit_503_is_said(self):
        with serving(("snac_tiny",), entering={"connections": 4, "head_seconds": 3.0}) as where:
            idle = [dialled(where) for _ in range(4)]
            time.sleep(0.3)
            assert status(where, f"Host: {where}") == 503
            assert opened(where) == 503
            more = [dialled(where) for _ in range(12)]
            time.sleep(0.3)
            assert heard(more[-1]) == b""  # which is closed at once
            for connection in [*idle, *more[:-1]]:
                heard(connection)
            assert status(where, f"Host: {where}") == 200

    def test_messages_are_no_larger_than_they_may_be(self):
        with serving(("snac_tiny",)) as where, connect(f"ws://{where}/compare") as visitor:
            visitor.send("x" * (door.LARGEST_MESSAGE + 1))
            with pytest.raises(ConnectionClosed):
                visitor.recv(PATIENCE)
        assert CHUNK <= door.LARGEST_MESSAGE


@pytest.fixture(scope="module")
def server():
    with serving(("snac_tiny",)) as where:
        yield where


ODD = [
    "null", "", "http://", "http://[", "http://[::1", "http://[::1]x", "http://[::g]", "http://::1", "//127.0.0.1", "127.0.0.1",
    "http://127.0.0.1:99999", "http://127.0.0.1:-1", "http://127.0.0.1:1e3", "http://127.0.0.1:", "http://127.0.0.1@evil.example",
    "http://evil.example", "http://evil.example:80", "http://127.0.0.1.evil.example", "file:///", "javascript:alert(1)", "http:///x",
    "http://127.0.0.1:80#@evil.example", "http://\xff\xfe", "http://127.0.0.1%00", "chrome-extension://abc", "a b", "http://a\tb",
    "h" * 9000, "http://[fe80::1%25eth0]", "http://\u00e9.example", "ws://127.0.0.1",
]  # fmt: skip


class TestNames:
    @pytest.mark.parametrize("origin", ODD)
    def test_odd_origins_are_refused_and_nothing_fails(self, server, caplog, origin):
        assert opened(server, f"Origin: {origin}") == (400 if len(origin) > 4000 else 403)
        assert not [record for record in caplog.records if record.exc_info]

    def test_nul_and_two_of_them_are_refused(self, server, caplog):
        assert opened(server, "Origin: http://127.0.0.1\0") in (400, 403)
        assert opened(server, f"Origin: http://{server}", f"Origin: http://{server}") in (400, 403)
        assert not [record for record in caplog.records if record.exc_info]

    def test_our_own_and_none_are_taken(self, server):
        assert opened(server) == 101
        assert opened(server, f"Origin: http://{server}") == 101
        assert opened(server, f"Origin: HTTP://{server}") == 403
        port = server.split(":")[1]
        assert opened(server, f"Origin: http://localhost:{port}", host=f"LOCALHOST:{port}") == 101
        assert opened(server, f"Origin: http://[0:0::1]:{port}", host=f"[::1]:{port}") == 101
        assert opened(server, f"Origin: http://localhost:{port}") == 403  # another page's than the one that is spoken to

    @pytest.mark.parametrize(
        "name", ["evil.example", "[::2]", "192.0.2.1", "", "a b", "[", "127.0.0.1:99999", "127.0.0.1:x", "\xff"]
    )
    def test_other_names_are_refused(self, server, caplog, name):
        assert status(server, f"Host: {name}") == 400
        assert not [record for record in caplog.records if record.exc_info]

    @pytest.mark.parametrize("name", ["127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "LOCALHOST", "localhost."])
    def test_every_name_of_this_machine_is_served(self, server, name):
        assert opened(server, host=name) == 101

    def test_names_can_be_added(self):
        with serving(("snac_tiny",), hosts=Hosts(names=["Codecs.example", "*.below.example"])) as where:
            assert status(where, "Host: codecs.example") == 200
            assert status(where, "Host: a.below.example:443") == 200
            assert status(where, "Host: below.example") == 400
            assert opened(where, "Origin: https://codecs.example", host="codecs.example") == 101
            assert opened(where, "Origin: https://codecs.example") == 101  # of a proxy that says its own name for ours
            assert opened(where, "Origin: https://evil.example", host="codecs.example") == 403

    def test_beyond_loopback_names_are_still_checked(self):
        with serving(("snac_tiny",), hosts=Hosts("0.0.0.0")) as where:
            assert status(where, "Host: evil.example") == 400
            for name in ("192.0.2.7:8765", "[2001:db8::1]", socket.gethostname()):
                assert status(where, f"Host: {name}") == 200

    def test_the_command_warns_beyond_loopback(self):
        program = [*SERVE, "--host", "0.0.0.0", "--allow-host", "codecs.example"]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            port = process.stdout.readline().split("/")[2].split(":")[1]
            assert status(f"127.0.0.1:{port}", "Host: codecs.example") == 200
            assert status(f"127.0.0.1:{port}", "Host: evil.example") == 400
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
        assert "0.0.0.0 is reachable from other machines" in said

    def test_a_client_that_is_refused_is_told(self, server):
        with pytest.raises(InvalidStatus):
            connect(f"ws://{server}/compare", origin="null").__enter__()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read where Linux keeps it")
def test_memory_after_200_visits_is_that_after_20():
    """Of a server in a process of its own."""
    process = subprocess.Popen(SERVE, stdout=subprocess.PIPE, text=True)

    def held() -> float:
        with open(f"/proc/{process.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    try:
        where, content, after = process.stdout.readline().split("/")[2], wav(1.0), {}
        for number in range(1, 201):
            assert visit(where, content).order[-1] == "done"
            with urllib.request.urlopen(f"http://{where}/") as page:
                page.read()
            after[number] = held()
        assert max(after[number] for number in range(190, 201)) < max(after[number] for number in range(10, 21)) + 24
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)

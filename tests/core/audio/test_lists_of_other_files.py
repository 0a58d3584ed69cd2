"""What FFmpeg is given is read, and nothing that is written in it is opened: neither files nor addresses."""

from __future__ import annotations

import http.server
import io
import threading

import pytest

import blazen_codec_core as bc
from blazen_codec_core.audio import ffmpeg
from blazen_codec_core.audio.containers import BEGINNINGS
from blazen_codec_core.audio.reader import AudioReader

pytest.importorskip("av")


@pytest.fixture
def asked():
    """What a server on this machine is asked for, and where it is."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()
        thread.join()


def lists(where: str, secret: str) -> dict[str, bytes]:
    """Playlists and manifests of the formats that FFmpeg follows."""
    dash = (
        f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" type="static">'
        f'<BaseURL>{where}/</BaseURL><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="9">'
        "<BaseURL>a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{where}/a.ts\n#EXT-X-ENDLIST\n".encode(),
        "hls of a file": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "concat": f"ffconcat version 1.0\nfile {secret}\n".encode(),
        "dash": dash.encode(),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    }


@pytest.mark.parametrize("name", lists("", ""))
@pytest.mark.parametrize("before", [b"", b"ID3\x04\0\0\0\0\0\0", b"#!AMR\n", b"aaaaftyp ", b"FLV\x01"])
def test_nothing_else_is_opened(asked, tmp_path, name, before):
    where, paths = asked
    secret = tmp_path / "secret.wav"
    bc.write_audio(secret, [0.1] * 8000, 8000)
    content = before + lists(where, str(secret))[name]
    for open_it in (lambda file: ffmpeg.Decoder(file, "a", "AAC"), lambda file: AudioReader("a", content=file)):
        try:
            given = list(open_it(io.BytesIO(content)).blocks(0, None, 100) if open_it else ())
        except (bc.CorruptFile, bc.InvalidInput, TypeError):
            given = []
        assert sum(block.shape[1] for block in given) < 8000
    assert not paths


def test_every_container_for_ffmpeg_has_a_format_there():
    import av

    assert {container.name for *_, container in BEGINNINGS if container.extra == "av"}
    for name in ("aac", "asf", "avi", "flv", "matroska", "mov", "mpegts", "ogg", "wv"):
        assert name in ffmpeg.DEMUXERS
        assert any(name in known.split(",") for known in av.formats_available)
    assert not set(ffmpeg.DEMUXERS) & {"hls", "concat", "dash", "sdp", "rtsp", "image2", "lavfi", "imf", "concatf"}

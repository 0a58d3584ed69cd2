"""Weights at an address: fetched once, checked, and never half kept."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from email.message import Message

import pytest
from pydantic import ValidationError

import blazen_codec_core as bc
from blazen_codec_core import weights

DATA = b"weights " * 1000
SOURCE = bc.WeightSource(url="https://example.org/v0/", file="toy-1.th", sha256=hashlib.sha256(DATA).hexdigest()[:8])


class Reply(io.BytesIO):
    def __init__(self, data: bytes, length: int | None) -> None:
        super().__init__(data)
        self.headers = Message()
        if length is not None:
            self.headers["Content-Length"] = str(length)


@pytest.fixture
def network(monkeypatch):
    """A publisher in this process: what it sends, and the addresses it was asked for."""
    monkeypatch.setattr(weights, "is_offline", lambda: False)
    asked: list[str] = []

    def serve(data: bytes | Exception, length: int | None = len(DATA)) -> list[str]:
        def urlopen(address: str, timeout: float) -> Reply:
            asked.append(address)
            if isinstance(data, Exception):
                raise data
            return Reply(data, length)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return serve


def find(tmp_path, source=SOURCE, **options) -> weights.WeightFile:
    return weights.published([source], "toy", bc.LoadOptions(cache_dir=str(tmp_path / "cache"), **options))


def kept(folder) -> list[str]:
    """The files that are there, by their names."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("length", [len(DATA), None])
def test_it_is_fetched_once(network, tmp_path, length):
    asked = network(DATA, length)
    for _ in range(2):
        found = find(tmp_path)
        assert found.path.read_bytes() == DATA
        assert found.published
    assert asked == ["https://example.org/v0/toy-1.th"]
    assert kept(tmp_path) == ["toy-1.th"]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"something else", "broke off after 14 of 8000 bytes"),
        (DATA[:-1] + b"!", "but .* was published; it was not kept"),
        (urllib.error.HTTPError("https://example.org", 404, "Not Found", Message(), None), "404"),
        (urllib.error.URLError("no route to host"), "no route to host"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_what_goes_wrong_leaves_nothing(network, tmp_path, reply, says):
    network(reply)
    with pytest.raises(bc.WeightsUnavailable, match=f"toy-1.th could not be downloaded to .*{says}.*by hand"):
        find(tmp_path)
    assert kept(tmp_path) == []


def test_offline_nothing_is_asked_for(network, tmp_path):
    asked = network(DATA)
    with pytest.raises(bc.WeightsUnavailable, match=r"toy-1\.th is in none of .*by hand"):
        find(tmp_path, offline=True)
    assert not asked


def test_the_publishers_own_cache_comes_first(network, tmp_path, monkeypatch):
    asked = network(DATA)
    monkeypatch.setenv("TOYS", str(tmp_path))
    (tmp_path / "toy-1.th").write_bytes(DATA)
    source = SOURCE.model_copy(update={"caches": ("$NOT_SET/toy-1.th", "$TOYS/toy-1.th")})
    assert find(tmp_path, source).path == tmp_path / "toy-1.th"
    assert not asked
    (tmp_path / "toy-1.th").write_bytes(b"other")
    with pytest.raises(bc.WeightsUnavailable, match="was not used: remove it"):
        find(tmp_path, source)


def test_a_mirror_is_asked_when_the_first_does_not_answer(network, tmp_path):
    network(urllib.error.URLError("down"))
    mirror = tmp_path / "mirror.th"
    mirror.write_bytes(DATA)
    second = SOURCE.model_copy(update={"url": "https://example.net/", "caches": (str(mirror),)})
    options = bc.LoadOptions(cache_dir=str(tmp_path / "cache"))
    assert weights.published([SOURCE, second], "toy", options).path == mirror
    mirror.unlink()
    with pytest.raises(bc.WeightsUnavailable, match=r"example\.org.*; or: .*example\.net"):
        weights.published([SOURCE, second], "toy", options)


def test_a_cache_that_cannot_be_written(network, tmp_path):
    network(DATA)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(bc.WeightsUnavailable, match="could not be downloaded to"):
        find(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"url": "http://example.org/"}, {"url": "https://example.org/x"}, {"url": "https://a/", "repo": "b/c"}]
)
def test_an_address_is_a_folder_behind_https_and_the_only_place(wrong):
    with pytest.raises(ValidationError):
        bc.WeightSource(file="x", **wrong)

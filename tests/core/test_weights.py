"""Weights at an address: fetched once, checked, and never half kept."""

from __future__ import annotations

import hashlib
import io
import re
import tomllib
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

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
        (b"something else", "ended after 14 of 8000 bytes"),
        (DATA[:-1] + b"!", "but .* was published; it was discarded"),
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
    with pytest.raises(bc.WeightsUnavailable, match=r"was not used\. Remove it"):
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


REAL_HUB_PROBLEM = weights.hub_problem
COMMIT = "0123456789abcdef" * 2 + "01234567"
PICKLE, SAFE = b"PK\x03\x04 a checkpoint", b"\x40\0\0\0\0\0\0\0{ tensors"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub in this process: the files of its only repository, and what was asked of it."""
    import huggingface_hub

    asked: list[tuple[str, str]] = []

    def holding(**files: bytes) -> list[tuple[str, str]]:
        def download(repo, file, *, revision, cache_dir, local_files_only):
            asked.append((file, revision))
            content = files.get(file.replace(".", "_"))
            if content is None or local_files_only:
                raise FileNotFoundError(f"no {file}")
            (tmp_path / file).write_bytes(content)
            return str(tmp_path / file)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return asked

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "hub_problem", lambda endpoint: None)
    return holding


def of_hub(sources=(), **options) -> weights.WeightFile:
    found = weights.locate_file(list(sources), "toy", bc.LoadOptions(**options), ["mine.th"])
    assert isinstance(found, weights.WeightFile)
    return found


class TestTrust:
    """A pickle that can be another one tomorrow is read by those who say so."""

    def test_safetensors_come_first_and_need_no_trust(self, hub):
        asked = hub(model_safetensors=SAFE, pytorch_model_bin=PICKLE, config_json=b"{}")
        assert of_hub(weights="me/toy").path.name == "model.safetensors"
        assert "pytorch_model.bin" not in [file for file, _ in asked]

    @pytest.mark.parametrize("revision", [None, "main", "v1", COMMIT[:12], COMMIT.upper()])
    def test_a_pickle_of_a_strangers_repository_is_not_even_fetched(self, hub, revision):
        asked = hub(pytorch_model_bin=PICKLE, mine_th=PICKLE, config_json=b"{}")
        with pytest.raises(bc.WeightsUnavailable, match=r"trust_pickle=True \(--trust-pickle\).*revision= a commit"):
            of_hub(weights="me/toy", revision=revision)
        assert {file for file, _ in asked} == {"model.safetensors"}

    @pytest.mark.parametrize("options", [{"trust_pickle": True}, {"revision": COMMIT}])
    def test_trust_or_a_commit_will_do(self, hub, options):
        hub(pytorch_model_bin=PICKLE, config_json=b"{}")
        assert of_hub(weights="me/toy", **options).path.name == "pytorch_model.bin"

    def test_a_pickle_called_safetensors_is_one(self, hub):
        hub(model_safetensors=PICKLE, config_json=b"{}")
        with pytest.raises(bc.WeightsUnavailable, match=r"model\.safetensors in me/toy is a pickle"):
            of_hub(weights="me/toy")
        assert of_hub(weights="me/toy", trust_pickle=True).path.read_bytes() == PICKLE

    def test_a_published_repository_keeps_its_commit_and_digest(self, hub):
        source = bc.WeightSource(
            repo="me/toy", revision=COMMIT, file="pytorch_model.bin", sha256=hashlib.sha256(PICKLE).hexdigest()
        )
        asked = hub(pytorch_model_bin=PICKLE)
        for options in ({}, {"weights": "me/toy"}):
            assert of_hub([source], **options).published
        assert {revision for _, revision in asked} == {COMMIT}
        hub(pytorch_model_bin=PICKLE + b"!")
        with pytest.raises(bc.WeightsUnavailable, match="was not used"):
            of_hub([source], weights="me/toy")

    @pytest.mark.parametrize("pin", [{}, {"revision": "main"}])
    def test_a_published_pickle_without_either_asks(self, hub, pin):
        hub(pytorch_model_bin=PICKLE)
        source = bc.WeightSource(repo="me/toy", file="pytorch_model.bin", **pin)
        with pytest.raises(bc.WeightsUnavailable, match="trust_pickle=True"):
            of_hub([source])
        assert of_hub([source], trust_pickle=True).path.name == "pytorch_model.bin"
        assert of_hub([source], revision=COMMIT).path.name == "pytorch_model.bin"

    def test_of_two_places_the_one_with_safetensors_is_asked_first(self, hub):
        asked = hub(model_safetensors=SAFE, pytorch_model_bin=PICKLE)
        pickled = bc.WeightSource(repo="me/pickled", revision=COMMIT, file="pytorch_model.bin")
        safe = bc.WeightSource(repo="me/safe", revision=COMMIT, file="model.safetensors")
        assert of_hub([pickled, safe]).path.name == "model.safetensors"
        assert [file for file, _ in asked if file == "pytorch_model.bin"] == ["pytorch_model.bin"]  # in the cache

    def test_an_address_without_a_digest_asks(self, network, tmp_path):
        asked = network(PICKLE, len(PICKLE))
        source = SOURCE.model_copy(update={"sha256": None})
        with pytest.raises(bc.WeightsUnavailable, match=r"toy-1\.th is a pickle"):
            find(tmp_path, source)
        assert not asked
        assert find(tmp_path, source, trust_pickle=True).path.read_bytes() == PICKLE
        with pytest.raises(bc.WeightsUnavailable, match=r"here as .*toy-1\.th, is a pickle"):  # now that it is kept, too
            find(tmp_path, source, offline=True)

    def test_a_file_of_ones_own_needs_none(self, tmp_path):
        (tmp_path / "w.pth").write_bytes(PICKLE)
        assert of_hub(weights=str(tmp_path / "w.pth")).path.name == "w.pth"
        assert of_hub(weights=str(tmp_path)).path.name == "w.pth"


def test_every_published_model_says_which_file_it_is():
    unpinned = {
        source.place for spec in bc.list_codecs() for source in spec.sources if not source.is_pinned and "tiny" not in spec.name
    }
    assert {re.sub(r".*/download/", "", place) for place in unpinned} == {
        "0.0.1/weights.pth",
        "0.0.4/weights_24khz.pth",
        "0.0.5/weights_16khz.pth",
        "1.0.0/weights_44khz_16kbps.pth",
    }
    for spec in bc.list_codecs():
        assert any(source.is_pinned for source in spec.sources) or spec.name == "dac_44khz_16kbps"


def test_pytorch_is_one_whose_reader_runs_nothing():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["torch"] == ["torch>=2.10"]


class TestWhatLoadKnows:
    """`load` reads no weights, and says at once when there are none to be read."""

    REPO = bc.WeightSource(repo="me/toy", revision=COMMIT, file="model.safetensors")

    def spec(self, source):
        return bc.Registry().find("snac_24khz").spec.model_copy(update={"weights": source, "mirrors": ()})

    def test_offline_without_weights(self, tmp_path):
        for source in (self.REPO, SOURCE):
            options = bc.LoadOptions(offline=True, cache_dir=str(tmp_path))
            with pytest.raises(bc.WeightsUnavailable, match="by hand"):
                weights.check_at_hand(self.spec(source), options)
        with pytest.raises(bc.WeightsUnavailable, match="by hand"):
            bc.load("snac_24khz", offline=True, cache_dir=tmp_path)
        assert not bc.load("snac_24khz", offline=True, weights="random:0").is_loaded

    @pytest.mark.parametrize("asked", [None, "me/toy"])
    def test_the_environment_alone_says_offline(self, tmp_path, monkeypatch, asked):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(bc.WeightsUnavailable, match="by hand"):
            bc.load("snac_24khz", weights=asked, cache_dir=tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        assert not bc.load("snac_24khz", weights=asked, cache_dir=tmp_path).is_loaded

    @pytest.mark.parametrize("pin", [COMMIT, "main"])
    def test_offline_with_weights_in_the_cache_of_the_hub(self, tmp_path, monkeypatch, pin):
        from huggingface_hub import try_to_load_from_cache

        folder = tmp_path / "hub" / "models--me--toy"
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
        path = folder / "snapshots" / COMMIT / "model.safetensors"
        path.write_bytes(SAFE)
        source = self.REPO.model_copy(update={"revision": pin})
        assert try_to_load_from_cache("me/toy", "model.safetensors", cache_dir=tmp_path / "hub", revision=pin) == str(path)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        assert weights.at_hand([source], bc.LoadOptions()) == path
        weights.check_at_hand(self.spec(source), bc.LoadOptions(offline=True))
        assert weights.at_hand([source], bc.LoadOptions(revision="v2")) is None

    def test_the_cache_of_the_hub_is_where_its_client_has_it(self, monkeypatch):
        import huggingface_hub.constants

        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", huggingface_hub.constants.HF_HOME)
        assert str(weights.hub_cache(bc.LoadOptions())) == str(Path(huggingface_hub.constants.HF_HOME) / "hub")

    def test_a_path_that_does_not_exist(self):
        with pytest.raises(bc.WeightsUnavailable, match="no such file or directory"):
            bc.load("snac_tiny", weights="./no/such/file.pth")

    def test_a_hub_out_of_reach_is_said_without_trying_again(self, hub, monkeypatch):
        asked = hub(model_safetensors=SAFE, config_json=b"{}")
        monkeypatch.setattr(weights, "hub_problem", REAL_HUB_PROBLEM)

        def refused(*_: object, **__: object) -> None:
            raise urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))

        monkeypatch.setattr(urllib.request, "urlopen", refused)
        with pytest.raises(bc.WeightsUnavailable, match=r"https://\S+ cannot be reached: Connection refused\. To install"):
            of_hub(weights="me/toy", revision=COMMIT)
        assert asked  # of the cache alone

        def answers(*_: object, **__: object) -> None:
            raise urllib.error.HTTPError("https://hub", 403, "Forbidden", None, None)

        monkeypatch.setattr(urllib.request, "urlopen", answers)
        assert of_hub(weights="me/toy", revision=COMMIT).path.name == "model.safetensors"

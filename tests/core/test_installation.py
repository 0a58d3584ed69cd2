"""What to install, and from where."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import importlib_metadata
import pytest

from blazen_codec_core import installation


@pytest.fixture
def installed_from(monkeypatch):
    """Pretends that the installer wrote this down of where core came from."""

    def pretend(written: str | None) -> None:
        distribution = SimpleNamespace(read_text=lambda name: written if name == "direct_url.json" else None)
        monkeypatch.setattr(importlib_metadata, "distribution", lambda name: distribution)

    return pretend


def test_known_plugins_come_from_the_package_metadata():
    assert installation.known_plugins()["snac"] == "blazen-codec-snac"
    assert not {"torch", "training"} & set(installation.known_plugins())


def test_from_a_checkout_plugins_are_installed_from_there(installed_from, tmp_path):
    checkout = tmp_path / "some where"
    (checkout / "plugins" / "snac").mkdir(parents=True)
    installed_from(json.dumps({"url": checkout.as_uri(), "dir_info": {}}))
    assert installation.install_command("snac", "blazen-codec-snac") == f"pip install '{checkout}/plugins/snac'"
    assert installation.install_command("dac", "blazen-codec-dac") == "pip install blazen-codec-dac"  # it is not there
    (checkout / "training").mkdir()
    assert installation.install_command("training", "blazen-codec-training") == f"pip install '{checkout}/training'"


def test_extras_come_from_there_too(installed_from, tmp_path):
    installed_from(json.dumps({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}))
    assert str(installation.missing("streams need websockets", "client")) == (
        f"streams need websockets: pip install '{tmp_path}[client]'"
    )
    installed_from(None)
    assert str(installation.missing("it needs both", "ray", "service")).endswith("pip install 'blazen-codec-core[ray,service]'")


@pytest.mark.parametrize(
    "written", [None, '{"url": "https://example.org/core.whl", "archive_info": {}}', '{"url": "file:///gone"}']
)
def test_from_elsewhere_they_come_from_the_index(installed_from, written):
    installed_from(written)
    assert installation.install_command("snac", "blazen-codec-snac") == "pip install blazen-codec-snac"


def test_without_metadata_they_come_from_the_index(monkeypatch):
    def not_found(name):
        raise importlib_metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib_metadata, "distribution", not_found)
    assert str(installation.missing("datasets need filelock", "dataset")).endswith("pip install 'blazen-codec-core[dataset]'")


def test_this_checkout_is_known(root):
    assert Path(installation.install_command("snac", "blazen-codec-snac").removeprefix("pip install ").strip("'")).is_dir()

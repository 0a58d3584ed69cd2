"""What `deploy/` has fits the server: commands, probes, and arguments of Ray Serve."""

from __future__ import annotations

import importlib
import json
import sys

import pytest
import yaml
from pydantic import ValidationError

import blazen_codec_core as bc
from blazen_codec_core.cli.serve import command
from blazen_codec_core.server import ray_serve
from blazen_codec_core.server.api.routes import OPERATIONS
from tests.helpers.image import DOCKERFILE, instructions

FOLDER = DOCKERFILE.parent / "kubernetes"


def parsed(arguments: list[str]) -> dict[str, object]:
    """Options of `blazen-codec serve`, as its command reads them."""
    assert arguments[:2] == ["blazen-codec", "serve"]
    return command.make_context("serve", arguments[2:]).params


@pytest.fixture
def container():
    deployment, _ = yaml.safe_load_all((FOLDER / "deployment.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


def test_the_image_starts_a_server_of_what_it_has_compiled():
    steps = instructions(DOCKERFILE.read_text())
    given = dict(rest.split("=", 1) for name, rest in steps if name == "ARG")
    options = parsed(json.loads(dict(steps)["CMD"]))
    assert options["names"] == (given["CODECS"].strip('"'),)
    assert f"EXPOSE {options['port']}" in DOCKERFILE.read_text()
    assert dict(steps)["USER"] != "root"


def test_the_deployment_probes_what_there_is_and_waits_for_streams(container):
    pod, container = container
    options = parsed(container["args"])
    assert not options["shows_page"]
    assert pod["terminationGracePeriodSeconds"] > options["drain_seconds"]
    paths = {operation.path for operation in OPERATIONS if operation.is_open}
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] == options["port"]


def test_the_ray_service_names_the_application_and_its_arguments():
    service = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
    [application] = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, name = application["import_path"].split(":")
    assert getattr(importlib.import_module(module), name) is ray_serve.build
    arguments = ray_serve.Arguments.model_validate(application["args"])
    assert arguments.codecs == ("snac_tiny",)
    assert arguments.min_replicas <= arguments.max_replicas
    service = ray_serve.service_of(arguments)
    assert list(service.codecs) == ["snac_tiny"]
    assert service.limits.streams == arguments.max_streams


def test_tokens_come_from_the_environment_or_the_arguments(monkeypatch):
    monkeypatch.setenv("BLAZEN_CODEC_TOKENS", "a" * 32)
    for tokens, wanted in (("", "a" * 32), ("b" * 32, "b" * 32)):
        access = ray_serve.service_of.__wrapped__(ray_serve.Arguments(codecs="snac_tiny", tokens=tokens)).access
        assert access.needs_token
        assert access.client(f"Bearer {wanted}", "1.2.3.4", None)
        with pytest.raises(bc.ServiceError, match="bearer token"):
            access.client("Bearer " + "c" * 32, "1.2.3.4", None)
    service = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())["spec"]["rayClusterConfig"]
    for group in (service["headGroupSpec"], *service["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        assert [variable["name"] for variable in container["env"]] == ["BLAZEN_CODEC_TOKENS"]


def test_arguments_that_are_none_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ray_serve.Arguments.model_validate({"codecs": "snac_tiny", "replicas": 3})
    assert ray_serve.Arguments(codecs="snac_tiny, mimi_tiny").codecs == ("snac_tiny", "mimi_tiny")
    for options, message in (
        ({"codecs": "nothing"}, "nothing"),
        ({"codecs": "snac_tiny", "tokens": "short"}, "token 1 of tokens"),
    ):
        with pytest.raises(bc.CodecError, match=message):
            ray_serve.service_of(ray_serve.Arguments.model_validate(options))


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(bc.EngineNotAvailable, match=r"needs Ray Serve: pip install '\S*\[ray,service\]'"):
        ray_serve.build(ray_serve.Arguments(codecs="snac_tiny"))

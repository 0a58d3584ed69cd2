"""What importing costs, and what is public."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import blazen_codec_core as bc


def loaded_modules(code: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split("\n"))


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "--json"], ["info", "snac_tiny"], ["plugins"], ["--help"], ["encode", "--help"]]
)
def test_commands_that_run_no_model_leave_torch_alone(arguments):
    code = f"from blazen_codec_core.cli.main import main\ntry: main({arguments!r})\nexcept SystemExit as e: assert not e.code"
    assert "torch" not in loaded_modules(code)


def test_listing_imports_neither_torch_nor_numpy():
    modules = loaded_modules("import blazen_codec_core as bc\nassert bc.list_codecs()\nbc.Registry().find('snac_tiny')")
    assert not modules & {"torch", "numpy", "soundfile", "huggingface_hub", "rich"}


def test_all_public_names_import_without_torch():
    assert "torch" not in loaded_modules("from blazen_codec_core import *")


def test_the_public_names_are_sorted():
    assert bc.__all__ == sorted(bc.__all__)
    assert dir(bc) == bc.__all__


@pytest.mark.parametrize("name", sorted(set(bc.__all__) - {"hookimpl"}))
def test_a_public_name_is_that_of_what_it_is_and_documented(name):
    value = getattr(bc, name)
    assert value.__name__ == {"read_audio": "read", "write_audio": "write"}.get(name, name)
    assert value.__module__.startswith("blazen_codec_core")
    assert value.__doc__


def test_every_public_method_and_property_is_documented():
    public = [getattr(bc, name) for name in bc.__all__ if inspect.isclass(getattr(bc, name))]
    members = {(kind.__name__, name): value for kind in public for name, value in inspect.getmembers(kind) if name[0] != "_"}
    own = {place: value for place, value in members.items() if inspect.isfunction(value) or isinstance(value, property)}
    homes = {place: getattr(getattr(value, "fget", value), "__module__", "") for place, value in own.items()}
    assert [place for place, value in own.items() if homes[place].startswith("blazen") and not inspect.getdoc(value)] == []
    assert len(own) > 100


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        bc.nonsense  # noqa: B018


def test_every_error_is_a_codec_error_with_a_reason_to_exist():
    from blazen_codec_core import errors

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    ]
    for kind in kinds:
        assert issubclass(kind, bc.CodecError)
        assert kind.__doc__
        assert kind.__name__ in bc.__all__
        assert kind.__name__ in (errors.__doc__ or "")


def test_every_error_has_an_exit_code():
    from blazen_codec_core import errors
    from blazen_codec_core.cli.main import EXIT_CODES

    codes = {
        kind: next(code for parent, code in EXIT_CODES if issubclass(kind, parent)) for kind in bc.CodecError.__subclasses__()
    }
    assert all(code > 1 for code in codes.values())
    assert codes[errors.UnknownCodec] != codes[errors.WeightsUnavailable] != codes[errors.CorruptFile]

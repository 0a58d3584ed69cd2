"""JSON that somebody else wrote."""

from __future__ import annotations

import json
import struct

import pytest

import blazen_codec_core as bc
from blazen_codec_core import foreign_json, installation
from blazen_codec_core.foreign_json import NotJson, TooMuch

DEEP = "[" * 100_000
DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON: Expecting value"),
        (b"\xff", "is not JSON: "),
        ("{'a': 1}", "is not JSON: "),
        ("NaN", "is not JSON: NaN is not allowed"),
        ("[-Infinity]", "is not JSON: -Infinity is not allowed"),
        ('{"a": "\\ud800"}', "has an unpaired surrogate"),
        ('{"\ud800": 1}', "has an unpaired surrogate"),
    ],
)
def test_what_is_no_json_is_said_to_be_none(text, says):
    with pytest.raises(NotJson, match=says):
        foreign_json.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DEEP, "is nested too deeply: more than 64 levels"),
        (DEEP + "]" * 100_000, "is nested too deeply: more than 64 levels"),
        ('{"a":' * 65 + "1" + "}" * 65, "is nested too deeply: more than 64 levels"),
        (DIGITS, "a number with too many digits"),
        ("[" + "[]," * (1 << 20) + "1]", "holds more than 1048576 values"),
        (b" " * ((64 << 20) + 1), "has 67108865 characters of JSON; at most 67108864 are read"),
    ],
)
def test_what_is_too_much_is_refused(text, says):
    with pytest.raises(TooMuch, match=says):
        foreign_json.parse(text)


def test_all_else_is_what_python_reads():
    for text in ("1", '"\\ud83d\\ude00"', "[" * 64 + "]" * 64, '{"a": [1, 2.5, null, true, "\u00e4"]}', '"\\\\ud800"'):
        assert foreign_json.parse(text) == foreign_json.parse(text.encode()) == json.loads(text)
    assert foreign_json.parse('["\\ud800", Infinity]', lenient=True) == ["\ud800", float("inf")]
    with pytest.raises(NotJson, match="is not an object, but list"):
        foreign_json.parse_object("[]")


HEADERS = [
    DEEP,
    '{"a": ' + DEEP,
    DIGITS,
    '{"version": ' + DIGITS + "}",
    "[]",
    "NaN",
    '{"version": 1, "codec": "\\ud800"}',
    '{"version": 1, "extra": {"\\ud800": 1}}',
]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_of_tokens_that_harms_is_a_corrupt_file(tmp_path, header):
    path = tmp_path / "a.tokens"
    text = json.dumps({"__metadata__": {"blazen_codec": header}}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(bc.CorruptFile, match=r"a\.tokens"):
        bc.CodecTokens.open(path)
    with pytest.raises(bc.CorruptFile, match="the row"):
        bc.tokens_from_row({"header": header, "codes": [[1]], "scales": None})


@pytest.mark.parametrize("text", [DEEP, "{}", '{"__metadata__": ' + DEEP, '{"a": ' + DIGITS + "}"])
def test_the_header_of_safetensors_itself_that_harms_is_a_corrupt_file(tmp_path, text):
    path = tmp_path / "a.tokens"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    with pytest.raises(bc.CorruptFile, match=r"a\.tokens"):
        bc.CodecTokens.open(path)


@pytest.mark.parametrize(
    "text", [DEEP, DIGITS, '{"m": ' + DEEP, '{"m": "encodec_24khz", "al": ' + DIGITS + ', "nc": 8, "lm": false}']
)
def test_the_header_of_ecdc_that_harms_is_a_corrupt_file(tmp_path, text):
    path = tmp_path / "a.ecdc"
    data = text.encode()[: 1 << 14]
    path.write_bytes(struct.pack("!4sBI", b"ECDC", 0, len(data)) + data)
    with pytest.raises(bc.CorruptFile, match=r"a\.ecdc"):
        bc.Registry().format_for(path).read(path)


@pytest.mark.parametrize("text", [DEEP, DIGITS, "[]", "{}", '{"url": 3}', '{"url": "http://[x"}', "\\"])
def test_what_an_installer_wrote_wrongly_says_nothing(monkeypatch, text):
    from types import SimpleNamespace

    import importlib_metadata

    monkeypatch.setattr(importlib_metadata, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text))
    assert installation.install_command("snac", "blazen-codec-snac") == "pip install blazen-codec-snac"


def test_what_a_visitor_says_that_harms_is_refused():
    from blazen_codec_core.server.catalog import asked

    for said in (
        DEEP,
        DIGITS,
        '{"size": ' + DIGITS + "}",
        '{"systems": ' + DEEP,
        '{"systems": ["\\ud800"], "name": "a", "size": 1}',
    ):
        with pytest.raises(bc.InvalidInput, match="invalid request"):
            asked(said)

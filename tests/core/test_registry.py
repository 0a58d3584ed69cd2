"""Discovery, look-up and providers, over plugins that exist only here."""

from __future__ import annotations

import inspect
import pickle
import re
import types

import numpy as np
import pytest

import blazen_codec_core as bc
from blazen_codec_core.plugins import registry as registry_module
from blazen_codec_core.plugins.discovery import discover
from tests.helpers.toy_codec import SPEC, ToyBackend


class EntryPoint:
    """What discovery uses of an entry point."""

    def __init__(self, name: str, plugin: object, distribution: str = "some-dist") -> None:
        self.name, self._plugin = name, plugin
        self.dist = types.SimpleNamespace(name=distribution, version="1.2.3", read_text=lambda name: None)
        self.loads = 0

    def load(self) -> object:
        self.loads += 1
        if isinstance(self._plugin, BaseException):
            raise self._plugin
        return self._plugin


def plugin(*specs: object, **hooks: object) -> types.ModuleType:
    module = types.ModuleType("plugin")
    module.blazen_codec_specs = bc.hookimpl(lambda: specs)  # type: ignore[attr-defined]
    for name, function in hooks.items():
        setattr(module, name, function)
    return module


def look(*entry_points: EntryPoint, disabled: tuple[str, ...] = ()) -> bc.Registry:
    return bc.Registry(discover(entry_points, disabled))  # type: ignore[arg-type]


def renamed(name: str, **changes: object) -> bc.CodecSpec:
    return SPEC.model_copy(update={"name": name, **changes})


def raising(error: BaseException):
    def hook():
        raise error

    return bc.hookimpl(hook)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (RuntimeError("no luck"), "no luck"),
        (SystemExit("bye"), "bye"),
        (ModuleNotFoundError("No module named 'x'"), "No module"),
        (plugin(blazen_codec_specs=raising(KeyError("oops"))), "oops"),
        (plugin(blazen_codec_specs=raising(SystemExit("bye"))), "bye"),
        (plugin("not a spec"), "must return CodecSpec"),
        (plugin(SPEC, SPEC), "twice"),
        (plugin(SPEC, blazen_codec_spec=lambda: ()), "blazen_codec_spec is not a hook"),
        (plugin(blazen_codec_specs=lambda: ()), "not marked"),
        (plugin(SPEC, blazen_codec_specs=bc.hookimpl(lambda wrong: ())), "blazen_codec_specs"),
        (plugin(blazen_codec_specs=bc.hookimpl(lambda: None)), ""),
    ],
)
def test_a_broken_plugin_is_recorded_and_harms_nothing(broken, reason):
    registry = look(EntryPoint("aaa", broken), EntryPoint("good", plugin(SPEC)))
    bad, good = registry.plugins.records
    assert good.in_use
    if broken.__class__ is types.ModuleType and not reason:
        assert bad.in_use  # a hook that returns None implements nothing
    else:
        assert reason in bad.error
        assert (bad.name, bad.distribution, bad.version) == ("aaa", "some-dist", "1.2.3")
    assert [entry.qualified_name for entry in registry] == ["good:toy_8khz"]


def test_a_disabled_plugin_is_not_even_imported(monkeypatch):
    point = EntryPoint("toy", plugin(SPEC))
    registry = look(point, disabled=("toy",))
    assert point.loads == 0
    assert registry.plugins.records[0].disabled
    with pytest.raises(bc.UnknownCodec, match="plugin toy is disabled"):
        registry.find("toy_8khz")
    monkeypatch.setenv("BLAZEN_CODEC_DISABLE", "snac, encodec, dac, mimi, qwen3tts, other")
    assert not bc.list_codecs()


def test_two_distributions_with_one_plugin_name_are_told_apart():
    records = look(EntryPoint("toy", plugin(SPEC), "one"), EntryPoint("toy", plugin(SPEC), "two")).plugins.records
    assert [(r.name, r.distribution, r.in_use) for r in records] == [("toy", "one", True), ("toy (two)", "two", False)]


def test_names_aliases_and_the_family_default():
    spec = renamed("toy_8khz", aliases=("me/toy",), default=True)
    registry = look(EntryPoint("plug", plugin(spec, renamed("toy_16khz"))))
    for name in ("toy_8khz", "me/toy", "toy", "plug:toy_8khz", "toy:toy_8khz"):
        assert registry.find(name).spec is spec


def test_case_and_dashes_make_no_difference():
    registry = look(EntryPoint("plug", plugin(renamed("toy_8khz", aliases=("Me/Toy-8kHz",)), renamed("other"))))
    for name in ("Toy-8kHz", "TOY_8KHZ", "me/toy_8khz", "Plug:toy-8khz"):
        assert registry.find(name).spec.name == "toy_8khz"
    assert (len(registry), repr(registry)) == (2, "<Registry of 2 codecs: toy_8khz, other>")
    twice = look(EntryPoint("one", plugin(SPEC)), EntryPoint("two", plugin(SPEC)))
    with pytest.raises(bc.AmbiguousCodec, match="one:toy_8khz or two:toy_8khz"):
        twice.find("Toy-8khz")


def test_near_names_are_of_one_codec_each():
    registry = look(EntryPoint("toy", plugin(SPEC, renamed("toy_9khz"))))
    with pytest.raises(bc.UnknownCodec, match=r"did you mean toy_8khz or toy_9khz\?$"):
        registry.find("toy_8kz")


def test_a_name_claimed_twice_is_an_error_only_when_it_is_asked_for():
    registry = look(EntryPoint("one", plugin(SPEC, renamed("other"))), EntryPoint("two", plugin(SPEC)))
    assert registry.find("other")
    with pytest.raises(bc.AmbiguousCodec, match=r"one and two.*one:toy_8khz or two:toy_8khz"):
        registry.find("toy_8khz")
    assert registry.find("two:toy_8khz").plugin == "two"


def test_tokens_find_their_model_whatever_its_plugin_is_called():
    registry = look(EntryPoint("acme", plugin(SPEC)))
    tokens = bc.CodecTokens.from_codes(SPEC, [np.zeros(2, int), np.zeros(4, int)])
    assert registry.find(tokens.codec).qualified_name == "acme:toy_8khz"


def test_a_plugins_own_name_comes_before_anothers_family():
    registry = look(EntryPoint("toy", plugin(SPEC)), EntryPoint("zzz", plugin(SPEC)))
    assert registry.find("toy:toy_8khz").plugin == "toy"
    assert registry.find("zzz:toy_8khz").plugin == "zzz"


def test_an_alias_can_collide_too():
    registry = look(
        EntryPoint("one", plugin(renamed("a", aliases=("x/y",)))), EntryPoint("two", plugin(renamed("b", aliases=("x/y",))))
    )
    with pytest.raises(bc.AmbiguousCodec):
        registry.find("x/y")


@pytest.mark.parametrize(
    ("name", "says"),
    [("toy_8kz", "did you mean toy_8khz"), ("qqqq", "installed are toy_8khz"), ("", "installed are")],
)
def test_an_unknown_name_gets_the_nearest(name, says):
    with pytest.raises(bc.UnknownCodec, match=says):
        look(EntryPoint("toy", plugin(SPEC))).find(name)


@pytest.mark.parametrize("name", ["fam_24khz", "fam", "fam:fam_24khz", "them/fam_24khz"])
def test_a_known_plugin_that_is_missing_gets_its_install_line(monkeypatch, name):
    monkeypatch.setattr(registry_module, "known_plugins", lambda: {"fam": "blazen-codec-fam"})
    with pytest.raises(bc.UnknownCodec, match="pip install blazen-codec-fam"):
        look(EntryPoint("toy", plugin(SPEC))).find(name)


def test_without_plugins_a_name_says_how_to_get_some():
    with pytest.raises(bc.UnknownCodec, match=r"no codec is installed. Install one: pip install "):
        look().find("zzz")


def test_a_plugin_that_is_broken_is_named_when_its_codec_is_asked_for():
    with pytest.raises(bc.UnknownCodec, match=r"plugin toy could not be used.*no luck"):
        look(EntryPoint("toy", RuntimeError("no luck"))).find("toy_8khz")


class TestFormatsAndLayouts:
    def test_a_suffix_of_a_plugin_that_is_not_installed_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr(registry_module, "known_plugins", lambda: {"fam": "blazen-codec-fam"})
        with pytest.raises(bc.InvalidInput, match=r"expected one of \.tokens\. Other plugins .*pip install blazen-codec-fam"):
            look().format_for("x.fam")

    def test_the_container_is_always_there(self):
        assert look().format_for("a.tokens").name == "container"
        with pytest.raises(bc.InvalidInput, match=r"expected one of \.tokens"):
            look().format_for("a.xyz")

    def test_a_wrong_one_names_its_plugin(self):
        registry = look(EntryPoint("bad", plugin(SPEC, blazen_codec_formats=bc.hookimpl(lambda: ["x"]))))
        with pytest.raises(bc.PluginError, match="plugin bad returned 'x'"):
            registry.format_for("a.xyz")

    def test_a_failing_one_names_its_plugin(self):
        registry = look(EntryPoint("bad", plugin(SPEC, blazen_codec_layouts=raising(KeyError("k")))))
        with pytest.raises(bc.PluginError, match="plugin bad failed"):
            registry.layout("x")

    def test_an_unknown_layout_lists_those_there(self):
        with pytest.raises(bc.UnknownCodec, match="orpheus"):
            bc.Registry().layout("nonsense")


class TestHandles:
    def registry(self, monkeypatch, backend=ToyBackend) -> bc.Registry:
        monkeypatch.setattr(registry_module, "backend_class", lambda entry, options: backend)
        return look(EntryPoint("toy", plugin(SPEC)))

    def test_a_handle_keeps_the_type_and_shares_the_model(self, monkeypatch):
        handle = self.registry(monkeypatch).handle("toy_8khz", ToyBackend, bc.LoadOptions(weights="random:0"))
        provider = handle.into_dyn(registry_module.restore)
        assert isinstance(handle.backend, ToyBackend)
        assert provider.backend is handle.backend
        provider.load()
        assert handle.backend.is_loaded
        handle.backend.unload()
        assert not provider.is_loaded

    def test_another_type_is_refused(self, monkeypatch):
        class Other(bc.CodecBackend):
            pass

        with pytest.raises(bc.PluginError, match="ToyBackend, not Other"):
            self.registry(monkeypatch).handle("toy_8khz", Other).backend  # noqa: B018

    def test_making_a_provider_loads_nothing(self, monkeypatch):
        provider = self.registry(monkeypatch).provider("toy_8khz")
        assert not provider.is_loaded
        assert repr(provider) == "<DynCodecProvider toy:toy_8khz, 8000 Hz mono, 2 codebooks of 16, 12.00 kbps, not loaded>"
        assert provider.provider_kind == "codec"

    def test_an_engine_that_is_not_there(self):
        registry = look(EntryPoint("toy", plugin(SPEC)))
        with pytest.raises(bc.EngineNotAvailable, match="upstream"):
            registry.provider("toy_8khz", bc.LoadOptions(engine="upstream")).load()

    @pytest.mark.parametrize(
        ("path", "error"),
        [("no_such_module:X", bc.EngineNotAvailable), ("json:NoSuchClass", bc.PluginError)],
    )
    def test_a_backend_that_is_not_there(self, path, error):
        registry = look(EntryPoint("toy", plugin(renamed("toy_8khz", backend=path))))
        with pytest.raises(error):
            registry.provider("toy_8khz").load()

    def test_only_the_trait_is_visible(self):
        from blazen_codec_core.backend import CodecBackend

        hooks = {"encode_whole", "decode_whole", "decoded_samples", "spec_from_weights", "streams_per_batch"}  # for backends
        hooks |= {name for name in dir(CodecBackend) if name.startswith("new_")}
        as_tensors = {"encode_tensors", "decode_tensors"}  # `encode` and `decode` with `as_tensors`
        trait = {n for n in dir(CodecBackend) if not n.startswith("_") and not n.startswith("check_")} - hooks - as_tensors
        provided = {name for name in dir(bc.DynCodecProvider) if not name.startswith("_")}
        assert trait <= provided
        twins = {name for name in provided if callable(getattr(bc.DynCodecProvider, name))}
        plain = {name for name in twins if f"a{name}" in twins}
        assert plain == {n for n in trait if callable(getattr(CodecBackend, n))}
        assert twins == plain | {f"a{name}" for name in plain}


async def test_the_async_twins_give_the_same(codecs):
    codec = codecs("snac_tiny")
    pcm = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 0.1
    tokens = codec.encode(pcm, 24_000)
    assert await codec.aencode(pcm, 24_000) == tokens
    assert np.array_equal(await codec.adecode(tokens), codec.decode(tokens))
    assert (await codec.aencode_batch([pcm], 24_000))[0] == tokens
    assert np.array_equal((await codec.adecode_batch([tokens]))[0], codec.decode(tokens))
    flat = await codec.aencode_pcm(pcm, 24_000)
    assert np.array_equal(flat, tokens.flat())
    assert np.array_equal(await codec.adecode_tokens(flat, 4), codec.decode_tokens(flat, 4))
    session = await codec.aencoder_session()
    assert bc.CodecTokens.concat([session.push(pcm), session.finish()]) == tokens
    assert await codec.adecoder_session()
    await codec.aload()
    assert codec.is_loaded


def test_help_of_a_codec_is_that_of_the_trait(codecs):
    codec = codecs("snac_tiny")
    for name in [name for name in dir(codec) if f"a{name}" in dir(codec)]:
        said, twin = getattr(codec, name).__doc__, getattr(codec, f"a{name}").__doc__
        assert said.startswith(inspect.getdoc(getattr(bc.CodecBackend, name)))
        assert twin == f"Coroutine that runs `{name}` in one of the provider's threads.\n\n{said}"
        assert "See `CodecBackend" not in said


def test_help_of_load_has_every_option():
    for name in bc.LoadOptions.model_fields:
        assert f"    {name}: " in bc.load.__doc__


def test_nothing_prints_as_an_address(codecs):
    codec = codecs("snac_tiny")
    codec.load()
    pool = codec.decoder_pool(3)
    stream, session = pool.open(), codec.encoder_session()
    assert repr(codec.spec) == str(codec.spec) == "<SnacSpec snac:snac_tiny, 24000 Hz mono, 4 codebooks of 1024, 2.75 kbps>"
    assert repr(codec).endswith("2.75 kbps, loaded on cpu>")
    assert "1 of 3 streams open" in repr(pool)
    for thing in (codec, codec.backend, pool, stream, session, codec.decoder_session(), bc.Registry()):
        assert not re.search("0x[0-9a-f]{6}", repr(thing))
    session.close()
    stream.close()
    assert repr(session).endswith(", ended>")
    assert repr(stream).endswith(" of snac:snac_tiny, ended>")


@pytest.mark.parametrize("as_tensors", [False, True])
def test_what_may_be_a_batch_is_noticed(codecs, as_tensors):
    codec = codecs("snac_tiny")
    with pytest.warns(bc.ManyChannelsNotice, match=r"\(3, 960\) is taken as one recording of 3 channels.*encode_batch") as caught:
        codec.encode(np.zeros((3, 960), np.float32), 24_000, as_tensors=as_tensors)
    assert caught[0].filename == __file__
    codec.encode(np.zeros((2, 960), np.float32), 24_000)
    with pytest.raises(bc.InvalidInput, match="Encode a batch with encode_batch"):
        codec.encode(np.zeros((2, 1, 960), np.float32), 24_000)


async def test_the_event_loop_goes_on_while_a_codec_works(codecs):
    import asyncio

    codec = codecs("snac_tiny")
    work = asyncio.create_task(codec.aencode(np.zeros(24_000 * 20, np.float32), 24_000))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 3


def test_a_provider_is_pickled_without_its_weights(codecs):
    codec = codecs("snac_tiny")
    codec.load()
    packed = pickle.dumps(codec)
    assert len(packed) < 2000
    other = pickle.loads(packed)
    assert not other.is_loaded
    pcm = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 0.1
    assert other.encode(pcm, 24_000) == codec.encode(pcm, 24_000)
    assert (other.name, other.options) == (codec.name, codec.options)


class TestGenerations:
    def built_for(self, generation: object, **others: object):
        """A plugin whose specs say another generation, and which is broken as one that was never tried with this core may be."""

        def specs():
            fields = {**SPEC.model_dump(exclude_defaults=True), "name": "toy_new", "api_version": generation, **others}
            return [bc.CodecSpec(**fields)]

        return plugin(blazen_codec_specs=bc.hookimpl(specs))

    @pytest.mark.parametrize(
        ("generation", "upgrade"), [(2, "blazen-codec-core"), (99, "blazen-codec-core"), (0, "acme-codec"), ("1", "acme-codec")]
    )
    def test_a_plugin_of_another_one_is_refused_and_what_to_upgrade_is_said(self, generation, upgrade):
        point = EntryPoint("acme", self.built_for(generation, a_field_of_that_generation=True), "acme-codec")
        registry = look(point, EntryPoint("toy", plugin(SPEC)))
        assert [entry.spec.name for entry in registry] == ["toy_8khz"]
        error = registry.plugins.records[0].error
        assert f"toy_new is built for generation {generation!r}" in error
        assert f"but this blazen-codec-core has generation 1: upgrade {upgrade} (pip install --upgrade)" in error
        with pytest.raises(bc.UnknownCodec, match=rf"plugin acme could not be used .*upgrade {upgrade}"):
            registry.find("acme_8khz")

    def test_a_plugin_that_does_not_say_is_refused(self):
        fields = SPEC.model_dump(exclude={"api_version"})
        registry = look(EntryPoint("toy", plugin(blazen_codec_specs=bc.hookimpl(lambda: [bc.CodecSpec(**fields)]))))
        assert "api_version" in registry.plugins.records[0].error

"""The codec as a PyTorch module gives what the provider gives, and what the authors' modules give, with gradients."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blazen_codec_core as bc
from blazen_codec_core.nn import prepare
from tests.helpers.processors import blocks

TINY = ("snac_tiny", "dac_tiny", "encodec_tiny")
FULL = ("snac_24khz", "dac_44khz", "encodec_24khz")


def audio(spec, batch: int = 2, seconds: float = 0.7, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(batch, spec.channels, int(seconds * spec.sample_rate), generator=generator)


def array(x: torch.Tensor, samples: int | None = None) -> np.ndarray:
    return x.detach()[..., :samples].numpy()


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def codec(codecs):
    return codecs("snac_tiny", weights=None)


@pytest.fixture
def module(codec):
    return copy.deepcopy(codec.module)


@pytest.mark.parametrize("name", [*TINY, "encodec_48khz"])
def test_tokens_and_audio_are_the_providers(codecs, name):
    codec = codecs(name, weights=None if name.endswith("tiny") else "random:0")
    x = audio(codec.spec, seconds=1.1)
    lengths = torch.tensor([x.shape[2], x.shape[2] // 3 + 1])
    module = codec.module
    with torch.no_grad():
        codes = module.encode(x, lengths)
        y = module.decode(codes)
    for row, (samples, tokens) in enumerate(zip(lengths.tolist(), codes.to_tokens(), strict=True)):
        assert tokens == codec.encode(array(x[row], samples), codec.sample_rate)
        np.testing.assert_array_equal(array(y[row], samples), codec.decode(tokens))
        assert not y[row, :, samples:].any()
    recorded = module.decode(codes)
    assert recorded.requires_grad
    torch.testing.assert_close(recorded, y, rtol=0, atol=1e-5)
    assert not any(made.is_inference() for made in (y, *codes))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TINY, "encodec_48khz"])
def test_the_parts_make_up_the_whole(codecs, name):
    codec = codecs(name, weights=None if name.endswith("tiny") else "random:0")
    module, x = codec.module, audio(codec.spec, seconds=1.1)
    lengths = [x.shape[2], x.shape[2] // 2 + 7]
    with torch.no_grad():
        z = module.encode_latents(x, lengths)
        q = module.quantize(z)
        codes = module.encode(x, lengths, num_codebooks=codec.spec.num_codebooks)
        assert torch.equal(module.embed(q.codes), q.latents)
        own = torch.stack([book[code[0, 0]] for book, code in zip(module.codebooks, q.codes, strict=True)]).sum(0)
        torch.testing.assert_close(own, q.latents[0, :, 0], rtol=1e-5, atol=1e-5)
        assert all(torch.equal(a[0], b[0]) for a, b in zip(q.codes, codes, strict=True))
        y = module.decode_latents(module.embed(codes), lengths, module.scales(x, lengths))
        assert torch.equal(y, module.decode(codes))
    out = module(x, lengths)
    assert out.audio.shape == x.shape
    torch.testing.assert_close(out.audio[0], y[0], rtol=0, atol=1e-4)


def theirs(name: str, **options):
    network = bc.load(name, device="cpu", engine="upstream", **options).backend.loaded().network
    return network.requires_grad_(True)


@pytest.mark.parametrize("name", [*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL)])
def test_gradients_are_those_of_the_authors_modules(name):
    options = {} if name.endswith("tiny") else {"weights": "random:0"}
    module, other = bc.load(name, device="cpu", noise=False, **options).module, theirs(name, **options)
    if name.startswith("snac"):
        for block in other.decoder.modules():
            if type(block).__name__ == "NoiseBlock":
                block.forward = lambda x: x
    spec = module.spec
    block = spec.block_frames * spec.hop_length
    x = audio(spec, 1, 4 * block / spec.sample_rate)[:, :, : 4 * block]
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    z, wanted = module.encode_latents(one), other.encoder(two)
    torch.testing.assert_close(z, wanted, rtol=1e-4, atol=1e-4)
    weights = torch.linspace(-1, 1, z.numel()).reshape(z.shape)
    (z * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert relative(one.grad, two.grad) < 1e-3
    z = z.detach()
    one, two = z.clone().requires_grad_(), z.clone().requires_grad_()
    y, wanted = module.decode_latents(one), other.decoder(two)
    torch.testing.assert_close(y[:, :, : wanted.shape[2]], wanted, rtol=1e-4, atol=1e-4)
    y[:, :, : wanted.shape[2]].square().sum().backward()
    wanted.square().sum().backward()
    assert relative(one.grad, two.grad) < 1e-3
    weight = next(iter(p for p in module.network.decoder.parameters() if p.dim() == 1))
    assert float(weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ["snac_tiny", "dac_tiny"])
def test_quantizers_train_as_the_authors(name):
    module, other = bc.load(name, device="cpu").module, theirs(name)
    group = module.spec.block_frames
    z = module.encode_latents(audio(module.spec, 1))[:, :, : 4 * group].detach()
    one, two = z.clone().requires_grad_(), z.clone().requires_grad_()
    q, made = module.quantize(one), other.quantizer(two)
    torch.testing.assert_close(q.latents, made[0], rtol=1e-4, atol=1e-4)
    indices = made[1] if name == "snac_tiny" else made[1].unbind(1)
    assert all(torch.equal(a, b) for a, b in zip(q.codes, indices, strict=True))
    terms = (q.latents.square().sum(), made[0].square().sum())
    if name == "dac_tiny":
        torch.testing.assert_close(q.commitment_loss, made[3].mean(), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(q.codebook_loss, made[4].mean(), rtol=1e-3, atol=1e-5)
        terms = (terms[0] + q.loss, terms[1] + made[3].mean())
    for term in terms:
        term.backward()
    assert relative(one.grad, two.grad) < 1e-3


@pytest.mark.parametrize("name", TINY)
def test_gradients_are_right_in_float64(name):
    module = copy.deepcopy(bc.load(name, device="cpu", noise=False).module).double()
    spec = module.spec
    z = module.encode_latents(audio(spec, 1, 0.1).double()).detach()[:, :, : spec.block_frames].requires_grad_()
    assert torch.autograd.gradcheck(module.decode_latents, (z,), fast_mode=True)
    x = audio(spec, 1, 0.1).double().requires_grad_()
    assert torch.autograd.gradcheck(module.encode_latents, (x,), fast_mode=True)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_each_signal_of_a_batch_is_as_it_is_alone(codec, data):
    module = codec.module
    lengths = data.draw(st.lists(st.integers(1, 9000), min_size=1, max_size=4))
    x = audio(codec.spec, len(lengths))[:, :, : max(lengths)]
    noise = 100 * torch.ones_like(x)  # what is past the end must not matter
    past = torch.arange(x.shape[2]) >= torch.tensor(lengths)[:, None, None]
    z = module.encode_latents(torch.where(past, noise, x), lengths)
    y = module.decode_latents(z, lengths)
    for row, samples in enumerate(lengths):
        alone = module.encode_latents(x[row : row + 1, :, :samples])
        torch.testing.assert_close(z[row : row + 1, :, : alone.shape[2]], alone, rtol=0, atol=1e-4)
        torch.testing.assert_close(y[row : row + 1, :, :samples], module.decode_latents(alone, [samples]), rtol=0, atol=1e-4)


def test_quantizer_dropout(module):
    z = module.encode_latents(audio(module.spec, 3)).detach()
    q = module.quantize(z, torch.tensor([1, 2, 4]))
    for row, count in enumerate((1, 2, 4)):
        torch.testing.assert_close(q.latents[row], module.quantize(z[row : row + 1], count).latents[0])
    assert len(module.quantize(z, 2).codes) == 2


# writes to weights


def test_weights_that_were_written_to_are_heard(module):
    codes = module.encode(audio(module.spec))
    with torch.no_grad():
        before = module.decode(codes)
        for parameter in module.network.decoder.parameters():
            parameter.mul_(1.05)
        written = module.decode(codes)
        assert (written - before).abs().max() > 0.01
        prepared = module.eval().decode(codes)
        torch.testing.assert_close(prepared, written, rtol=0, atol=1e-4)
        assert torch.equal(module.decode(codes), prepared)
        for parameter in module.network.decoder.parameters():
            parameter.data.mul_(1.05)
        again = module.decode(codes)
        assert (again - prepared).abs().max() > 0.01
        torch.testing.assert_close(module.prepare().decode(codes), again, rtol=0, atol=1e-4)


def test_what_is_trained_is_not_the_providers(codec, module):
    pcm = array(audio(codec.spec, 1)[0])
    before = codec.encode(pcm, codec.sample_rate)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-3)
    out = module(audio(codec.spec))
    (out.audio.square().mean() + out.commitment_loss + out.codebook_loss).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    optimizer.step()
    assert codec.encode(pcm, codec.sample_rate) == before
    assert codec.module is codec.module


def test_a_frozen_codec_passes_on_gradients(module):
    module.requires_grad_(False)
    x = audio(module.spec).requires_grad_()
    module(x).audio.square().sum().backward()
    assert float(x.grad.abs().sum()) > 0
    with torch.no_grad():
        assert not module(x).audio.requires_grad


def test_noise_is_drawn_anew_in_training(module):
    z = module.encode_latents(audio(module.spec)).detach()
    with torch.no_grad():
        assert torch.equal(module.decode_latents(z), module.decode_latents(z))
        module.train()
        torch.manual_seed(0)
        one, other = module.decode_latents(z), module.decode_latents(z)
        torch.manual_seed(0)
        assert not torch.equal(one, other)
        assert torch.equal(one, module.decode_latents(z))


def test_prepared_networks_refuse_writes_and_gradients(codec):
    network = codec.backend.loaded().network
    for parameter in network.parameters():
        with pytest.raises(RuntimeError), torch.no_grad():
            parameter.mul_(1.1)
    with pytest.raises(bc.InvalidInput, match=r"provider\.module"):
        network.decoder(torch.zeros(1, 4, 256, requires_grad=True))


def test_parameters_are_shared_where_they_were_shared():
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.other = torch.nn.Linear(2, 2)

    network = Twice()
    prepare(network)
    assert network.one.weight is network.other.weight


# weights in files


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("file", ["folder", "tuned.safetensors", "tuned.pth"])
def test_saved_weights_are_read_here_and_by_the_authors(name, file, tmp_path):
    module = copy.deepcopy(bc.load(name, device="cpu").module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.01)
    path = tmp_path / file
    module.save_weights(path)
    assert not [left for left in path.parent.rglob(".*") if left.is_file()]
    ours, authors = (bc.load(name, device="cpu", weights=path, engine=engine) for engine in ("native", "upstream"))
    x = audio(module.spec, 1, 0.3)
    with torch.no_grad():
        codes = module.eval().encode(x)
    (tokens,) = codes.to_tokens()
    for codec in (ours, authors):
        own = codec.encode(array(x[0]), codec.sample_rate)
        assert all(np.array_equal(one, other) for one, other in zip(own.codes, tokens.codes, strict=True))


def test_the_authors_classes_read_what_is_saved(tmp_path):
    module = bc.load("snac_tiny", device="cpu").module
    module.save_weights(tmp_path / "snac.pt")
    theirs("snac_tiny").load_state_dict(torch.load(tmp_path / "snac.pt", weights_only=True))
    module = bc.load("encodec_tiny", device="cpu").module
    module.save_weights(tmp_path / "encodec.th")
    theirs("encodec_tiny").load_state_dict(torch.load(tmp_path / "encodec.th", weights_only=True))
    module = bc.load("dac_tiny", device="cpu").module
    module.save_weights(tmp_path / "dac.pth")
    saved = torch.load(tmp_path / "dac.pth", weights_only=True)
    theirs("dac_tiny").load_state_dict(saved["state_dict"])
    assert saved["metadata"]["kwargs"]["encoder_rates"]


def test_a_suffix_that_is_none_of_weights(module, tmp_path):
    with pytest.raises(bc.InvalidInput, match=r"\.safetensors"):
        module.save_weights(tmp_path / "weights.wav")
    assert not list(tmp_path.iterdir())


# tensors through the provider


@pytest.mark.parametrize("name", [*TINY, "encodec_48khz"])
def test_the_provider_takes_and_gives_tensors(codecs, name):
    codec = codecs(name, weights=None if name.endswith("tiny") else "random:0")
    x = audio(codec.spec, 2, 1.1)
    tokens = codec.encode(x, codec.sample_rate, as_tensors=True)
    own = [codec.encode(row, codec.sample_rate) for row in x]
    assert tokens.to_tokens() == own == codec.encode_batch(x, codec.sample_rate)
    y = codec.decode(tokens, as_tensors=True)
    for row, item in zip(y, own, strict=True):
        np.testing.assert_array_equal(row.numpy(), codec.decode(item))
    assert torch.equal(codec.decode(own[0], as_tensors=True), y[0])
    assert y.shape == x.shape
    assert not y.is_inference()


def test_stereo_through_a_mono_codec(codec):
    x = torch.cat([audio(codec.spec), audio(codec.spec, seed=1)], dim=1)
    tokens = codec.encode(x, codec.sample_rate, as_tensors=True)
    assert tokens.to_tokens() == [codec.encode(row, codec.sample_rate) for row in x]
    assert codec.decode(tokens, as_tensors=True).shape == x.shape


def test_tokens_of_several_signals_become_tensors(codec):
    x = audio(codec.spec)
    lengths = [x.shape[2], 5000]
    own = [codec.encode(x[row, :, :samples], codec.sample_rate) for row, samples in enumerate(lengths)]
    kind = type(codec.encode(x, codec.sample_rate, as_tensors=True))
    tokens = kind.from_tokens(codec.spec, own, torch.device("cpu"))
    assert tokens.to_tokens() == own
    y = codec.decode(tokens, as_tensors=True)
    np.testing.assert_array_equal(y[1, :, :5000].numpy(), codec.decode(own[1]))


# what is refused


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 1, 100, dtype=torch.int16), "floating-point"),
        (torch.zeros(1, 100), r"\(batch, 1, samples\)"),
        (torch.zeros(1, 2, 100), r"\(batch, 1, samples\)"),
        (torch.zeros(1, 1, 0), "empty"),
        (np.zeros((1, 1, 100), np.float32), "ndarray"),
        (torch.zeros(1, 1, 100, device="meta"), "meta"),
    ],
)
def test_audio_that_is_none(module, x, words):
    for run in (module.encode_latents, module.encode, module):
        with pytest.raises(bc.InvalidInput, match=words):
            run(x)


@pytest.mark.parametrize("lengths", [[1], [0, 5], [5, 10**6], [1.5, 2], torch.tensor([1.0, 2.0])])
def test_lengths_that_do_not_fit(module, lengths):
    with pytest.raises(bc.InvalidInput, match="length"):
        module.encode_latents(audio(module.spec), lengths)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_audio_that_holds_no_samples(codec, value):
    x = audio(codec.spec)
    x[1, 0, 7] = value
    for run in (codec.module.encode, lambda x: codec.encode(x, codec.sample_rate, as_tensors=True)):
        with pytest.raises(bc.InvalidInput, match="samples"):
            run(x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda codes: [], "0 codebooks"),
        (lambda codes: [*codes, codes[0]], "5 codebooks"),
        (lambda codes: [codes[0] + 1024, *codes[1:]], "0 to 1023"),
        (lambda codes: [codes[0] - 1024, *codes[1:]], "0 to 1023"),
        (lambda codes: [codes[0], codes[1][:, :-1]], "need"),
        (lambda codes: [codes[0].float()], "integers"),
        (lambda codes: [codes[0][0]], "integers"),
    ],
)
def test_codes_that_do_not_fit(module, change, words):
    codes = module.encode(audio(module.spec))
    for run in (module.embed, module.decode):
        with pytest.raises(bc.InvalidTokens, match=words):
            run(change(list(codes)))


def test_latents_that_do_not_fit(module):
    z = torch.zeros(2, 256, 8)
    with pytest.raises(bc.InvalidInput, match="256"):
        module.decode_latents(z[:, :255])
    with pytest.raises(bc.InvalidInput, match="multiples"):
        module.quantize(z[:, :, :7])
    with pytest.raises(bc.InvalidInput, match="num_codebooks is 5"):
        module.quantize(z, 5)
    with pytest.raises(bc.InvalidInput, match="scales"):
        module.decode_latents(z, scales=torch.ones(2, 1))
    with pytest.raises(bc.InvalidInput, match="length"):
        module.decode_latents(z, [10**6, 5])


def test_a_rate_and_a_bandwidth_that_do_not_fit(codec):
    with pytest.raises(bc.InvalidInput, match="sample rate"):
        codec.encode(audio(codec.spec), 16_000, as_tensors=True)
    with pytest.raises(bc.InvalidInput, match="num_codebooks"):
        codec.encode(audio(codec.spec), codec.sample_rate, as_tensors=True, num_codebooks=9)
    with pytest.raises(bc.InvalidTokens, match="dac"):
        codec.decode(bc.load("dac_tiny", device="cpu").encode(audio(codec.spec), 24_000, as_tensors=True), as_tensors=True)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_a_model_has_half_a_module(half):
    module = bc.load("snac_tiny", device="cpu", parts=half).module
    x = audio(module.spec)
    codes = bc.load("snac_tiny", device="cpu").module.encode(x)
    works, fails = (lambda: module.encode(x), lambda: module.decode(codes))[:: 1 if half == "encoder" else -1]
    works()
    with pytest.raises(bc.InvalidInput, match="parts"):
        fails()


@blocks
def test_a_host_in_half_precision_changes_nothing(codec):
    x = audio(codec.spec)
    before = codec.module.encode(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(before, codec.module.encode(x), strict=True))
    assert sys.modules["torch"].get_default_dtype() == torch.float32

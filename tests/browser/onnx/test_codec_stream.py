"""The driver of exported graphs in JavaScript gives what the codec gives, however a signal comes to it."""

from __future__ import annotations

import numpy as np

from blazen_codec_core.counter_noise import normal_values
from blazen_codec_core.onnx.check import count_differing

BLOCK = 16
"""Samples of a block."""
CHUNKINGS = [(1, 4), (7, 12), (BLOCK, 8), (3 * BLOCK + 1, 20), (10_000, 10_000)]
"""Samples of a push of the encoder, and frames of one of the decoder."""
CONVERT = """async (driver, codec, asked) => {
  const strides = codec.spec.strides;
  const convert = async ({ pcm, codebooks, chunkings }) => {
    const results = [];
    for (const [samples, frames] of chunkings) {
        const encoder = await codec.encoder();
        const tokens = [];
        const signal = Float32Array.from(pcm);
        for (let at = 0; at < pcm.length; at += samples) tokens.push(encoder.push([signal.subarray(at, at + samples)]));
        tokens.push(encoder.finish());
        const codes = [0, 1].map((number) => []);
        let covered = 0;
        for (const part of await Promise.all(tokens)) {
            part.codes.forEach((row, number) => codes[number].push(...row));
            covered += part.samples;
        }
        const decoder = await codec.decoder({ seed: 0n });
        const audio = [];
        const total = codes[1].length;
        for (let at = 0; at < total; at += frames) {
            const cut = (row, number) => row.slice(at / strides[number], (at + frames) / strides[number]);
            const rows = codes.slice(0, codebooks).map(cut);
            const [start, end] = [at, at + frames].map((frame) => Math.min(covered, frame * codec.spec.hop_length));
            audio.push(...(await decoder.push({ codes: rows, samples: end - start }))[0]);
        }
        audio.push(...(await decoder.finish())[0]);
        results.push({ codes, covered, audio });
    }
    return results;
  };
  const all = [];
  for (const each of asked) all.push(await convert(each));
  return all;
}"""
REFUSALS = """async (driver, codec, calls) => {
    const encoder = await codec.encoder();
    const decoder = await codec.decoder();
    const begun = { codes: [[1, 2], [3, 4, 5, 6]], samples: 16 };
    const audio = [new Float32Array(20)];
    const attempts = {
        "channels": () => encoder.push([...audio, ...audio]),
        "after an error": () => encoder.push(audio),
        "nothing to encode": async () => (await codec.encoder()).finish(),
        "nothing to decode": () => decoder.finish(),
        "codebooks": async () => (await codec.decoder()).push({ codes: [[1], [2, 3], [4]], samples: 8 }),
        "another number of codebooks": async () => {
            const stream = await codec.decoder();
            await stream.push(begun);
            await stream.push({ codes: [[1, 2]], samples: 16 });
        },
        "range": async () => (await codec.decoder()).push({ codes: [[1, 2], [3, 4, 5, 16]], samples: 16 }),
        "lengths": async () => (await codec.decoder()).push({ codes: [[1, 2], [3, 4, 5]], samples: 16 }),
        "block": async () => {
            const stream = await codec.decoder();
            await stream.push({ codes: [[1], [2, 3]], samples: 8 });
            await stream.finish();
        },
        "after the end": async () => {
            const stream = await codec.encoder();
            await stream.push(audio);
            await stream.finish();
            await stream.push(audio);
        },
        "format": () => driver.ExportedCodec.open({}, async () => new TextEncoder().encode('{"format": 2}')),
        "no steps": async () => {
            const manifest = structuredClone(codec.manifest);
            manifest.parts.decoder.stream = null;
            const content = new TextEncoder().encode(JSON.stringify(manifest));
            await (await driver.ExportedCodec.open({}, async () => content)).decoder();
        },
        "no graph of short signals": async () => {
            const manifest = structuredClone(codec.manifest);
            manifest.parts.encoder.whole = null;
            const content = new TextEncoder().encode(JSON.stringify(manifest));
            const read = (name) => (name === "export.json" ? content : codec.read(name));
            const stream = await (await driver.ExportedCodec.open(codec.ort, read)).encoder();
            await stream.push([new Float32Array(3)]);
            await stream.finish();
        },
    };
    const refusals = {};
    for (const [name, attempt] of Object.entries(attempts)) {
        try {
            await attempt();
            refusals[name] = null;
        } catch (error) {
            refusals[name] = error.message;
        }
    }
    return refusals;
}"""


def test_tokens_and_audio_are_those_of_the_codec_at_every_chunking(javascript, mixed):
    rng = np.random.default_rng(0)
    cases = [(rng.normal(0, 0.3, samples).astype(np.float32), number) for samples in (1, 5 * BLOCK, 647) for number in (1, 2)]
    asked = [{"pcm": pcm.tolist(), "codebooks": number, "chunkings": CHUNKINGS} for pcm, number in cases]
    for (pcm, number), results in zip(cases, javascript(CONVERT, asked), strict=True):
        tokens = mixed.encode(pcm, 8000, num_codebooks=2)
        audio = mixed.decode(mixed.encode(pcm, 8000, num_codebooks=number))
        assert all(result == results[0] for result in results)
        assert results[0]["covered"] == pcm.size
        assert [count_differing(np.array([row]), code) for row, code in zip(results[0]["codes"], tokens.codes, strict=True)] == [
            0,
            0,
        ]
        np.testing.assert_allclose([results[0]["audio"]], audio, atol=1e-5)


def test_noise_is_that_of_the_counter(javascript):
    asked = [(0, 0, 0, 20), (7, 1, 3, 50), (2**64 - 1, 5, 8 * 2**34 + 5, 9), (12345678901234567890, 0, 16, 8), (1, 2, 7, 0)]
    arguments = [[str(seed), layer, position, count] for seed, layer, position, count in asked]
    found = javascript(
        "(driver, codec, asked) => asked.map(([seed, ...rest]) => [...driver.normalValues(BigInt(seed), ...rest)])", arguments
    )
    for values, wanted in zip(found, asked, strict=True):
        np.testing.assert_allclose(values, normal_values(*wanted), rtol=1e-6, atol=1e-7)


def test_noise_can_be_off(javascript):
    audio = javascript("""async (driver, codec) => {
        const results = [];
        for (const options of [{ seed: 1 }, { seed: 2 }, { noise: false }]) {
            const decoder = await codec.decoder(options);
            const codes = [new Int32Array(40).fill(3), new Int32Array(80).fill(5)];
            results.push([...(await decoder.push({ codes, samples: 320 }))[0], ...(await decoder.finish())[0]]);
        }
        return results;
    }""")
    assert [len(each) for each in audio] == [320] * 3
    one, two, off = np.array(audio)
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - off).max() > 1e-3


def test_mistakes_are_refused_in_words(javascript):
    assert javascript(REFUSALS) == {
        "channels": "audio must be a Float32Array for each channel, 1 of the same length",
        "after an error": "the stream is over, because a call failed; begin another one",
        "nothing to encode": "no audio was pushed; push some before finish",
        "nothing to decode": "no tokens were pushed; push some before finish",
        "codebooks": "tokens have 3 codebooks; expected 1 or 2, as many in all of a signal",
        "another number of codebooks": "tokens have 1 codebooks; expected 1 or 2, as many in all of a signal",
        "range": "codes must be below 16, one for every 2,1 frames in each codebook",
        "lengths": "codes must be below 16, one for every 2,1 frames in each codebook",
        "block": "the signal ends within a block, of 2 codes_0",
        "after the end": "the stream is over, because it was finished; begin another one",
        "format": "the folder has format 2; this driver reads format 1",
        "no steps": "mixed_8khz was exported without step graphs of its decoder",
        "no graph of short signals": "a stream has 2 blocks or more, and this signal 1; export with --what both",
    }

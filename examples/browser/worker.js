/**
 * The codec in a thread of its own. Every message gets one answer, in turn:
 *
 * - `{type: "open", address}` or `{type: "open", files}`, an exported folder: the model, sizes in bytes and latencies in samples;
 * - `{type: "begin"}`: nothing; the signal before is forgotten;
 * - `{type: "push", audio}` and `{type: "finish"}`: tokens, parts of the audio decoded from them, and seconds of work.
 *
 * The answer is `{error}` if something went wrong.
 */
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { ExportedCodec, filesAt } from "./codec_stream.js";

const RUNTIME = "ort-wasm-simd-threaded.wasm";
const MOST_THREADS = 4;
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;

let codec, encoder, decoder;

const filesOf = (files) => async (name) => {
  const file = files.find((each) => each.name === name);
  if (!file) throw new Error(`the folder has no ${name}; choose one that blazen-codec export has written`);
  return new Uint8Array(await file.arrayBuffer());
};

async function open({ address, files }) {
  const runtime = filesAt(new URL("./node_modules/onnxruntime-web/dist/", import.meta.url));
  ort.env.wasm.wasmBinary ??= (await runtime(RUNTIME)).buffer;
  const read = files ? filesOf(files) : filesAt(address);
  let modelBytes = 0;
  codec = await ExportedCodec.open(ort, async (name) => {
    const content = await read(name);
    modelBytes += content.byteLength;
    return content;
  });
  await begin();
  const latencies = [encoder, decoder].map(({ part }) => part.stream.latency_samples);
  return {
    spec: codec.spec,
    modelBytes,
    runtimeBytes: ort.env.wasm.wasmBinary.byteLength,
    threads: ort.env.wasm.numThreads,
    latencies,
  };
}

async function begin() {
  [encoder, decoder] = [await codec.encoder(), await codec.decoder()];
}

/** Tokens, the audio of them, and the seconds that both took. */
async function convert(encode, decode) {
  const started = performance.now();
  const tokens = await encode();
  const encoded = performance.now();
  const parts = await decode(tokens);
  return { tokens, parts, encoderSeconds: (encoded - started) / 1000, decoderSeconds: (performance.now() - encoded) / 1000 };
}

const push = ({ audio }) =>
  convert(
    () => encoder.push(audio),
    async (tokens) => [await decoder.push(tokens)],
  );

const finish = () =>
  convert(
    () => encoder.finish(),
    async (tokens) => [await decoder.push(tokens), await decoder.finish()],
  );

const work = { open, begin, push, finish };
let last = Promise.resolve();
onmessage = ({ data }) => {
  last = last
    .then(() => work[data.type](data))
    .catch((error) => ({ error: error.message }))
    .then((answer) => postMessage(answer ?? {}));
};

/**
 * Streams of audio and tokens over a folder that `blazen-codec export` has written, for pages, workers and Node.js. The ONNX Runtime is
 * passed in; nothing else is needed.
 *
 *     import * as ort from "onnxruntime-web/wasm";
 *     const codec = await ExportedCodec.open(ort, filesAt("model/"));
 *     const [encoder, decoder] = [await codec.encoder(), await codec.decoder()];
 *     const tokens = await encoder.push([samples]); // any number of samples
 *     const audio = await decoder.push(tokens); // as much as is complete
 *     const rest = [await decoder.push(await encoder.finish()), await decoder.finish()];
 *
 * Results do not depend on how a signal is cut into pushes. Calls may overlap, and run in the order in which they are made.
 *
 * @typedef {Float32Array[]} Audio Samples of each channel at `spec.sample_rate`, nominally -1 to 1.
 * @typedef {{codes: Int32Array[], samples: number}} Tokens Codes of each codebook, and the number of samples that they stand for.
 */

/** Reader of the files below an address, for `ExportedCodec.open`. */
export const filesAt = (address) => async (name) => {
  const response = await fetch(new URL(name, new URL(address, globalThis.location?.href)));
  if (!response.ok) throw new Error(`${response.url} cannot be read: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
};

/** A codec, whose graphs are loaded once for all streams. `spec` has its `name`, `sample_rate`, `channels`, `strides` and more. */
export class ExportedCodec {
  #sessions = new Map();
  #queue = Promise.resolve();
  #weights;

  /** Open a folder. `read(name)` promises a file of it as `Uint8Array`, and `options` are those of `InferenceSession.create`. */
  static async open(ort, read, options = {}) {
    const manifest = JSON.parse(new TextDecoder().decode(await read("export.json")));
    if (manifest.format !== 1) throw new Error(`the folder has format ${manifest.format}; this driver reads format 1`);
    return Object.assign(new ExportedCodec(), { ort, read, options, manifest, spec: manifest.codec });
  }

  /** Begin to encode a signal. @returns {Promise<EncoderStream>} */
  async encoder() {
    return new EncoderStream(this, await this.#part("encoder"), null);
  }

  /** Begin to decode a signal, with noise of a `seed` of 64 bits, or none. @returns {Promise<DecoderStream>} */
  async decoder({ seed = 0, noise = true } = {}) {
    return new DecoderStream(this, await this.#part("decoder"), noise ? BigInt(seed) : null);
  }

  /** Work after all that was asked for before: ONNX Runtime does one thing at a time in a browser. */
  enqueue(work) {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => {});
    return done;
  }

  /** Session of a graph, loaded at its first use. */
  async session({ file }) {
    if (!this.#sessions.has(file)) {
      this.#weights ??= await this.read("weights.bin");
      const options = { ...this.options, externalData: [{ path: "weights.bin", data: this.#weights }] };
      this.#sessions.set(file, await this.ort.InferenceSession.create(await this.read(file), options));
    }
    return this.#sessions.get(file);
  }

  /** A half with the graphs of its streams loaded. That of whole signals is loaded for one too short to begin a stream. */
  #part(half) {
    const part = this.manifest.parts[half];
    if (!part?.stream) throw new Error(`${this.spec.name} was exported without step graphs of its ${half}`);
    return this.enqueue(async () => {
      for (const graph of Object.values(part.stream)) if (graph?.file) await this.session(graph);
      return part;
    });
  }
}

/** One signal in tiles, between which its state is kept. */
class GraphStream {
  #noise = new Map();
  #pending = {};
  #state = {};
  #begun = false;
  #over = "";

  constructor(codec, part, seed) {
    Object.assign(this, { codec, part, seed });
  }

  /** Work of a call, unless the stream is over. An error ends it, too. */
  call(work, last = false) {
    return this.codec.enqueue(async () => {
      if (this.#over) throw new Error(`the stream is over, because ${this.#over}; begin another one`);
      this.#over = "a call failed";
      const result = await work();
      this.#over = last ? "it was finished" : "";
      return result;
    });
  }

  /** Outputs of the tiles that rows of each input complete, and of the rest if the signal ends with them. */
  async advance(rows, others, last) {
    const { stream, whole, block } = this.part;
    const [[first, size]] = Object.entries(block);
    for (const name in rows)
      this.#pending[name] = rows[name].map((row, at) => joined(row.constructor, [this.#pending[name]?.[at] ?? [], row]));
    const blocks = () => Math.floor(this.#pending[first][0].length / size);
    const outputs = [];
    for (let graph; (graph = this.#begun ? stream.step : stream.begin).blocks <= blocks();)
      outputs.push(await this.#run(graph, graph.blocks, others));
    if (!last) return outputs;
    if (this.#pending[first][0].length % size) throw new Error(`the signal ends within a block, of ${size} ${first}`);
    if (!this.#begun && !whole)
      throw new Error(`a stream has ${stream.begin.blocks} blocks or more, and this signal ${blocks()}; export with --what both`);
    const graph = this.#begun ? stream.end : whole;
    return graph && graph.blocks <= blocks() ? [...outputs, await this.#run(graph, blocks(), others)] : outputs;
  }

  async #run(graph, blocks, others) {
    const [inputs, { Tensor }] = [{ ...this.#state, ...others }, this.codec.ort];
    for (const { name, layer, slope, offset } of graph.noise) {
      const [position, count] = [this.#noise.get(layer) ?? 0, slope * blocks + offset];
      this.#noise.set(layer, position + count);
      const values = this.seed === null ? new Float32Array(count) : normalValues(this.seed, layer, position, count);
      inputs[name] = new Tensor("float32", values, [count]);
    }
    for (const [name, size] of Object.entries(this.part.block)) {
      const [rows, length] = [this.#pending[name], blocks * size];
      const { dtype, shape } = graph.inputs.find((input) => input.name === name);
      const values = rows.map((row) => row.subarray(0, length));
      inputs[name] = new Tensor(dtype, joined(rows[0].constructor, values), [...shape.slice(0, -1), length]);
      this.#pending[name] = rows.map((row) => row.subarray(length));
    }
    const session = await this.codec.session(graph);
    const outputs = await session.run(Object.fromEntries(graph.inputs.map(({ name }) => [name, inputs[name]])));
    const next = Object.entries(outputs).filter(([name]) => name.startsWith("next."));
    this.#state = Object.fromEntries(next.map(([name, tensor]) => [name.replace("next.", "state."), tensor]));
    this.#begun = true;
    return outputs;
  }
}

/** Encoder of one signal. */
export class EncoderStream extends GraphStream {
  #pushed = 0;
  #covered = 0;

  /** Tokens of the tiles that audio completes. @param {Audio} audio @returns {Promise<Tokens>} */
  push(audio) {
    return this.call(() => {
      const { channels } = this.codec.spec;
      if (audio.length !== channels || audio.some((row) => !(row instanceof Float32Array) || row.length !== audio[0].length))
        throw new Error(`audio must be a Float32Array for each channel, ${channels} of the same length`);
      this.#pushed += audio[0].length;
      return this.#advance(audio);
    });
  }

  /** The remaining tokens; zeros complete the last block. @returns {Promise<Tokens>} */
  finish() {
    return this.call(() => {
      if (!this.#pushed) throw new Error("no audio was pushed; push some before finish");
      const missing = this.part.block_samples - 1 - ((this.#pushed - 1) % this.part.block_samples);
      return this.#advance(Array(this.codec.spec.channels).fill(new Float32Array(missing)), true);
    }, true);
  }

  async #advance(audio, last = false) {
    const { strides, hop_length } = this.codec.spec;
    const outputs = await this.advance({ audio }, {}, last);
    const arrays = (number) => outputs.map((output) => Int32Array.from(output[`codes_${number}`].data, Number));
    const codes = strides.map((_, number) => joined(Int32Array, arrays(number)));
    const samples = last ? this.#pushed - this.#covered : codes[0].length * strides[0] * hop_length;
    this.#covered += samples;
    return { codes, samples };
  }
}

/** Decoder of one signal. */
export class DecoderStream extends GraphStream {
  #codebooks;
  #missing = 0;

  /** Audio of the tiles that tokens complete, of all codebooks or the first few. @param {Tokens} tokens @returns {Promise<Audio>} */
  push({ codes, samples }) {
    return this.call(() => {
      const { strides, codebook_size, codebook_choices } = this.codec.spec;
      const usable = codebook_choices.length ? codebook_choices : [strides.length];
      this.#codebooks ??= codes.length;
      if (codes.length !== this.#codebooks || !usable.includes(codes.length))
        throw new Error(`tokens have ${codes.length} codebooks; expected ${usable.join(" or ")}, as many in all of a signal`);
      const frames = codes[0].length * strides[0];
      const isCode = (code) => code >= 0 && code < codebook_size;
      if (!codes.every((row, number) => row.length * strides[number] === frames && row.every(isCode)))
        throw new Error(`codes must be below ${codebook_size}, one for every ${strides} frames in each codebook`);
      this.#missing += samples;
      return this.#advance(strides.map((stride, number) => codes[number] ?? new Int32Array(frames / stride)));
    });
  }

  /** The remaining audio. @returns {Promise<Audio>} */
  finish() {
    return this.call(() => {
      if (!this.#codebooks) throw new Error("no tokens were pushed; push some before finish");
      return this.#advance(Array(this.codec.spec.strides.length).fill([]), true);
    }, true);
  }

  async #advance(codes, last = false) {
    const rows = Object.fromEntries(codes.map((row, number) => [`codes_${number}`, [BigInt64Array.from(row, BigInt)]]));
    const num_codebooks = new this.codec.ort.Tensor("int64", BigInt64Array.of(BigInt(this.#codebooks)), [1]);
    const outputs = (await this.advance(rows, { num_codebooks }, last)).map(({ audio }) => audio);
    const arrays = (channel) => outputs.map(({ data, dims }) => data.subarray(channel * dims[2], (channel + 1) * dims[2]));
    const channels = Array.from(Array(this.codec.spec.channels).keys(), (channel) => joined(Float32Array, arrays(channel)));
    const audio = channels.map((row) => row.subarray(0, this.#missing));
    this.#missing -= audio[0].length;
    return audio;
  }
}

/** Arrays one after the other, as one of a kind. */
function joined(Kind, arrays) {
  const result = new Kind(arrays.reduce((length, array) => length + array.length, 0));
  arrays.reduce((start, array) => (result.set(array, start), start + array.length), 0);
  return result;
}

/** Standard normal values of a layer's sequence, from a position on: Box & Muller 1958 over Philox4x64-10, Salmon et al. 2011. */
export function normalValues(seed, layer, position, count) {
  const [first, skipped] = [Math.floor(position / 8), position % 8];
  const values = new Float32Array(skipped + count + 8);
  for (let start = 0; start < skipped + count; start += 8)
    philox(BigInt(first + start / 8 + 1), BigInt(seed), BigInt(layer)).forEach((word, number) => {
      const radius = Math.sqrt(-2 * Math.log((Number(word >> 32n) + 0.5) * 2 ** -32));
      const angle = Number(word & 0xffffffffn) * (2 * Math.PI * 2 ** -32);
      values.set([radius * Math.cos(angle), radius * Math.sin(angle)], start + 2 * number);
    });
  return values.slice(skipped, skipped + count);
}

/** The four words of a counter. NumPy's generator increments its counter before it draws. */
function philox(counter, seed, layer) {
  const word = (value) => BigInt.asUintN(64, value);
  let [a, b, c, d] = [counter, 0n, 0n, 0n];
  for (let round = 0n; round < 10n; round++) {
    const [x, y] = [a * 0xd2e7470ee14c6c93n, c * 0xca5a826395121157n];
    const [key, other] = [word(seed + round * 0x9e3779b97f4a7c15n), word(layer + round * 0xbb67ae8584caa73bn)];
    [a, b, c, d] = [(y >> 64n) ^ b ^ key, word(y), (x >> 64n) ^ d ^ other, word(x)];
  }
  return [a, b, c, d];
}

"use strict";

const CHUNK_SECONDS = 0.1;
const MOST_SECONDS_AHEAD = 2; // of what is heard, a file is decoded
const LEAD_SECONDS = 0.05; // between the first audio and its sound

const $ = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;
const joined = (arrays) => {
  const result = new Float32Array(arrays.reduce((length, array) => length + array.length, 0));
  arrays.reduce((start, array) => (result.set(array, start), start + array.length), 0);
  return result;
};

const worker = new Worker("worker.js", { type: "module" });
const waiting = [];
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.shift();
  if (data.error) reject(new Error(data.error));
  else resolve(data);
};
worker.onerror = () =>
  waiting.splice(0).forEach(({ reject }) => reject(new Error("the worker failed; is onnxruntime-web installed?")));

/** Answer of the worker to a message. */
function ask(type, fields = {}) {
  worker.postMessage({ type, ...fields });
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

/** One signal on its way through the codec: what came out of it, and what it took. */
class Signal {
  codes;
  parts = [];
  samplesIn = 0;
  samplesOut = 0;
  seconds = { encoder: 0, decoder: 0 };
  firstSound = null;
  #next = 0;

  constructor(spec, context) {
    Object.assign(this, { spec, context, codes: spec.strides.map(() => []) });
  }

  async push(audio) {
    this.started ??= performance.now();
    this.samplesIn += audio[0].length;
    this.#take(await ask("push", { audio }));
  }

  async finish() {
    this.#take(await ask("finish"));
  }

  /** Seconds of sound that are decoded and not heard yet. */
  get ahead() {
    return this.context?.state === "running" ? this.#next - this.context.currentTime : 0;
  }

  #take({ tokens, parts, encoderSeconds, decoderSeconds }) {
    this.seconds.encoder += encoderSeconds;
    this.seconds.decoder += decoderSeconds;
    tokens.codes.forEach((codes, number) => this.codes[number].push(...codes));
    for (const part of parts.filter(([row]) => row.length)) {
      this.firstSound ??= (performance.now() - this.started) / 1000;
      this.samplesOut += part[0].length;
      this.parts.push(part);
      if (this.context) this.#play(part);
    }
    describe(this);
  }

  #play(part) {
    const buffer = this.context.createBuffer(part.length, part[0].length, this.spec.sample_rate);
    part.forEach((row, channel) => buffer.copyToChannel(row, channel));
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.context.destination);
    this.#next = Math.max(this.#next, this.context.currentTime + LEAD_SECONDS);
    source.start(this.#next);
    this.#next += buffer.duration;
  }
}

/** Numbers of a signal on the page. */
function describe({ spec, codes, samplesIn, seconds, firstSound }) {
  const duration = samplesIn / spec.sample_rate;
  const count = codes.reduce((sum, row) => sum + row.length, 0);
  const kbps = (count * Math.log2(spec.codebook_size)) / duration / 1000;
  for (const [half, spent] of Object.entries(seconds)) {
    const factor = spent / duration;
    $(half).textContent = `${factor.toFixed(2)} s of work for 1 s of audio, ${(1 / factor).toFixed(1)} times real time`;
  }
  $("first").textContent = firstSound === null ? "" : `${milliseconds(firstSound)} after the first sample`;
  $("tokens").textContent = `${count} for ${duration.toFixed(1)} s of audio, ${kbps.toFixed(2)} kbps`;
}

/** WAV file of 16 bits. */
function wav(channels, rate) {
  const [count, length] = [channels.length, channels[0].length];
  const view = new DataView(new ArrayBuffer(44 + 2 * count * length));
  const text = (at, letters) => [...letters].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, count, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * count * rate, true);
  view.setUint16(32, 2 * count, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * count * length, true);
  channels.forEach((row, channel) =>
    row.forEach((sample, index) => {
      const value = Math.round(32768 * sample);
      view.setInt16(44 + 2 * (index * count + channel), Math.max(-32768, Math.min(32767, value)), true);
    }),
  );
  return new Blob([view], { type: "audio/wav" });
}

/** Audio of a file at the model's rate and in its channels. */
async function readAudio(file, { channels, sample_rate }) {
  const content = await file.arrayBuffer();
  const decoded = await new OfflineAudioContext(1, 1, sample_rate).decodeAudioData(content).catch(() => {
    throw new Error(`${file.name} cannot be read as audio`);
  });
  const context = new OfflineAudioContext(channels, decoded.length, sample_rate);
  const source = new AudioBufferSourceNode(context, { buffer: decoded });
  source.connect(context.destination);
  source.start();
  const mixed = await context.startRendering();
  return Array.from({ length: channels }, (_, channel) => mixed.getChannelData(channel));
}

async function encodeFile(signal, file, stop) {
  const audio = await readAudio(file, signal.spec);
  const size = Math.round(CHUNK_SECONDS * signal.spec.sample_rate);
  for (let start = 0; start < audio[0].length && !stop.aborted; start += size) {
    await signal.push(audio.map((row) => row.slice(start, start + size)));
    while (signal.ahead > MOST_SECONDS_AHEAD && !stop.aborted) await new Promise((done) => setTimeout(done, 50));
  }
}

async function encodeMicrophone(signal, stop) {
  const { channels, sample_rate } = signal.spec;
  if (!navigator.mediaDevices) throw new Error("browsers give the microphone to pages of https or localhost alone");
  const context = new AudioContext({ sampleRate: sample_rate });
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: channels } });
    await context.audioWorklet.addModule("capture.js");
    const options = { numberOfOutputs: 0, channelCount: channels, channelCountMode: "explicit" };
    const capture = new AudioWorkletNode(context, "capture", options);
    const heard = [];
    let wake = () => {};
    capture.port.onmessage = ({ data }) => wake(heard.push(data));
    stop.addEventListener("abort", () => wake());
    context.createMediaStreamSource(stream).connect(capture);
    while (!stop.aborted) {
      if (!heard.length) await new Promise((done) => (wake = done));
      const blocks = heard.splice(0);
      if (blocks.length) await signal.push(blocks[0].map((_, channel) => joined(blocks.map((block) => block[channel]))));
    }
  } finally {
    stream?.getTracks().forEach((track) => track.stop());
    await context.close();
  }
}

let model = null;
let signal = null;
let stopping = null;

/** Do something with the page's controls disabled. An error is shown. */
async function busy(status, work) {
  $("controls").disabled = true;
  $("status").textContent = status;
  try {
    $("status").textContent = await work();
  } catch (error) {
    $("status").textContent = `Error: ${error.message}`;
  }
  $("controls").disabled = false;
  $("microphone").disabled = $("file").disabled = model === null;
}

const open = (fields) =>
  busy("Loading the model", async () => {
    model = null;
    const { spec, modelBytes, runtimeBytes, threads, latencies } = await ask("open", fields);
    model = spec;
    const [encoder, decoder] = latencies.map((samples) => milliseconds(samples / spec.sample_rate));
    $("model").textContent =
      `${spec.name}, ${spec.sample_rate} Hz, ${spec.channels === 1 ? "mono" : `${spec.channels} channels`}`;
    $("size").textContent = `model ${megabytes(modelBytes)}, runtime ${megabytes(runtimeBytes)}; threads: ${threads}`;
    $("latency").textContent = `encoder ${encoder}, decoder ${decoder}`;
    for (const id of ["first", "encoder", "decoder", "tokens"]) $(id).textContent = "";
    return "Ready";
  });

const run = (status, encode) =>
  busy(status, async () => {
    stopping = new AbortController();
    const context = $("play").checked ? new AudioContext({ sampleRate: model.sample_rate }) : null;
    signal = new Signal(model, context);
    URL.revokeObjectURL($("download").href);
    $("download").hidden = true;
    $("stop").disabled = false;
    try {
      await ask("begin");
      await encode(signal, stopping.signal);
      if (!signal.samplesIn) return "No audio came in";
      await signal.finish();
      const channels = signal.parts[0].map((_, channel) => joined(signal.parts.map((part) => part[channel])));
      $("download").href = URL.createObjectURL(wav(channels, model.sample_rate));
      $("download").hidden = false;
      return `Done: ${(signal.samplesOut / model.sample_rate).toFixed(1)} s`;
    } finally {
      $("stop").disabled = true;
      setTimeout(() => context?.close(), 1000 * Math.max(0, signal.ahead) + 500);
    }
  });

$("microphone").onclick = () => run("Listening", encodeMicrophone);
$("file").onchange = () => $("file").files.length && run("Working", (each, stop) => encodeFile(each, $("file").files[0], stop));
$("folder").onchange = () => $("folder").files.length && open({ files: [...$("folder").files] });
$("stop").onclick = () => stopping.abort();
open({ address: new URL(new URLSearchParams(location.search).get("model") ?? "model/", location.href).href });

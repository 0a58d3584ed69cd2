"use strict";

/** Plays a stream: `open` is its first message, `send(socket)` sends the rest; `heard` gets the samples played so far. */
function playStream(open, send, heard = () => {}) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/stream`);
    socket.binaryType = "arraybuffer";
    let context, ready, ended;
    let next = 0;
    socket.onopen = () => socket.send(JSON.stringify({ type: "open", direction: "decode", sample_format: "float32", ...open }));
    socket.onclose = () => (ended ? resolve(ended) : reject(new Error("the connection broke before the end")));
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const message = JSON.parse(data);
        if (message.type === "ready") {
          ready = message;
          context = new AudioContext({ sampleRate: ready.sample_rate });
          send(socket);
        } else if (message.type === "ended") ended = { ...message, context };
        else if (message.type === "error") reject(new Error(message.message));
        return;
      }
      const samples = new Float32Array(data);
      const buffer = context.createBuffer(ready.channels, samples.length / ready.channels, ready.sample_rate);
      for (let channel = 0; channel < ready.channels; channel++)
        buffer.getChannelData(channel).forEach((_, at, own) => (own[at] = samples[at * ready.channels + channel]));
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(context.destination);
      next = Math.max(next, context.currentTime + 0.1);
      source.start(next);
      next += buffer.duration;
      heard(buffer);
    };
  });
}

const [codec, file, token, play, status_] = ["codec", "file", "token", "play", "status"].map((id) => document.getElementById(id));
const parts = [];

async function listen() {
  const content = await file.files[0].arrayBuffer();
  const open = { codec: codec.value, tokens: "container", ...(token.value ? { token: token.value } : {}) };
  const send = (socket) => [content, JSON.stringify({ type: "end" })].forEach((message) => socket.send(message));
  parts.length = 0;
  const ended = await playStream(open, send, (buffer) => {
    parts.push(buffer);
    status_.textContent = `${parts.reduce((sum, { duration }) => sum + duration, 0).toFixed(1)} s received`;
  });
  status_.textContent = `${(ended.samples / ended.context.sampleRate).toFixed(1)} s received, complete`;
}

play.onclick = () => listen().catch((error) => (status_.textContent = `Error: ${error.message}`));
const headers = () => (token.value ? { Authorization: `Bearer ${token.value}` } : {});
const offer = async () => {
  const answer = await (await fetch("/v1/codecs", { headers: headers() })).json();
  codec.replaceChildren(...(answer.codecs || []).map(({ name }) => new Option(name)));
};
token.onchange = offer;
offer();

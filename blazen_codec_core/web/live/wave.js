/** Create a 16-bit WAV file from float samples, one array per channel. */
function waveFile(channels, rate) {
  const length = channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + 2 * channels.length * length));
  const text = (offset, letters) => [...letters].forEach((letter, index) => view.setUint8(offset + index, letter.charCodeAt(0)));
  (text(0, "RIFF"), view.setUint32(4, view.byteLength - 8, true), text(8, "WAVEfmt "));
  (view.setUint32(16, 16, true),
    view.setUint16(20, 1, true),
    view.setUint16(22, channels.length, true),
    view.setUint32(24, rate, true));
  (view.setUint32(28, rate * channels.length * 2, true),
    view.setUint16(32, channels.length * 2, true),
    view.setUint16(34, 16, true));
  (text(36, "data"), view.setUint32(40, view.byteLength - 44, true));
  let offset = 44;
  for (let sample = 0; sample < length; sample += 1) {
    for (const channel of channels) {
      view.setInt16(offset, Math.round(32767 * Math.min(1, Math.max(-1, channel[sample]))), true);
      offset += 2;
    }
  }
  return view.buffer;
}

/** Concatenate arrays of samples. */
function concatenate(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

/** Create a WAV file of a version. */
function versionFile(version, rate) {
  const count = version.parts[0].buffer.numberOfChannels;
  const channels = Array.from({ length: count }, (_, channel) => {
    return concatenate(version.parts.map(({ buffer }) => buffer.getChannelData(channel)));
  });
  return waveFile(channels, rate);
}

/** Mono recorder for the microphone; `stop` returns a WAV file. */
class Recorder {
  static TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process(inputs) { if (inputs[0].length) this.port.postMessage(inputs[0][0].slice()); return true; }
  });`;

  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext();
    const address = URL.createObjectURL(new Blob([Recorder.TAP], { type: "text/javascript" }));
    await this.context.audioWorklet.addModule(address);
    URL.revokeObjectURL(address);
    this.pieces = [];
    const tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    tap.port.onmessage = ({ data }) => this.pieces.push(data);
    this.context.createMediaStreamSource(this.stream).connect(tap);
  }

  get seconds() {
    return this.pieces.reduce((sum, piece) => sum + piece.length, 0) / this.context.sampleRate;
  }

  async stop() {
    for (const track of this.stream.getTracks()) track.stop();
    const rate = this.context.sampleRate;
    await this.context.close();
    return new File([waveFile([concatenate(this.pieces)], rate)], "recording.wav", { type: "audio/wav" });
  }
}

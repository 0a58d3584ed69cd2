const CHUNK = 1 << 20; // bytes of the file per message
const TOKENS = 1; // kind of messages with tokens; others have audio

/** One run: sends a file to the systems over its own WebSocket, and passes the results to `shown`. */
class Run {
  constructor(file, systems, mono, shown) {
    Object.assign(this, { file, shown, over: false, view: null });
    this.socket = new WebSocket(new URL("/compare", location.href.replace(/^http/, "ws")));
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.socket.send(JSON.stringify({ systems, name: file.name, size: file.size, mono }));
    this.socket.onmessage = ({ data }) =>
      typeof data === "string" ? this.#receive(JSON.parse(data)) : this.#receiveBinary(data);
    this.socket.onclose = () => this.#end("The connection to the server was lost. Check that it is still running.");
  }

  cancel() {
    this.#end(null);
  }

  #end(wrong) {
    if (this.over) return;
    this.over = true;
    this.socket.close();
    this.view?.recording.versions.forEach((_, number) => this.view.player.complete(number));
    this.shown.end(wrong);
  }

  async #send() {
    for (let start = 0; start < this.file.size && !this.over; start += CHUNK) {
      this.socket.send(await this.file.slice(start, start + CHUNK).arrayBuffer());
      this.shown.tell(`Sending ${Math.round((100 * Math.min(start + CHUNK, this.file.size)) / this.file.size)} %`);
      while (this.socket.bufferedAmount > 4 * CHUNK && !this.over) await new Promise((done) => setTimeout(done, 20));
    }
  }

  #receive(message) {
    if (this.over) return;
    if (message.type === "waiting")
      this.shown.tell(`Waiting: ${message.place === 1 ? "next" : `number ${message.place}`} in the queue`);
    else if (message.type === "ready") this.#send();
    else if (message.type === "loading") this.shown.tell("Loading the models");
    else if (message.type === "begun") this.#begin(message.recording);
    else if (message.type === "ended") this.#finishCoding();
    else if (message.type === "shown") this.#describe(message.recording);
    else if (message.type === "error") this.#end(message.message);
    else if (message.type === "done") this.#end("");
  }

  #begin(recording) {
    this.view = new RecordingView(recording, this.shown.shared);
    this.shown.begin(this.view);
  }

  #receiveBinary(data) {
    const [kind, number] = new Uint32Array(data, 0, 2);
    if (kind === TOKENS) return this.shown.tokens(this.view, number, data.slice(8));
    const { channels, sample_rate: sampleRate } = this.view.recording;
    const samples = new Float32Array(data, 8);
    const length = samples.length / channels;
    const buffer = new AudioBuffer({ numberOfChannels: channels, length, sampleRate });
    for (let channel = 0; channel < channels; channel += 1)
      buffer.copyToChannel(samples.subarray(channel * length, (channel + 1) * length), channel);
    this.view.player.append(number, buffer);
    const heard = Math.min(...this.view.player.versions.map((version) => version.seconds));
    this.shown.tell("Encoding and decoding", heard / this.view.recording.seconds);
  }

  #finishCoding() {
    this.view.recording.versions.forEach((_, number) => this.view.player.complete(number));
    this.shown.tell("Measuring");
  }

  #describe({ versions, ...facts }) {
    Object.assign(this.view.recording, facts);
    versions.forEach((version, number) => Object.assign(this.view.recording.versions[number], version));
    this.view.describe();
  }
}

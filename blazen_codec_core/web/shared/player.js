/**
 * Player of several versions of a recording. All versions run in parallel, so that playback continues at the same instant after a switch.
 *
 * Each version is a list of buffers that may still grow. Playback waits when the selected version has run out.
 * Events: "state" when the state of playback changes, "sound" when a version gets longer.
 */
class Player extends EventTarget {
  static contexts = new Map(); // one per sample rate, because browsers allow few
  static current = null;
  static AHEAD = 0.5; // seconds of audio needed to resume after waiting
  static FADE = 0.008; // seconds of the cross-fade between versions

  constructor(rate, seconds, count) {
    super();
    this.rate = rate;
    this.seconds = seconds;
    this.versions = Array.from({ length: count }, () => ({ parts: [], seconds: 0, complete: false, gain: 1 }));
    this.selected = 0;
    this.matched = true;
    this.loop = false;
    this.state = "paused"; // or "playing", "waiting"
    this.offset = 0;
    this.sources = [];
    this.gains = [];
  }

  get context() {
    if (!Player.contexts.has(this.rate)) Player.contexts.set(this.rate, new AudioContext({ sampleRate: this.rate }));
    return Player.contexts.get(this.rate);
  }

  get position() {
    if (this.state !== "playing") return this.offset;
    return Math.min(this.seconds, this.offset + Math.max(0, this.context.currentTime - this.startedAt));
  }

  /** Append an AudioBuffer to a version. */
  append(number, buffer) {
    const version = this.versions[number];
    const part = { start: version.seconds, buffer };
    version.parts.push(part);
    version.seconds += buffer.length / this.rate;
    if (this.state === "playing") this.#schedule(number, part);
    this.#resume();
    this.dispatchEvent(new Event("sound"));
  }

  /** Mark a version as complete. */
  complete(number) {
    this.versions[number].complete = true;
    this.#resume();
    this.dispatchEvent(new Event("sound"));
  }

  setGain(number, decibels) {
    this.versions[number].gain = 10 ** (decibels / 20);
    this.#mix();
  }

  select(number) {
    this.selected = number;
    this.#mix();
    this.#resume();
    this.#changed();
  }

  match(on) {
    this.matched = on;
    this.#mix();
    this.#changed();
  }

  async play() {
    if (Player.current && Player.current !== this) Player.current.pause();
    Player.current = this;
    if (this.position >= this.seconds - 0.01) this.offset = 0;
    this.state = "waiting";
    await this.context.resume();
    this.#resume();
    this.#changed();
  }

  pause() {
    this.offset = this.position;
    this.state = "paused";
    this.#silence();
    this.#changed();
  }

  toggle() {
    if (this.state === "paused") this.play();
    else this.pause();
  }

  seek(seconds) {
    const wasOn = this.state !== "paused";
    this.#silence();
    this.offset = Math.round(Math.min(Math.max(seconds, 0), this.seconds) * this.rate) / this.rate;
    if (wasOn) this.state = "waiting";
    this.#resume();
    this.#changed();
  }

  /** Check for the end of the recording, or of the available audio; called during playback. */
  tick() {
    if (this.state !== "playing") return;
    const heard = this.versions[this.selected];
    if (this.position >= this.seconds - 1e-3) {
      if (this.loop) this.seek(0);
      else {
        this.pause();
        this.offset = this.seconds;
        this.#changed();
      }
    } else if (!heard.complete && this.position > heard.seconds - 0.02) {
      this.offset = this.position;
      this.state = "waiting";
      this.#silence();
      this.#changed();
    }
  }

  /** Resume from waiting once there is enough audio. */
  #resume() {
    if (this.state !== "waiting") return;
    const heard = this.versions[this.selected];
    if (!heard.complete && heard.seconds < this.offset + Player.AHEAD) return;
    this.#silence();
    this.state = "playing";
    this.startedAt = this.#aligned(0.03);
    this.gains = this.versions.map(() => {
      const gain = this.context.createGain();
      gain.gain.value = 0;
      gain.connect(this.context.destination);
      return gain;
    });
    this.versions.forEach((version, number) => version.parts.forEach((part) => this.#schedule(number, part)));
    this.#mix();
    this.#changed();
  }

  /** Time in `seconds` from now, rounded up to a sample. */
  #aligned(seconds) {
    return Math.ceil((this.context.currentTime + seconds) * this.rate) / this.rate;
  }

  #schedule(number, part) {
    const due = this.startedAt + part.start - this.offset;
    const when = Math.max(due, this.startedAt, this.#aligned(0.01)); // a start in the past would be slightly late
    if (when - due >= part.buffer.duration) return;
    const source = this.context.createBufferSource();
    source.buffer = part.buffer;
    source.connect(this.gains[number]);
    source.start(when, when - due);
    this.sources.push(source);
  }

  #silence() {
    for (const source of this.sources) {
      source.stop();
      source.disconnect();
    }
    for (const gain of this.gains) gain.disconnect();
    this.sources = [];
    this.gains = [];
  }

  #mix() {
    this.gains.forEach((gain, number) => {
      const version = this.versions[number];
      const target = number === this.selected ? (this.matched ? version.gain : 1) : 0;
      gain.gain.setTargetAtTime(target, this.context.currentTime, Player.FADE / 3);
    });
  }

  #changed() {
    this.dispatchEvent(new Event("state"));
  }
}

/**
 * Plays one of several versions of a recording, all of them running side by side, so that switching goes on at the same instant.
 *
 * Each version is a row of buffers, which may still be growing. Where the one that is heard has run out, playing waits for more.
 * Events: "state" when something about playing changed, "sound" when a version got longer.
 */
class Player extends EventTarget {
  static contexts = new Map(); // one a sample rate: browsers allow few
  static current = null;
  static AHEAD = 0.5; // seconds that there must be before playing goes on after it had to wait
  static FADE = 0.008; // seconds from one version to another

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

  /** More sound of a version: an AudioBuffer. */
  append(number, buffer) {
    const version = this.versions[number];
    const part = { start: version.seconds, buffer };
    version.parts.push(part);
    version.seconds += buffer.length / this.rate;
    if (this.state === "playing") this.#schedule(number, part);
    this.#goOn();
    this.dispatchEvent(new Event("sound"));
  }

  /** There is no more of a version. */
  complete(number) {
    this.versions[number].complete = true;
    this.#goOn();
    this.dispatchEvent(new Event("sound"));
  }

  setGain(number, decibels) {
    this.versions[number].gain = 10 ** (decibels / 20);
    this.#mix();
  }

  select(number) {
    this.selected = number;
    this.#mix();
    this.#goOn();
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
    this.#goOn();
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
    this.#goOn();
    this.#changed();
  }

  /** Looks whether the end, of all or of what there is, has come; called while it plays. */
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

  /** From waiting to playing, once there is enough. */
  #goOn() {
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

  /** So many seconds from now, on a sample. */
  #aligned(seconds) {
    return Math.ceil((this.context.currentTime + seconds) * this.rate) / this.rate;
  }

  #schedule(number, part) {
    const due = this.startedAt + part.start - this.offset;
    const when = Math.max(due, this.startedAt, this.#aligned(0.01)); // a start in the past would come late by a little
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

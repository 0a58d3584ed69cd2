/** One recording: player, spectrograms, measures and tokens. */
class RecordingView {
  static focused = null; // target of keyboard shortcuts

  /** `recording` is the result of `serialize.page_data` in Python; pictures of versions may still be missing. */
  constructor(recording, { scales, measures, tally }) {
    Object.assign(this, { recording, scales, measures });
    this.player = new Player(recording.sample_rate, recording.seconds, recording.versions.length);
    this.timelines = [];
    this.blind = new BlindTest(recording, tally, (pair) => this.#listen(pair));
    this.details = element("div", {});
    const facts = `${recording.seconds.toFixed(2)} s, ${recording.sample_rate} Hz, ${recording.channels === 1 ? "mono" : "stereo"}`;
    this.root = element(
      "section",
      { class: "card recording", "aria-label": recording.name },
      element("div", { class: "heading" }, element("h2", {}, recording.name), element("span", { class: "soft" }, facts)),
      this.#controls(),
      this.details,
    );
    this.root.addEventListener("pointerdown", () => {
      RecordingView.focused = this;
    });
    this.root.addEventListener("focusin", () => {
      RecordingView.focused = this;
    });
    RecordingView.focused ??= this;
    this.player.addEventListener("state", () => this.#update());
    this.player.addEventListener("sound", () => this.#update());
    this.#listen(null);
    this.describe();
  }

  #controls() {
    const { player, recording } = this;
    this.play = element("button", { type: "button", class: "play main", onclick: () => this.start() }, "▶ Play");
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: recording.seconds,
      step: 0.01,
      value: 0,
      "aria-label": `Position in ${recording.name}`,
      oninput: () => player.seek(Number(this.slider.value)),
    });
    this.time = element("span", { class: "time" });
    this.choice = element("fieldset", { class: "versions" });
    this.match = element("input", { type: "checkbox", checked: true, onchange: () => player.match(this.match.checked) });
    const loop = element("input", {
      type: "checkbox",
      onchange: () => {
        player.loop = loop.checked;
      },
    });
    this.blindButton = element(
      "button",
      { type: "button", onclick: () => (this.blind.running ? this.blind.stop() : this.blind.start()) },
      "Blind A/B",
    );
    this.state = element("span", { class: "soft small", role: "status" });
    return element(
      "div",
      { class: "player" },
      element("div", { class: "bar" }, this.play, this.slider, this.time),
      this.choice,
      element(
        "div",
        { class: "extras" },
        element("label", { class: "check" }, this.match, "Match levels"),
        element("label", { class: "check" }, loop, "Loop"),
        this.blindButton,
        element("span", { class: "soft small" }, "space: play or pause, ← →: seek, 1 to 9: switch"),
        this.state,
      ),
      this.blind.root,
    );
  }

  /** Show the available information about the versions. */
  describe() {
    const { recording } = this;
    this.player.seconds = recording.seconds; // the header of a compressed file only has an estimate
    this.slider.max = recording.seconds;
    recording.versions.forEach((version, number) => this.player.setGain(number, version.gain_db ?? 0));
    if (!recording.versions.every((version) => version.spectrogram)) {
      this.details.replaceChildren(
        element("p", { class: "soft" }, "Spectrograms, measures and tokens follow when all versions are decoded."),
      );
      return;
    }
    const seek = (seconds) => this.player.seek(seconds);
    const pick = (number) => {
      if (!this.blind.running) this.player.select(number);
    };
    const pictures = spectrograms(recording, this.scales, seek, pick);
    const tokens = tokenMatrices(recording, seek, pick);
    this.timelines = [pictures, tokens].filter(Boolean).map(({ timeline }) => timeline);
    const rows = recording.versions.flatMap((version, number) =>
      version.numbers ? [{ name: version.name, number, numbers: version.numbers }] : [],
    );
    this.details.replaceChildren(
      pictures.root,
      element(
        "div",
        { class: "section" },
        element("h3", {}, "Measures"),
        numbersTable(`Measures of ${recording.name}`, rows, this.measures),
      ),
      tokens ? element("div", { class: "section" }, element("h3", {}, "Tokens"), tokens.root) : "",
    );
    this.#listen(this.blind.pair);
  }

  /** Decode the audio in the page, once. */
  async #load() {
    this.loading ??= Promise.all(
      this.recording.versions.map(async (version, number) => {
        if (!version.audio) return;
        const bytes = decodeBase64(version.audio);
        version.audio = null;
        this.player.append(number, await this.player.context.decodeAudioData(bytes.buffer));
        this.player.complete(number);
      }),
    );
    await this.loading;
  }

  async start() {
    if (this.player.state !== "paused") return this.player.pause();
    this.player.context.resume(); // browsers allow this only during the click
    await this.#load();
    return this.player.play();
  }

  /** Offer all versions, or the original and a pair under other names. */
  #listen(pair) {
    const { versions } = this.recording;
    const all = versions.map((version, number) => ({ number, label: version.name, own: colour(number) }));
    const own = "var(--accent)";
    const shown = pair
      ? [
          { number: 0, label: "Reference", own },
          { number: pair[0], label: "A", own },
          { number: pair[1], label: "B", own },
        ]
      : all;
    const group = `version-${Math.random()}`;
    this.buttons = shown.map(({ number, label, own }, index) => ({
      number,
      input: element("input", {
        type: "radio",
        name: group,
        value: label,
        checked: index === (pair ? 1 : this.player.selected),
        onchange: () => this.player.select(number),
      }),
      label,
      own,
    }));
    this.choice.replaceChildren(
      element("legend", { class: "visually-hidden" }, "Version to hear"),
      ...this.buttons.map(({ input, label, own }, index) =>
        element(
          "label",
          { style: { "--own": own } },
          input,
          element("span", { class: "swatch", "aria-hidden": "true" }),
          label,
          element("kbd", { "aria-hidden": "true" }, String(index + 1)),
        ),
      ),
    );
    this.player.select(this.buttons.find(({ input }) => input.checked).number);
    this.details.hidden = pair !== null;
    for (const hint of document.querySelectorAll(".reveals")) hint.hidden = pair !== null;
    this.blindButton.textContent = pair ? "Stop the blind test" : "Blind A/B";
    this.#update();
  }

  #update() {
    const { player } = this;
    this.play.textContent = player.state === "paused" ? "▶ Play" : "❚❚ Pause";
    this.state.textContent =
      player.state === "waiting" && this.recording.versions[player.selected].gain_db === undefined ? "waiting for audio …" : "";
    for (const timeline of this.timelines) timeline.heard(this.blind.running ? -1 : player.selected);
    for (const button of this.buttons) if (!this.blind.running) button.input.checked = button.number === player.selected;
    this.tick();
  }

  tick() {
    this.player.tick();
    const seconds = this.player.position;
    this.slider.value = seconds;
    this.slider.setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${this.recording.seconds.toFixed(1)} seconds`);
    this.time.textContent = `${clock(seconds)} / ${clock(this.recording.seconds)}`;
    for (const timeline of this.timelines) timeline.at(seconds);
  }

  key(event) {
    const number = Number(event.key);
    if (event.key === " ") this.start();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight")
      this.player.seek(this.player.position + (event.key === "ArrowLeft" ? -1 : 1));
    else if (number >= 1 && number <= this.buttons.length) {
      this.buttons[number - 1].input.checked = true;
      this.player.select(this.buttons[number - 1].number);
    } else if (this.blind.running && ["a", "b", "n"].includes(event.key)) this.blind.choose({ a: 0, b: 1, n: null }[event.key]);
    else return;
    event.preventDefault();
  }
}

/** Handle keys for the recording used last, unless an element needs them, and update the playheads. */
function runRecordings(views) {
  document.addEventListener("keydown", (event) => {
    const used = event.target.closest("button, select, a, [role=region], input:not([type=radio])");
    const arrows = event.key.startsWith("Arrow") && event.target.closest("input");
    if (
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      arrows ||
      (used && (event.key === " " || event.key.startsWith("Arrow")))
    )
      return;
    if (event.target.closest("select")) return;
    RecordingView.focused?.key(event);
  });
  const frame = () => {
    for (const view of views()) if (view.player.state === "playing") view.tick();
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

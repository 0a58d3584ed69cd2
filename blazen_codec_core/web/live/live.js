/** The live page: upload or record audio, hear each system's version while it is decoded, then see the report. */
const offer = JSON.parse(document.getElementById("data").textContent);
const tally = new Tally();
const views = [];

/** Controls of one system: a check box and a menu of bandwidths. */
class Choice {
  constructor({ name, about, rates, rate, ready, must }) {
    this.name = name;
    this.box = element("input", { type: "checkbox", checked: ready && !must, name });
    const only = rates.length === 1;
    const standard = rates.reduce((best, each) => (Math.abs(each - rate) < Math.abs(best - rate) ? each : best));
    this.rates = element(
      "select",
      { "aria-label": `Bandwidth of ${name}`, disabled: only },
      rates.map((each) => element("option", { value: each, selected: each === standard }, `${Number(each.toFixed(2))} kbps`)),
    );
    this.plain = only || !must ? String(standard) : null; // bandwidth that can be omitted
    this.root = element(
      "div",
      { class: "system" },
      element("label", {}, this.box, name),
      this.rates,
      element("div", { class: "about" }, about),
    );
    this.ready = ready;
  }

  get asked() {
    return this.rates.value === this.plain ? this.name : `${this.name}@${Number(Number(this.rates.value).toFixed(4))}`;
  }
}

/** The page: its elements and their interaction. */
class Live {
  constructor() {
    this.shared = { scales: offer.scales, measures: offer.measures, tally };
    this.choices = offer.systems.map((system) => new Choice(system));
    this.file = null;
    this.input = element("input", { type: "file", accept: "audio/*,.flac,.wav,.ogg,.opus,.mp3,.aiff", hidden: true, id: "file" });
    this.input.addEventListener("change", () => {
      this.take(this.input.files[0]);
      this.input.value = ""; // so that choosing the same file again fires "change"
    });
    this.recordButton = element("button", { type: "button", onclick: () => this.record() }, "● Record");
    this.chosen = element("p", { class: "soft", role: "status" }, "No audio yet");
    this.mono = element("input", { type: "checkbox" });
    this.follow = element("input", { type: "checkbox", checked: true });
    this.runButton = element(
      "button",
      { type: "button", class: "main", id: "run", onclick: () => (this.run ? this.run.cancel() : this.start()) },
      "Compare",
    );
    this.status = element("span", { class: "status soft", role: "status" });
    this.progress = element("progress", { max: 1, value: 0, hidden: true, "aria-label": "Done" });
    this.wrong = element("p", { class: "wrong", role: "alert", hidden: true });
    this.results = element("div", { id: "results" });
    const { bytes, seconds } = offer.limits;
    this.drop = element(
      "div",
      { class: "drop" },
      element("p", {}, "Drop an audio file here"),
      element(
        "p",
        { class: "soft small" },
        `WAV, FLAC, Ogg, Opus, MP3, AIFF; up to ${bytes / 1e6} MB and ${Math.round(seconds / 6) / 10} minutes. The server processes it and does not store it.`,
      ),
      element(
        "div",
        { class: "row" },
        element("button", { type: "button", onclick: () => this.input.click() }, "Choose a file"),
        this.input,
        this.recordButton,
      ),
      this.chosen,
    );
    for (const kind of ["dragover", "dragleave", "drop"]) this.drop.addEventListener(kind, (event) => this.dragged(event));
    document
      .getElementById("main")
      .append(
        pageTop(
          "Compare codecs",
          "Hear each version of a recording while it is decoded, then see spectrograms, measures and tokens.",
        ),
        element(
          "section",
          { class: "card", "aria-label": "What to compare" },
          this.drop,
          this.#systems("Ready to run", true),
          this.#systems("Weights are downloaded at first use", false),
          element(
            "div",
            { class: "go" },
            this.runButton,
            element("label", { class: "check" }, this.mono, "Mix to mono"),
            element("label", { class: "check" }, this.follow, "Play while decoding"),
            this.status,
            this.progress,
          ),
          this.wrong,
        ),
        this.results,
      );
  }

  #systems(title, ready) {
    const some = this.choices.filter((choice) => choice.ready === ready);
    if (!some.length) return null;
    return element(
      "fieldset",
      { class: "systems" },
      element("legend", {}, title),
      element(
        "div",
        { class: "grid" },
        some.map(({ root }) => root),
      ),
    );
  }

  dragged(event) {
    event.preventDefault();
    this.drop.classList.toggle("over", event.type === "dragover");
    if (event.type === "drop" && event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
  }

  take(file) {
    if (!file) return;
    this.fail(null);
    if (file.size > offer.limits.bytes)
      return this.fail(`${file.name} is ${(file.size / 1e6).toFixed(0)} MB; the limit is ${offer.limits.bytes / 1e6} MB.`);
    if (!file.size) return this.fail(`${file.name} is empty.`);
    this.file = file;
    this.chosen.textContent = `${file.name}, ${file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`}`;
  }

  async record() {
    try {
      if (this.recorder) {
        const done = this.recorder;
        this.recorder = null;
        clearInterval(this.timer);
        this.recordButton.textContent = "● Record";
        return this.take(await done.stop());
      }
      const recorder = new Recorder();
      await recorder.start();
      this.recorder = recorder;
      this.timer = setInterval(() => {
        this.recordButton.textContent = `■ Stop at ${clock(recorder.seconds)}`;
        if (recorder.seconds > offer.limits.seconds - 1) this.record();
      }, 100);
    } catch (error) {
      this.fail(`The microphone cannot be used: ${error.message}`);
    }
    return null;
  }

  start() {
    const systems = this.choices.filter(({ box }) => box.checked).map(({ asked }) => asked);
    this.fail(null);
    if (!this.file) return this.fail("Choose, drop or record some audio first.");
    if (!systems.length) return this.fail("Select a codec.");
    if (systems.length > offer.limits.systems)
      return this.fail(`${systems.length} codecs are selected; the limit is ${offer.limits.systems}.`);
    this.runButton.textContent = "Cancel";
    this.run = new Run(this.file, systems, this.mono.checked, this);
    return this.run;
  }

  tell(text, share) {
    this.status.textContent = text;
    this.progress.hidden = share === undefined;
    if (share !== undefined) this.progress.value = share;
  }

  begin(view) {
    views.unshift(view);
    this.results.prepend(view.root);
    RecordingView.focused = view;
    view.player.select(Math.min(1, view.recording.versions.length - 1));
    if (this.follow.checked) view.player.play();
  }

  tokens(view, number, bytes) {
    const { recording, player } = view;
    view.downloads ??= view.details.appendChild(
      element("div", { class: "section" }, element("h3", {}, "Downloads"), element("div", { class: "downloads" })),
    ).lastChild;
    const name = `${recording.name.replace(/\.[^.]*$/, "")}.${recording.versions[number].name}`;
    view.downloads.append(
      element(
        "span",
        { class: "pair" },
        element(
          "button",
          { type: "button", onclick: () => download(`${name}.tokens`, bytes, "application/octet-stream") },
          `${recording.versions[number].name}: tokens, ${(bytes.byteLength / 1e3).toFixed(1)} kB`,
        ),
        element(
          "button",
          {
            type: "button",
            onclick: () => download(`${name}.wav`, versionFile(player.versions[number], recording.sample_rate), "audio/wav"),
          },
          "audio",
        ),
      ),
    );
  }

  /** End of a run; `wrong` is an error message, empty after success, or `null` if the run was cancelled. */
  end(wrong) {
    this.run = null;
    this.runButton.textContent = "Compare";
    this.tell(wrong === null ? "Cancelled" : wrong ? "" : "Done");
    this.fail(wrong || null);
  }

  fail(text) {
    this.wrong.hidden = !text;
    this.wrong.textContent = text ?? "";
  }
}

const live = new Live();
runRecordings(() => views);

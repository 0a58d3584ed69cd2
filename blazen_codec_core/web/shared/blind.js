/** Results of the blind comparisons of all recordings on the page. */
class Tally {
  trials = [];

  /** Add a choice; `winner` is a name, or null for no difference. */
  add(recording, pair, winner) {
    this.trials.push({ recording, versions: pair, preferred: winner });
  }

  clear() {
    this.trials = [];
  }

  /** Counts per version: preferred, other preferred, and no difference. */
  get lines() {
    const lines = new Map();
    for (const { versions, preferred } of this.trials) {
      for (const name of versions) {
        const line = lines.get(name) ?? { name, preferred: 0, other: 0, alike: 0 };
        line[preferred === null ? "alike" : preferred === name ? "preferred" : "other"] += 1;
        lines.set(name, line);
      }
    }
    return [...lines.values()].sort((a, b) => b.preferred - b.other - (a.preferred - a.other));
  }
}

/** Shuffle with the cryptographic random generator. */
function shuffle(items) {
  const left = [...items],
    out = [];
  while (left.length) {
    const draw = crypto.getRandomValues(new Uint32Array(1))[0];
    out.push(left.splice(draw % left.length, 1)[0]);
  }
  return out;
}

/** Blind comparison of random pairs of versions, named A and B until the end. */
class BlindTest {
  /** `listen(pair)` offers only the pair, under other names; `null` offers all versions. */
  constructor(recording, tally, listen) {
    this.recording = recording;
    this.tally = tally;
    this.listen = listen;
    this.pair = null;
    this.status = element("p", { role: "status" });
    const choice = (label, pick, key) =>
      element("button", { type: "button", onclick: () => this.choose(pick), "aria-keyshortcuts": key }, `${label} (${key})`);
    this.choices = element(
      "div",
      { class: "choices" },
      choice("A is better", 0, "a"),
      choice("B is better", 1, "b"),
      choice("No difference", null, "n"),
      element("button", { type: "button", class: "main", onclick: () => this.stop() }, "Stop and reveal"),
    );
    this.results = element("div");
    this.root = element("div", { class: "blind", hidden: true }, this.status, this.choices, this.results);
  }

  get running() {
    return this.pair !== null;
  }

  start() {
    this.root.hidden = false;
    this.choices.hidden = false;
    this.results.replaceChildren();
    this.#draw("Listen to A and B as often as you like, and to the original as the reference; then choose.");
  }

  #draw(text) {
    this.pair = shuffle(this.recording.versions.map((_, number) => number)).slice(0, 2);
    this.status.textContent = text;
    this.listen(this.pair);
  }

  choose(pick) {
    if (!this.running) return;
    const names = this.pair.map((number) => this.recording.versions[number].name);
    this.tally.add(this.recording.name, names, pick === null ? null : names[pick]);
    this.#draw(`Choice ${this.tally.trials.length} noted. A and B are a new pair.`);
  }

  stop() {
    this.pair = null;
    this.choices.hidden = true;
    this.listen(null);
    const lines = this.tally.lines;
    this.status.textContent = lines.length
      ? `${this.tally.trials.length} choices for all recordings on this page:`
      : "No choices were made.";
    if (!lines.length) return;
    const head = ["version", "preferred", "other preferred", "no difference"].map((text) =>
      element("th", { scope: "col" }, text),
    );
    const body = lines.map((line) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, line.name),
        [line.preferred, line.other, line.alike].map((count) => element("td", {}, String(count))),
      ),
    );
    this.results.replaceChildren(
      element(
        "div",
        { class: "scroll" },
        element("table", { class: "tally" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)),
      ),
      element(
        "div",
        { class: "choices" },
        element(
          "button",
          {
            type: "button",
            onclick: () => download("choices.json", JSON.stringify(this.tally.trials, null, 2), "application/json"),
          },
          "Download the choices",
        ),
        element(
          "button",
          {
            type: "button",
            onclick: () => {
              this.tally.clear();
              this.stop();
            },
          },
          "Discard the choices",
        ),
      ),
    );
  }
}

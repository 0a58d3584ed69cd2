/** Pictures of a recording in rows on a common time axis, with a common playhead. */
class Timeline {
  /** A click on a picture calls `seek(seconds)` with its position, and `pick(number)` with its version. */
  constructor(seconds, seek, pick) {
    this.seconds = seconds;
    this.seek = seek;
    this.pick = pick;
    this.root = element("div", { class: "stack" });
    this.rows = [];
  }

  /** Add a row: a picture between a left and a right element. `alt` describes the picture. */
  add({ kind, number, png, alt, left, right, height, span = 1 }) {
    const image = element("div", {
      class: `image ${kind}`,
      style: { "--own": colour(number), ...(height && { height: `${height}px` }) },
    });
    image.append(
      element("img", { src: `data:image/png;base64,${png}`, alt, draggable: false, style: { width: `${100 * span}%` } }),
    );
    image.addEventListener("click", (event) => {
      const box = image.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.seconds);
      this.pick(number);
    });
    this.rows.push({ kind, number, cells: [left, image, right] });
    this.root.append(left, image, right);
  }

  /** Add the time axis below all rows. */
  finish() {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((s) => this.seconds / s <= 12) ?? 1200;
    const axis = element("div", { class: "seconds", "aria-hidden": "true" });
    for (let tick = 0; tick <= this.seconds - step * 0.5; tick += step) {
      const text = `${Number(tick.toFixed(1))}${tick === 0 ? " s" : ""}`;
      axis.append(element("span", { style: { left: `${(100 * tick) / this.seconds}%` } }, text));
    }
    this.root.append(element("div"), axis, element("div"));
    return this.root;
  }

  at(seconds) {
    this.root.style.setProperty("--at", Math.min(1, seconds / this.seconds));
  }

  show(kinds) {
    for (const row of this.rows) for (const cell of row.cells) cell.hidden = !kinds.includes(row.kind);
  }

  heard(number) {
    for (const row of this.rows) {
      row.cells[1].classList.toggle("heard", row.number === number);
      row.cells[2].classList.toggle("heard", row.number === number);
    }
  }
}

/** Frequency axis of a spectrogram. */
function hertzScale(ticks) {
  const scale = element("div", { class: "scale", "aria-hidden": "true" });
  ticks.forEach(([hertz, up], number) => {
    const text = `${hertz < 1000 ? hertz : `${hertz / 1000}k`}${number === ticks.length - 1 ? " Hz" : ""}`;
    scale.append(element("span", { style: { bottom: `${100 * up}%` } }, text));
  });
  return scale;
}

/** Legend of a colour map. */
function ramp(scale) {
  const name = `${scale.low} to ${scale.high} ${scale.unit}`;
  return element(
    "span",
    { role: "img", "aria-label": `Colours: ${name}` },
    `${scale.low > 0 ? "+" : ""}${scale.low}`,
    element("span", { class: "ramp", style: { background: `linear-gradient(to right, ${scale.colours.join(",")})` } }),
    `${scale.high > 0 ? "+" : ""}${scale.high} ${scale.unit}`,
  );
}

const sideLabel = (number, name, ...lines) =>
  element(
    "div",
    { class: "side" },
    element("span", { class: "named name" }, swatch(number), name),
    ...lines.map((line) => element("div", { class: "soft" }, line)),
  );

const swatch = (number) => element("span", { class: "swatch", style: { "--own": colour(number) }, "aria-hidden": "true" });

/** Create the spectrograms and differences of a recording: `{root, timeline}`. */
function spectrograms(recording, scales, seek, pick) {
  const timeline = new Timeline(recording.seconds, seek, pick);
  recording.versions.forEach((version, number) => {
    const numbers = version.numbers;
    const lines = numbers
      ? [`${formatNumber(numbers.kbps, 2)} kbps`, `log-mel ${formatNumber(numbers.log_mel_distance, 3)}`]
      : ["log-mel spectrogram"];
    timeline.add({
      kind: "level",
      number,
      png: version.spectrogram,
      alt: `Log-mel spectrogram of ${version.name}`,
      left: hertzScale(recording.ticks),
      right: sideLabel(number, version.name, ...lines),
    });
    if (!version.difference) return;
    timeline.add({
      kind: "difference",
      number,
      png: version.difference,
      alt: `Difference between the spectrograms of ${version.name} and the original`,
      left: hertzScale(recording.ticks),
      right: sideLabel(number, version.name, "minus the original"),
    });
  });
  const legends = { level: ramp(scales.level), difference: ramp(scales.difference) };
  const modes = { Spectrograms: ["level"], Differences: ["difference"], Both: ["level", "difference"] };
  const choose = (kinds) => {
    timeline.show(kinds);
    for (const [kind, legend] of Object.entries(legends)) legend.hidden = !kinds.includes(kind);
  };
  const group = `modes-${Math.random()}`;
  const fields = element(
    "fieldset",
    { class: "modes" },
    element("legend", { class: "visually-hidden" }, "Pictures"),
    Object.entries(modes).map(([name, kinds]) =>
      element(
        "label",
        { class: "check" },
        element("input", { type: "radio", name: group, value: name, checked: name === "Both", onchange: () => choose(kinds) }),
        name,
      ),
    ),
  );
  choose(modes.Both);
  return {
    root: element("div", {}, element("div", { class: "legend" }, fields, legends.level, legends.difference), timeline.finish()),
    timeline,
  };
}

/** Create pictures of the tokens and the use of codebooks: `{root, timeline}`, or null if no version has tokens. */
function tokenMatrices(recording, seek, pick) {
  const timeline = new Timeline(recording.seconds, seek, pick);
  recording.versions.forEach((version, number) => {
    const tokens = version.tokens;
    if (!tokens) return;
    const books = tokens.books.length;
    const rows = books * tokens.streams;
    const height = Math.max(24, rows * Math.max(5, Math.min(16, Math.round(220 / rows))));
    const rates = [...new Set(tokens.rates.map((rate) => Number(rate.toFixed(1))))].join(", ");
    const about = `${books} codebooks of ${tokens.size} entries${tokens.streams > 1 ? `, ${tokens.streams} streams in rows` : ""}; ${rates} tokens per second`;
    timeline.root.append(
      element("div", { class: "margin" }),
      element(
        "div",
        { class: "small about" },
        element(
          "span",
          { class: "named" },
          swatch(number),
          element("b", {}, version.name),
          element("span", { class: "soft" }, about),
        ),
      ),
      element("div", { class: "small soft about" }, "entropy of maximum, in bits; entries used"),
    );
    timeline.add({
      kind: "tokens",
      number,
      png: tokens.image,
      height,
      span: tokens.span,
      alt: `Tokens of ${version.name}: ${about}, coloured by entry`,
      left: codebookScale(books, tokens.streams),
      right: element(
        "div",
        { class: "books" },
        tokens.books.map((book, index) => bookBar(version.name, book, index)),
      ),
    });
  });
  if (!timeline.rows.length) return null;
  return { root: timeline.finish(), timeline };
}

/** Axis of codebooks: the first and the last, or the start of each stream. */
function codebookScale(books, streams) {
  const labels =
    streams > 1
      ? Array.from({ length: streams }, (_, stream) => [`ch ${stream + 1}`, stream / streams])
      : [
          ["1", 0],
          [String(books), (books - 1) / books],
        ];
  const half = 0.5 / (books * streams);
  return element(
    "div",
    { class: "scale", "aria-hidden": "true" },
    labels
      .slice(0, books * streams)
      .map(([text, down]) => element("span", { style: { bottom: `${100 * (1 - down - half)}%` } }, text)),
  );
}

function bookBar(name, book, index) {
  const text = `${book.entropy.toFixed(1)} of ${book.bits.toFixed(0)}; ${(100 * book.used).toFixed(0)} %`;
  const label = `${name}, codebook ${index + 1}: entropy ${book.entropy.toFixed(1)} of ${book.bits.toFixed(0)} bits, ${(100 * book.used).toFixed(0)} % of its entries used`;
  return element(
    "div",
    { title: label },
    element("meter", { min: 0, max: book.bits, value: book.entropy, "aria-label": label }),
    element("span", { "aria-hidden": "true" }, text),
  );
}

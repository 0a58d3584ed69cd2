/** Create a table of measures with the best value of each column marked. `rows`: `[{name, number, numbers}]`. */
function numbersTable(caption, rows, measures) {
  const names = Object.keys(measures);
  const best = Object.fromEntries(
    names.map((name) => {
      const values = rows.map((row) => row.numbers[name]).filter((value) => value !== null);
      return [name, measures[name].better === "high" ? Math.max(...values) : Math.min(...values)];
    }),
  );
  const head = names.map((name) => {
    const { label, better } = measures[name];
    return element(
      "th",
      { scope: "col" },
      label,
      element("span", { "aria-hidden": "true" }, better === "high" ? " ↑" : " ↓"),
      element("span", { class: "visually-hidden" }, `, ${better} is better`),
    );
  });
  const body = rows.map(({ name, number, numbers }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("span", { class: "named" }, swatch(number), name)),
      names.map((measure) => {
        const isBest = rows.length > 1 && numbers[measure] !== null && numbers[measure] === best[measure];
        return element(
          "td",
          { class: isBest ? "best" : null },
          formatNumber(numbers[measure], measures[measure].digits),
          isBest ? element("span", { class: "visually-hidden" }, " (best)") : null,
        );
      }),
    ),
  );
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", { class: "visually-hidden" }, caption),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "system"), head)),
      element("tbody", {}, body),
    ),
  );
}

/** Explanations of the measures. */
const measureNotes = () =>
  element(
    "div",
    { class: "notes soft" },
    element("h2", { class: "part" }, "What the measures say"),
    element(
      "p",
      {},
      "Measures use the rate and channels of the recording, so a codec with a lower rate loses the frequencies above.",
    ),
    element("p", {}, "kbps count all channels of a recording, so a mean over mono and stereo recordings lies between both."),
    element(
      "p",
      {},
      "SI-SDR is low if a codec generates a new waveform instead of following the original. STOI and PESQ are for speech.",
    ),
    element(
      "p",
      {},
      "RTF is the real-time factor: seconds of compute per second of audio, on the machine that created this report.",
    ),
  );

/** Plot quality over bitrate, with one point per system and a line per codec. Rows as for `numbersTable`. */
function ratePlot(rows, measures) {
  const qualities = ["stoi", "pesq", "log_mel_distance", "si_sdr_db"].filter((name) =>
    rows.some((row) => row.numbers[name] !== null),
  );
  const plot = element("div");
  const select = element(
    "select",
    { onchange: () => draw(select.value) },
    qualities.map((name) => element("option", { value: name }, measures[name].label)),
  );
  const draw = (quality) =>
    plot.replaceChildren(
      rateQuality(
        rows.filter((row) => row.numbers[quality] !== null),
        quality,
        measures[quality],
      ),
    );
  if (qualities.length) draw(qualities[0]);
  return element("div", { class: "plot" }, element("label", { class: "named small" }, "Quality by", select), plot);
}

function rateQuality(rows, quality, { label, better }) {
  const size = { width: 520, height: 320, left: 52, right: 16, top: 14, bottom: 44 };
  const rates = rows.map((row) => row.numbers.kbps);
  const values = rows.map((row) => row.numbers[quality]);
  const low = Math.min(...rates) / 1.35,
    high = Math.max(...rates) * 1.35;
  const ticks = niceTicks(Math.min(...values), Math.max(...values));
  const bottom = ticks[0],
    top = ticks[ticks.length - 1];
  const x = (rate) => size.left + ((size.width - size.left - size.right) * Math.log(rate / low)) / Math.log(high / low);
  const y = (value) => size.height - size.bottom - ((size.height - size.top - size.bottom) * (value - bottom)) / (top - bottom);
  const parts = [];
  for (const tick of ticks) {
    parts.push(element("line", { class: "axis", x1: size.left, x2: size.width - size.right, y1: y(tick), y2: y(tick) }));
    parts.push(
      element(
        "text",
        { class: "tick", x: size.left - 8, y: y(tick) + 4, "text-anchor": "end" },
        String(Number(tick.toPrecision(6))),
      ),
    );
  }
  for (const rate of [0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256].filter((r) => r > low && r < high)) {
    parts.push(
      element("line", {
        class: "axis",
        x1: x(rate),
        x2: x(rate),
        y1: size.height - size.bottom,
        y2: size.height - size.bottom + 5,
      }),
    );
    parts.push(
      element("text", { class: "tick", x: x(rate), y: size.height - size.bottom + 18, "text-anchor": "middle" }, String(rate)),
    );
  }
  parts.push(
    element(
      "text",
      { class: "tick", x: (size.left + size.width - size.right) / 2, y: size.height - 8, "text-anchor": "middle" },
      "kbps (logarithmic)",
    ),
  );
  const occupied = rows.map((row) => [x(row.numbers.kbps) - 7, y(row.numbers[quality]) - 7, 14, 14]);
  const families = Map.groupBy(rows, (row) => row.name.split("@")[0]);
  for (const family of families.values()) {
    const inOrder = [...family].sort((a, b) => a.numbers.kbps - b.numbers.kbps);
    const points = inOrder.map((row) => [x(row.numbers.kbps), y(row.numbers[quality])]);
    const path = points.map(([left, top], index) => `${index ? "L" : "M"}${left} ${top}`).join("");
    occupied.push(...points.slice(1).flatMap((end, index) => boxesAlong(points[index], end)));
    if (inOrder.length > 1)
      parts.push(element("path", { class: "join", d: path, style: { "--own": colour(inOrder[0].number) } }));
  }
  for (const row of rows) {
    const [cx, cy] = [x(row.numbers.kbps), y(row.numbers[quality])];
    parts.push(
      element(
        "circle",
        { class: "point", cx, cy, r: 6, style: { "--own": colour(row.number) } },
        element(
          "title",
          {},
          `${row.name}: ${formatNumber(row.numbers.kbps, 2)} kbps, ${label} ${formatNumber(row.numbers[quality], 3)}`,
        ),
      ),
    );
    const [left, up] = freePosition(cx, cy, 7.8 * row.name.length, occupied, size.width);
    parts.push(element("text", { class: "label", x: left, y: up + 11 }, row.name));
  }
  const summary = rows
    .map((row) => `${row.name} ${formatNumber(row.numbers.kbps, 2)} kbps ${formatNumber(row.numbers[quality], 3)}`)
    .join("; ");
  return element(
    "svg",
    {
      viewBox: `0 0 ${size.width} ${size.height}`,
      role: "img",
      "aria-label": `${label}, ${better} is better, over bitrate: ${summary}`,
    },
    parts,
  );
}

/** Cover a straight line with small boxes, which labels then avoid. */
function boxesAlong([x1, y1], [x2, y2]) {
  const count = Math.ceil(Math.hypot(x2 - x1, y2 - y1) / 4);
  return Array.from({ length: count + 1 }, (_, index) => [
    x1 + ((x2 - x1) * index) / count - 2,
    y1 + ((y2 - y1) * index) / count - 2,
    4,
    4,
  ]);
}

/** Find a free position (upper left corner) for the label of a point, near the point. Boxes: left, top, width, height. */
function freePosition(cx, cy, width, occupied, limit) {
  const positions = [0, 14, -14, 28, -28, 42, -42].flatMap((down) => [
    [cx + 10, cy - 7 + down],
    [cx - 10 - width, cy - 7 + down],
  ]);
  const disjoint = ([left, top], [l, t, w, h]) => left + width < l || l + w < left || top + 14 < t || t + h < top;
  const free =
    positions.find((spot) => spot[0] > 0 && spot[0] + width < limit && occupied.every((box) => disjoint(spot, box))) ??
    positions[0];
  occupied.push([...free, width, 14]);
  return free;
}

/** Choose about five round numbers that cover a range. */
function niceTicks(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / 3;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw);
  const first = Math.floor((low - 0.1 * span) / step),
    last = Math.ceil((high + 0.1 * span) / step);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

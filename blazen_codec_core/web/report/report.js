/** The report: a summary and all recordings. */
const data = JSON.parse(document.getElementById("data").textContent);
const tally = new Tally();
const views = data.recordings.map(
  (recording) => new RecordingView(recording, { scales: data.scales, measures: data.measures, tally }),
);
const rows = data.means.map((numbers, index) => ({ name: numbers.system, number: index + 1, numbers }));
const count = data.recordings.length;
const seconds = data.recordings.reduce((sum, recording) => sum + recording.seconds, 0);

document
  .getElementById("main")
  .append(
    pageTop(data.title, `${count} recording${count > 1 ? "s" : ""}, ${seconds.toFixed(1)} s; ${data.made}`),
    element(
      "section",
      { class: "card reveals", "aria-label": "Summary" },
      element("h2", { class: "part" }, count > 1 ? "Means over the recordings, weighted by their length" : "Measures"),
      numbersTable("Means of all measures", rows, data.measures),
      element(
        "div",
        { class: "summary" },
        element("div", {}, element("h2", { class: "part" }, "Rate and quality"), ratePlot(rows, data.measures)),
        measureNotes(),
      ),
    ),
    ...views.map((view) => view.root),
  );
runRecordings(() => views);

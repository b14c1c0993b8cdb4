// One run: its values, how it was made, its curves, where it comes from.

function openRun(name) {
  view.open = name;
  history.pushState(null, "", location.href); // the browser's Back closes it again
  render("run");
  goTo(document.getElementById("explorer-run"));
}

function pairs(entries) {
  return element("dl", {}, entries.map(([name, value, code]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, code ? element("code", {}, value) : value))));
}

const curveNames = (runs) => Object.keys(data.curves).filter((metric) => runs.some((run) => data.curves[metric][run]));

function curveChoice(id, names) {
  const chosen = names.includes(view.curve) ? view.curve : names[0];
  const changed = (value) => { view.curve = value; render("curves"); };
  return [chosen, choice("Curve of", id, names.map((name) => [name, nameOf(name)]), chosen, changed)];
}

function drawRun() {
  const place = document.getElementById("explorer-run");
  place.hidden = !view.open;
  if (!view.open) {
    place.replaceChildren();
    return;
  }
  const run = numberOf.get(view.open);
  const known = (kinds) => data.columns.filter((column) => kinds.includes(column.kind) && column.values[run] !== null);
  const values = known(["state", "metric", "fact"]).map((column) => [column.label, show(column.values[run], column)]);
  const options = known(["option"]).map((column) => [column.id, show(column.values[run], column), true]);
  const same = Object.entries(data.same).filter(([, value]) => value !== null).map(([name, value]) => [name, String(value), true]);
  const facts = data.provenance.runs[run].map(([term, at, code]) => [term, data.provenance.values[at], code]);
  const names = curveNames([run]);
  const [, chooser] = names.length ? curveChoice("run-curve", names) : [null, null];
  const close = element("button", { type: "button", onclick: () => { view.open = ""; render("run"); } }, "Close");
  place.replaceChildren(
    element("h3", { title: data.names[run] }, called(run)), ...[data.names[run], title(run)].filter((name) => name !== called(run)).map((name) => element("p", { class: "muted" }, name)), close,
    element("div", { class: "pair" },
      element("div", {}, element("h4", {}, "Values"), pairs(values)),
      element("div", {}, element("h4", {}, "Curves"),
        names.length ? element("div", {}, element("div", { class: "controls" }, chooser), element("div", { id: "run-curves", class: "chart", role: "img" })) : element("p", { class: "muted" }, "None were recorded."))),
    element("h4", {}, total > 1 ? "Options in which the runs of this report differ" : "Options"), options.length ? pairs(options) : element("p", { class: "muted" }, "None."),
    ...(same.length ? [element("details", {}, element("summary", {}, `${same.length} options that all runs share`), pairs(same))] : []),
    element("details", {}, element("summary", {}, "Provenance"), facts.length ? pairs(facts) : element("p", { class: "muted" }, "None was recorded.")));
  drawRunCurves();
}

function drawRunCurves() {
  if (!view.open || !document.getElementById("run-curves")) return;
  const run = numberOf.get(view.open);
  drawCurves("run-curves", [run], curveChoice("run-curve", curveNames([run]))[0]);
}

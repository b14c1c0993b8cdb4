// Chosen runs side by side: options that differ, values, curves, and what they did on each example.

const EXAMPLES = 20; // at first
let examplesShown = EXAMPLES;

function pick(name, chosen) {
  view.pick = view.pick.filter((one) => one !== name);
  if (chosen) view.pick.push(name);
  examplesShown = EXAMPLES;
  render("compare");
}

function drawCompare() {
  const place = document.getElementById("explorer-compare");
  const runs = view.pick.map((name) => numberOf.get(name));
  for (const box of document.querySelectorAll("[data-pick]")) box.checked = view.pick.includes(box.dataset.pick);
  const said = runs.length === 1 ? "1 run is chosen; choose another to compare." : "";
  document.getElementById("explorer-chosen").replaceChildren(said, ...(runs.length > 1 ? [
    element("button", { type: "button", onclick: () => goTo(place) }, `See the ${runs.length} chosen runs side by side`),
  ] : []), ...(runs.length ? [element("button", { type: "button", onclick: () => { view.pick = []; render("compare"); } }, "Choose none")] : []));
  place.hidden = runs.length < 2;
  if (runs.length < 2) {
    place.replaceChildren();
    return;
  }
  const names = curveNames(runs);
  place.replaceChildren(element("h3", {}, `${runs.length} runs side by side`),
    differences(runs),
    ...(names.length ? [element("h4", {}, "Curves"), element("div", { class: "controls" }, curveChoice("compare-curve", names)[1]), element("div", { id: "compare-curves", class: "chart", role: "img" })] : []),
    element("div", { id: "compare-outputs" }));
  drawCompareCurves();
  drawOutputs();
}

function drawCompareCurves() {
  const runs = view.pick.map((name) => numberOf.get(name));
  if (!document.getElementById("compare-curves")) return;
  drawCurves("compare-curves", runs, curveChoice("compare-curve", curveNames(runs))[0]);
}

function headings(runs) {
  return runs.map((run, i) => element("th", { scope: "col", class: "n" }, element("span", { class: "detail" }, String(i + 1)), title(run)));
}

// What is said of metrics whose better side no run declares.
function sidesOf(rows) {
  const named = rows.filter((column) => column.named).map((column) => column.label);
  const unknown = rows.filter((column) => column.lower === null).map((column) => column.label);
  return (named.length ? ` Which side of ${named.join(", ")} is better is taken from the name.` : "")
    + (unknown.length ? ` Of ${unknown.join(", ")} nothing says which side is better.` : "");
}

// Options and values that differ between the chosen runs.
function differences(runs) {
  const rows = data.columns.filter((column) => column.kind !== "run" && new Set(runs.map((run) => JSON.stringify(column.values[run]))).size > 1);
  const shared = data.columns.filter((column) => column.kind === "option").length + Object.keys(data.same).length
    - rows.filter((column) => column.kind === "option").length;
  const body = rows.map((column) => {
    const values = runs.map((run) => column.values[run]);
    const known = values.filter(isNumber);
    const best = column.kind === "metric" && column.lower !== null && known.length > 1 ? (column.lower ? Math.min(...known) : Math.max(...known)) : null;
    return element("tr", {}, element("th", { scope: "row", title: column.id }, column.label), values.map((value) =>
      element("td", { class: "n" }, best !== null && value === best ? element("strong", {}, show(value, column)) : show(value, column))));
  });
  return element("div", {}, element("h4", { id: "differences" }, "Where they differ"),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "differences" },
      element("table", { "aria-labelledby": "differences" },
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "column"), headings(runs))), element("tbody", {}, body))),
    element("p", { class: "caption" }, `Of the options, ${shared} are equal. The best value of each metric is bold.${sidesOf(rows)}`));
}

// ---- outputs --------------------------------------------------------------------------------------------------------

const ORDERS = [["differ", "largest difference first"], ["better", "most improved first"], ["worse", "most worsened first"], ["id", "order of the data"]];

function drawOutputs() {
  const place = document.getElementById("compare-outputs");
  if (!place) return;
  const { outputs } = data;
  const runs = view.pick.map((name) => numberOf.get(name));
  const metrics = Object.keys(outputs.metrics || {}).filter((name) => runs.filter((run) => outputs.metrics[name][run]).length > 1);
  if (!metrics.length) {
    place.replaceChildren(element("h4", {}, "Example by example"), element("p", { class: "muted" },
      "Two or more of the chosen runs need values of the same examples."));
    return;
  }
  const metric = metrics.includes(view.output) ? view.output : metrics[0];
  const { lower, named } = columnOf.get(metric) || { lower: null };
  const [more, less] = lower === null ? ["higher", "lower"] : ["better", "worse"]; // nothing says which side is better
  const within = runs.filter((run) => outputs.metrics[metric][run]);
  const values = within.map((run) => outputs.metrics[metric][run]);
  const gain = (value, first) => (lower ? first - value : value - first);
  const common = outputs.ids.map((_, i) => i).filter((i) => values.every((line) => line[i] !== null));
  const last = values.length - 1;
  const change = (i) => gain(values[last][i], values[0][i]);
  const spread = (i) => Math.max(...values.map((line) => line[i])) - Math.min(...values.map((line) => line[i]));
  const key = { differ: spread, better: change, worse: (i) => -change(i), id: () => 0 }[view.order] || spread;
  const told = common.filter((i) => outputs.asked[i]);
  const some = told.length > 0 && told.length < common.length; // a run keeps the texts of some of its examples
  const order = (some && view.texts ? told : common).map((i) => [i, key(i)]).sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([i]) => i);
  const counts = within.slice(1).map((run, k) => {
    const better = common.filter((i) => gain(values[k + 1][i], values[0][i]) > 0).length;
    const worse = common.filter((i) => gain(values[k + 1][i], values[0][i]) < 0).length;
    return element("li", {}, `${title(run)}: ${more} than ${title(within[0])} on ${better}, ${less} on ${worse}, equal on ${common.length - better - worse} of ${common.length}.`);
  });
  const sampled = outputs.ids.length < outputs.of ? ` This page holds ${outputs.ids.length} of ${outputs.of} examples, chosen by a hash of their id.` : "";
  const left = outputs.left.length ? ` Left out for size: ${outputs.left.join(", ")}.` : "";
  const redraw = (name) => (value) => { view[name] = value; examplesShown = EXAMPLES; render("outputs"); };
  place.replaceChildren(element("h4", { id: "outputs" }, "Example by example"),
    element("div", { class: "controls" }, choice("Metric", "output-metric", metrics.map((name) => [name, name]), metric, redraw("output")),
      choice("Order", "output-order", ORDERS, view.order, redraw("order")),
      ...(some ? [tick(`only the ${told.length} whose texts were kept`, "output-texts", view.texts, redraw("texts"))] : [])),
    element("ul", { class: "counts" }, counts),
    element("p", { class: "caption" }, `${lower === null ? "Higher and lower" : "Improved and worsened"}: the last chosen run against the first; ${lower === null ? `nothing says which side of ${metric} is better` : `${lower ? "lower" : "higher"} is better${named ? ", by its name" : ""}`}.${sampled}${left}`),
    element("ol", { class: "outputs" }, order.slice(0, examplesShown).map((i) => example(i, within, values, gain, more, less))),
    ...(order.length > examplesShown ? [element("button", { type: "button", onclick: () => { examplesShown += EXAMPLES; render("outputs"); } },
      `Show ${Math.min(EXAMPLES, order.length - examplesShown)} more of ${order.length} examples`)] : []));
}

const questions = Object.values((data.outputs.asked) || {}).map(([text]) => text.split("\n"));
const commonLines = new Set(questions.length < 2 ? [] : questions[0].filter((line) => questions.every((lines) => lines.includes(line))));

function example(i, runs, values, gain, more, less) {
  const { outputs } = data;
  const asked = outputs.asked[i];
  const lines = runs.map((run, k) => {
    const change = gain(values[k][i], values[0][i]);
    const sign = k === 0 ? "" : change > 0 ? `▲ ${more}` : change < 0 ? `▼ ${less}` : "equal";
    const said = outputs.answers[run][i];
    return element("tr", {}, element("th", { scope: "row" }, title(run)), element("td", { class: "n" }, show(values[k][i], { digits: 4 })),
      element("td", { class: change > 0 ? "yes" : change < 0 ? "miss" : "muted" }, sign),
      ...(asked ? [element("td", { class: "said", dir: "auto" }, said === undefined ? NOTHING : outputs.texts[said])] : []));
  });
  const question = asked ? [element("details", {}, element("summary", { dir: "auto" }, telling(asked[0])), element("pre", { tabindex: "0" }, asked[0])),
    asked[1] ? element("p", { class: "expected", dir: "auto" }, element("span", { class: "muted" }, "Expected: "), asked[1]) : null] : [];
  return element("li", {}, element("p", { class: "id" }, element("code", {}, outputs.ids[i])), ...question,
    element("div", { class: "scroll" }, element("table", { "aria-label": `Example ${outputs.ids[i]}` }, element("tbody", {}, lines))));
}

// The first line that is not in every question, as an instruction is.
function telling(text) {
  const lines = text.split("\n").filter((one) => one.trim());
  const line = lines.find((one) => !commonLines.has(one)) || lines[0] || "";
  return line.length > 140 ? `${line.slice(0, 140)}…` : line;
}

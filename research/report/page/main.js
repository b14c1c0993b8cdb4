// Controls, and what is drawn again when one of them changes.

function controls() {
  const columnsOf = (list) => list.map((column) => [column.id, column.label]);
  const set = (name, part) => (value) => { view[name] = value; render(part); };
  const turn = (name, log) => (value) => { // another axis has another scale
    Object.assign(view, { [name]: value, [log]: name === "x" && spans(value) });
    document.getElementById(`log-${name}`).checked = view[log];
    render("chart");
  };
  const filter = element("input", { type: "search", id: "explorer-filter", placeholder: "r=8 val/loss<1.2 failed", "aria-describedby": "explorer-said",
    autocomplete: "off", spellcheck: "false" });
  filter.value = view.q;
  let waiting;
  filter.addEventListener("input", () => {
    clearTimeout(waiting);
    view.q = filter.value; // at once: another control may draw before the timer does
    waiting = setTimeout(() => { linesShown = PAGE; render("all"); }, 120);
  });
  const toggled = (name, id) => (checked) => {
    const rest = view[name].filter((one) => one !== id);
    const order = data.columns.map((column) => column.id);
    view[name] = checked ? [...rest, id].sort((a, b) => order.indexOf(a) - order.indexOf(b)) : rest;
    render("all");
  };
  const ticks = (name, list) => list.map((column) => tick(column.label, `${name}-${column.id}`, view[name].includes(column.id), toggled(name, column.id)));
  const byAll = data.factors.length ? [element("button", { type: "button", "aria-pressed": String(view.group.length > 0), onclick: () => {
    view.group = view.group.length ? [] : [...data.factors];
    drawControls();
    render("all");
  } }, "Group over seeds")] : [];
  const link = element("button", { type: "button", onclick: async () => {
    const copied = await copy(location.href);
    say(copied ? "The link to this view was copied." : `The link to this view: ${location.href}`);
  } }, "Copy link");
  const reset = element("button", { type: "button", onclick: () => {
    history.replaceState(null, "", location.pathname + location.search);
    readView();
    opened.clear();
    drawControls();
    render("all");
  } }, "Reset");
  const part = (label, list, name) => element("details", { class: "menu" }, element("summary", {}, label), element("div", { class: "ticks", role: "group", "aria-label": label }, ticks(name, list)));
  document.getElementById("explorer-controls").replaceChildren(
    element("span", { class: "choice wide" }, element("label", { for: "explorer-filter" }, "Filter"), filter), ...byAll,
    ...(groupable.length ? [part("Group by", groupable, "group")] : []), part("Columns", data.columns.filter((column) => column.kind !== "run"), "columns"), link, reset);
  const axes = [...new Set([...factors, ...numericColumns, ...groupable])];
  document.getElementById("explorer-axes").replaceChildren(
    choice("Across", "axis-x", columnsOf(axes), view.x, turn("x", "logx")), tick("log", "log-x", view.logx, set("logx", "chart")),
    choice("Up", "axis-y", columnsOf(numericColumns), view.y, turn("y", "logy")), tick("log", "log-y", view.logy, set("logy", "chart")),
    choice("Colour", "axis-colour", [["", "none"], ...columnsOf(axes)], view.colour, set("colour", "chart")));
}
const drawControls = controls;

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // a page opened from the disk may not be allowed to
    return false;
  }
}

function say(text) {
  document.getElementById("explorer-said").textContent = text;
}

function visible() {
  const { meets, problem } = readFilter(view.q);
  const runs = everyRun.filter(meets);
  const groups = view.group.length ? ` in ${groupsOf(runs).length} groups` : "";
  say(problem || `${runs.length} of ${total} runs${groups}`);
  document.getElementById("explorer-filter").setAttribute("aria-invalid", String(problem !== ""));
  return runs;
}

// part: what has changed; a part that has not is left as it is, with its focus and its scroll position.
function render(part) {
  writeView();
  const whole = part === "all";
  if (whole || part === "table" || part === "chart") {
    const runs = visible();
    if (part !== "chart") drawTable(runs);
    if (part !== "table") lastChart = drawScatter(runs);
  }
  if (whole || part === "run") drawRun();
  if (whole || part === "compare") drawCompare();
  if (part === "curves") {
    drawRunCurves();
    drawCompareCurves();
  }
  if (part === "outputs") drawOutputs();
  if (part === "outputs" || part === "curves") restoreFocus();
}
let lastChart = Promise.resolve();
let focused = "";

function restoreFocus() {
  const again = focused && document.getElementById(focused);
  if (again && document.activeElement === document.body) again.focus();
}

async function start() {
  document.addEventListener("focusin", (event) => { focused = event.target.id; });
  window.addEventListener("hashchange", () => { // a link to another view of the open page
    const unknown = readView();
    controls();
    render("all");
    complain(unknown);
  });
  const unknown = readView();
  controls();
  render("all");
  complain(unknown);
  wakeFigures();
  await lastChart;
  document.documentElement.dataset.explorer = "ready";
  performance.mark("explorer-ready");
}

function complain(unknown) {
  if (unknown.length) say(`The link names what this report has not: ${unknown.join(", ")}. It may be of an older report.`);
}

start();

// The table: a line a run, or a line a group with the mean of its finished runs.

const PAGE = 100; // lines at first; a thousand at once would take the browser a second
let linesShown = PAGE;
const opened = new Set(); // groups whose runs are listed

function compareValues(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1; // nothing comes last, either way
  if (b === null || b === undefined) return -1;
  const order = isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return view.down ? -order : order;
}

function sorted(items, valueOf) {
  if (!view.sort) return items;
  return items.map((item, place) => [item, valueOf(item), place])
    .sort((a, b) => compareValues(a[1], b[1]) || a[2] - b[2]).map(([item]) => item);
}

// Runs of equal settings: {key, runs, values: column → {mean, sd, n} or the common value}.
function groupsOf(runs) {
  const found = new Map();
  for (const run of runs) {
    const settings = view.group.map((id) => columnOf.get(id).values[run]);
    const key = JSON.stringify(settings);
    if (!found.has(key)) found.set(key, { key, settings, runs: [] });
    found.get(key).runs.push(run);
  }
  return [...found.values()];
}

function summary(column, runs) {
  const values = runs.map((run) => column.values[run]);
  if (new Set(values.map((value) => JSON.stringify(value))).size === 1 && column.kind !== "metric") return { same: values[0] };
  const known = values.filter(isNumber);
  if (!column.numeric || column.id === SEED || !known.length) return { same: undefined };
  return { mean: mean(known), sd: deviation(known), n: known.length };
}

// A deviation has the digits of its mean, and of whole numbers one more.
const spread = (column) => ({ digits: column.digits === 0 ? 1 : column.digits });

function drawTable(runs) {
  const columns = view.columns.map((id) => columnOf.get(id));
  const head = element("tr", {}, element("th", { scope: "col", class: "pick" }, element("span", { class: "unseen" }, "Compare")),
    columns.map(heading));
  const body = element("tbody");
  const lines = view.group.length ? groupLines(runs, columns) : sorted(runs, (run) => (view.sort === "run" ? called(run) : view.sort ? columnOf.get(view.sort).values[run] : 0))
    .map((run) => runLine(run, columns));
  body.append(...lines.slice(0, linesShown));
  const table = element("table", { "aria-labelledby": "explore" }, element("thead", {}, head), body);
  const more = lines.length > linesShown
    ? element("button", { type: "button", onclick: () => { linesShown += 10 * PAGE; render("table"); } },
      `Show ${Math.min(10 * PAGE, lines.length - linesShown)} more of ${lines.length} lines`)
    : null;
  document.getElementById("explorer-table").replaceChildren(table);
  document.getElementById("explorer-more").replaceChildren(...(more ? [more] : []));
}

function heading(column) {
  const state = view.sort !== column.id ? "none" : view.down ? "descending" : "ascending";
  const sign = { none: "", ascending: " ▲", descending: " ▼" }[state];
  const button = element("button", { type: "button", title: column.id, "data-sort": column.id, onclick: () => sortBy(column.id) },
    column.label, element("span", { "aria-hidden": "true" }, sign));
  return element("th", { scope: "col", class: column.numeric ? "n" : "", "aria-sort": state }, button);
}

// A metric's best value first, then its worst, then the order of the report.
function sortBy(id) {
  const bestLast = columnOf.get(id).kind === "metric" && columnOf.get(id).lower === false;
  if (view.sort !== id) Object.assign(view, { sort: id, down: bestLast });
  else if (view.down === bestLast) view.down = !bestLast;
  else Object.assign(view, { sort: "", down: false });
  render("table");
  const button = document.querySelector(`[data-sort="${CSS.escape(id)}"]`);
  if (button) button.focus(); // the one that was pressed is gone with the old table
}

function runLine(run, columns, inGroup = false) {
  const name = data.names[run];
  const box = element("input", { type: "checkbox", "aria-label": `compare ${title(run)}`, "data-pick": name,
    onchange: (event) => pick(name, event.target.checked) });
  box.checked = view.pick.includes(name);
  return element("tr", { class: inGroup ? "within" : "" }, element("td", { class: "pick" }, box), columns.map((column) => {
    const text = show(column.values[run], column);
    if (column.kind === "run") {
      const open = element("button", { type: "button", class: "open", title: name, onclick: () => openRun(name) }, called(run));
      return element("th", { scope: "row" }, open);
    }
    return element("td", { class: `${column.numeric ? "n" : ""}${text === NOTHING ? " nothing" : ""}` }, text);
  }));
}

function groupLines(runs, columns) {
  const groups = sorted(groupsOf(runs), (group) => {
    const known = view.sort ? summary(columnOf.get(view.sort), group.runs) : {};
    return known.mean ?? known.same ?? null;
  });
  return groups.flatMap((group) => {
    const open = opened.has(group.key);
    const label = view.group.map((id, i) => `${columnOf.get(id).label}=${show(group.settings[i], columnOf.get(id))}`).join(" ");
    const button = element("button", { type: "button", class: "open", "aria-expanded": String(open), onclick: () => {
      if (!opened.delete(group.key)) opened.add(group.key);
      render("table");
    } }, `${open ? "▾" : "▸"} ${label} (${group.runs.length})`);
    const cells = columns.map((column) => {
      if (column.kind === "run") return element("th", { scope: "row" }, button);
      const known = summary(column, group.runs);
      if (known.mean === undefined) return element("td", { class: column.numeric ? "n" : "" }, known.same === undefined ? "" : show(known.same, column));
      const few = known.n < group.runs.length ? ` (${known.n})` : "";
      return element("td", { class: "n" }, show(known.mean, column) + (known.sd === null ? "" : ` ± ${show(known.sd, spread(column))}`) + few);
    });
    const all = element("input", { type: "checkbox", "aria-label": `compare the runs of ${label}`,
      onchange: (event) => group.runs.forEach((run) => pick(data.names[run], event.target.checked)) });
    all.checked = group.runs.every((run) => view.pick.includes(data.names[run]));
    const line = element("tr", { class: "group" }, element("td", { class: "pick" }, all), cells);
    return [line, ...(open ? group.runs.map((run) => runLine(run, columns, true)) : [])];
  });
}

// What is shown, kept in the address behind #view? so that a link shows the same again.

function firstColumns() {
  const shown = data.columns.filter((column) => column.kind === "run" || (["kind", "state"].includes(column.id) && isVaried(column)) || data.factors.includes(column.id)
    || column.id === SEED || column.id === "system");
  const metrics = data.columns.filter((column) => column.kind === "metric");
  const judged = metrics.filter((column) => column.id === data.metric);
  const others = metrics.filter((column) => column.id !== data.metric).slice(0, 4);
  const facts = data.columns.filter((column) => ["trained_parameters", "seconds", "ms_per_query"].includes(column.id));
  const order = [...shown, ...judged, ...others, ...facts];
  return [...new Set(order.map((column) => column.id))];
}

const isVaried = (column) => new Set(column.values).size > 1;

// Whether a logarithmic axis suits: as in the paper's figures.
function spans(id) {
  const known = columnOf.has(id) ? columnOf.get(id).values.filter((value) => value !== null) : [];
  return known.length > 0 && known.every((value) => isNumber(value) && value > 0) && Math.max(...known) / Math.min(...known) >= 4;
}

function firstAxis() {
  const judged = columnOf.get(data.metric);
  const meets = (column) => !judged || everyRun.some((run) => column.values[run] !== null && judged.values[run] !== null);
  const factor = factors.find((column) => column.numeric && isVaried(column) && !column.values.includes(null));
  const time = ["trained_parameters", "ms_per_query", "seconds"].find((id) => columnOf.has(id) && meets(columnOf.get(id)));
  return factor ? factor.id : time || (numericColumns.find(meets) || numericColumns[0] || { id: "" }).id;
}

const FIRST = {
  q: "", sort: "", down: false, group: [], columns: firstColumns(),
  x: firstAxis(), y: columnOf.has(data.metric) ? data.metric : (numericColumns[0] || { id: "" }).id,
  colour: (factors.find((column) => column.id !== firstAxis()) || columnOf.get("system") || { id: "" }).id, logx: spans(firstAxis()), logy: false,
  pick: [], open: "", curve: "", output: "", order: "differ", texts: true,
};
const view = structuredClone(FIRST);
const LISTS = new Set(["group", "columns", "pick"]);
const FLAGS = new Set(["down", "logx", "logy", "texts"]);

function writeView() {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(view)) {
    if (JSON.stringify(value) === JSON.stringify(FIRST[name])) continue;
    if (LISTS.has(name)) for (const one of value.length ? value : [""]) parts.append(name, one);
    else parts.set(name, FLAGS.has(name) ? Number(value) : value);
  }
  const text = parts.toString();
  // replaced, not pushed: a letter typed into the filter is no page to go back to
  history.replaceState(null, "", text ? `#view?${text}` : location.pathname + location.search);
}

// Reads the address; returns what it names and this report has not.
function readView() {
  Object.assign(view, structuredClone(FIRST));
  if (!location.hash.startsWith("#view?")) return [];
  const parts = new URLSearchParams(location.hash.slice("#view?".length));
  const unknown = [];
  for (const name of new Set(parts.keys())) {
    if (!(name in FIRST)) unknown.push(name);
    else if (LISTS.has(name)) {
      const known = name === "pick" ? numberOf : columnOf;
      const values = parts.getAll(name).filter((value) => value !== "");
      unknown.push(...values.filter((value) => !known.has(value)));
      view[name] = values.filter((value) => known.has(value));
    } else view[name] = FLAGS.has(name) ? parts.get(name) === "1" : parts.get(name);
  }
  for (const name of ["sort", "x", "y", "colour"]) {
    if (view[name] && !columnOf.has(view[name])) {
      unknown.push(view[name]);
      view[name] = FIRST[name];
    }
  }
  if (view.open && !numberOf.has(view.open)) {
    unknown.push(view.open);
    view.open = "";
  }
  return unknown;
}

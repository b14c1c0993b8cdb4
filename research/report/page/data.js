// The runs, as research/report/page/explorer.py wrote them: a column is {id, label, kind, values}, a value for each run.

const data = JSON.parse(document.getElementById("explorer-data").textContent);
const total = data.names.length;
const everyRun = data.names.map((_, run) => run);
const numberOf = new Map(data.names.map((name, run) => [name, run]));

data.columns.unshift({ id: "run", label: "run", kind: "run", values: data.names });
for (const column of data.columns) {
  const known = column.values.filter((value) => value !== null);
  column.numeric = known.length > 0 && known.every(isNumber);
  if (column.numeric) column.digits = digitsOf(known, column.kind);
}
const columnOf = new Map(data.columns.map((column) => [column.id, column]));

// By id or by label, whatever the case; undefined where there is none or more than one.
function findColumn(text) {
  const exact = columnOf.get(text);
  if (exact) return exact;
  const wanted = text.toLowerCase();
  const found = data.columns.filter((column) => [column.id, column.label].some((name) => name.toLowerCase() === wanted));
  return found.length === 1 ? found[0] : undefined;
}

// What a metric is called, with its values in the table or without.
const nameOf = (metric) => (columnOf.get(metric) || { label: metric }).label;

const HASH = /(^|\/)[0-9a-f]{16}$/; // a point's folder

const factors = data.factors.map((id) => columnOf.get(id));
const numericColumns = data.columns.filter((column) => column.numeric);
const groupable = data.columns.filter((column) => column.kind === "option" || column.kind === "state");
const SEED = "seed_everything";

// What a run is called beside others: what it was made with, and its seed.
function title(run) {
  const parts = factors.filter((column) => column.values[run] !== null).map((column) => {
    const value = show(column.values[run], column);
    return column.id.endsWith("adapter") ? value : `${column.label}=${value}`; // a method is its own name, as in the tables
  });
  const seed = columnOf.get(SEED);
  if (parts.length && seed) parts.push(`seed ${seed.values[run]}`);
  const system = columnOf.get("system");
  if (system && system.values[run] !== null) return system.values[run];
  return parts.length ? parts.join(" ") : data.names[run];
}

// A run as tables list it: a point's hash says nothing to a reader, its setting and seed do.
const called = (run) => (HASH.test(data.names[run]) ? title(run) : data.names[run]);

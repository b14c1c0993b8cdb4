// Elements of the page, and numbers as its tables have them.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined)); // texts, never markup
  return made;
}

function option(value, label, chosen) {
  const made = element("option", { value }, label);
  made.selected = value === chosen;
  return made;
}

function choice(label, id, values, chosen, changed) {
  const select = element("select", { id, onchange: (event) => changed(event.target.value) },
    values.map(([value, text]) => option(value, text, chosen)));
  return element("span", { class: "choice" }, element("label", { for: id }, label), select);
}

function tick(label, id, checked, changed) {
  const box = element("input", { type: "checkbox", id, onchange: (event) => changed(event.target.checked) });
  box.checked = checked;
  return element("span", { class: "tick" }, box, element("label", { for: id }, label));
}

const NOTHING = "–";
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// A value as the table has it; column: whose numbers all have the same digits after the point.
function show(value, column = {}) {
  if (value === null || value === undefined || value === "") return NOTHING;
  if (!isNumber(value)) return String(value);
  const digits = column.digits === undefined ? (Number.isInteger(value) ? 0 : 4) : column.digits;
  if (digits === null) return minus(String(Number(value.toPrecision(4))));
  const separate = Math.abs(value) >= 10000 || digits > 0;
  return minus(value.toLocaleString("en", { useGrouping: separate, minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

// Digits after the point that all values of a column have: two of its smallest but 0, and of a metric as many as the tables
// have; null: each value is written for itself (a learning rate, or what spans more digits than anybody reads).
function digitsOf(values, kind) {
  if (values.every(Number.isInteger)) return kind === "metric" ? 4 : 0;
  if (kind === "option") return null;
  const sizes = values.map(Math.abs).filter((size) => size > 0);
  const largest = Math.max(...sizes);
  const least = kind === "metric" ? 4 : largest >= 1000 ? 0 : largest >= 100 ? 1 : largest >= 10 ? 2 : 4;
  const digits = Math.max(least, 1 - Math.floor(Math.log10(Math.min(...sizes))));
  return digits > 6 ? null : digits;
}

const minus = (text) => text.replace("-", "−");

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function deviation(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

// Scrolls a part of the explorer into sight and says its heading to a screen reader.
function goTo(part) {
  const heading = part.querySelector("h3");
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
  part.scrollIntoView({ block: "start" });
}

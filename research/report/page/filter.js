// `r=8 val/loss<1.2 state!=failed lora`: words and comparisons that a run must all meet.

const COMPARISON = /^(.+?)(!=|<=|>=|=|<|>|~)(.*)$/;
const TESTS = {
  "=": (a, b) => a === b, "!=": (a, b) => a !== b,
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
};

// {meets: run → true or false, problem: what is wrong with the text, or ""}
function readFilter(text) {
  const terms = [];
  for (const [word] of text.matchAll(/(?:"[^"]*"?|[^\s"])+/g)) {
    const bare = word.replaceAll('"', "");
    const found = word.startsWith('"') ? null : COMPARISON.exec(bare);
    if (!found) {
      terms.push((run) => data.columns.some((column) => contains(column, run, bare)));
      continue;
    }
    const [, name, sign, value] = found;
    const column = findColumn(name);
    if (!column) return { meets: () => true, problem: `No column ${name}; there are ${data.columns.map((c) => c.label).join(", ")}.` };
    if (value === "") return { meets: () => true, problem: `${name}${sign} needs a value.` };
    const number = Number(value.replace("−", "-"));
    if (sign !== "~" && column.numeric && Number.isNaN(number)) {
      return { meets: () => true, problem: `${column.label} holds numbers; ${value} is none.` };
    }
    if (sign === "~") terms.push((run) => contains(column, run, value));
    else if (column.numeric) terms.push((run) => (column.values[run] === null ? sign === "!=" : TESTS[sign](column.values[run], number)));
    else terms.push((run) => TESTS[sign](words(column, run), value.toLowerCase()));
  }
  return { meets: (run) => terms.every((term) => term(run)), problem: "" };
}

const words = (column, run) => (column.values[run] === null ? NOTHING : String(column.values[run]).toLowerCase());
const contains = (column, run, value) => words(column, run).includes(value.toLowerCase());

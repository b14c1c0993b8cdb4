// Charts, drawn by Vega-Lite with the colours and shapes of the paper's figures.

const drawn = new Map(); // place → what Vega made there, to be ended before the next

// Colours are variables of page.css: they follow a change to dark mode by themselves.
const look = () => ({ ...data.style.config, mark: { tooltip: true } });

async function draw(place, spec, said) {
  const target = document.getElementById(place);
  if (drawn.has(place)) drawn.get(place).finalize();
  drawn.delete(place);
  if (!spec) {
    target.replaceChildren(element("p", { class: "muted" }, said));
    return;
  }
  if (!window.vegaEmbed) {
    target.replaceChildren(element("p", { class: "muted" }, "This report was made without vl-convert, so there are no charts here."));
    return;
  }
  const whole = { $schema: data.style.schema, config: look(), width: "container", autosize: { type: "fit-x", contains: "padding" }, ...spec };
  // ast: the page's policy allows no script made from text, and Vega's interpreter needs none
  const made = await window.vegaEmbed(target, whole, { actions: false, ast: true, renderer: "svg" });
  drawn.set(place, made);
  target.setAttribute("aria-label", said);
  made.view.addEventListener("click", (_, item) => {
    if (item && item.datum && numberOf.has(item.datum.run)) openRun(item.datum.run);
  });
}

function axis(column, log, direction = "") {
  if (!column.numeric) return { field: "x", type: "ordinal", title: column.label, sort: null };
  const scale = log ? { type: "log", nice: false, padding: 12 } : { zero: false, nice: false, padding: 12 };
  const levels = [...new Set(column.values.filter(isNumber))];
  const values = levels.length <= 8 && column.kind === "option" ? { values: levels } : { tickCount: 6 };
  return { field: direction || "x", type: "quantitative", title: column.label, scale, axis: { grid: direction === "y", format: column.digits === 0 ? "~s" : "~r", labelOverlap: true, ...values } };
}

// Colour by a column: steps of a scale where it has many numbers, else a sign and a colour each.
function colouring(column, rows) {
  const values = [...new Set(rows.map((row) => row.colour))];
  const { colours, shapes } = data.style;
  // in the order of the report and each in its place, whatever the filter leaves: as in its tables and figures
  const known = [...new Set(column.values || values)].filter((value) => value !== null);
  if (column.numeric && known.length > colours.length) {
    return { color: { field: "colour", type: "quantitative", title: column.label, scale: { scheme: "viridis" } } };
  }
  if (values.length > colours.length * shapes.length) return null;
  const place = (value) => (known.includes(value) ? known.indexOf(value) : known.length);
  values.sort((a, b) => place(a) - place(b));
  const scale = (range, of) => ({ domain: values, range: values.map((value) => range[of(place(value)) % range.length]) });
  const fact = { field: "colour", type: "nominal", title: column.label };
  return { color: { ...fact, scale: scale(colours, (i) => i) }, // no two of the first 64 have both in common: theme.look
    shape: { ...fact, scale: scale(shapes, (i) => i + Math.floor(i / colours.length)) } };
}

function drawScatter(runs) {
  const [x, y, colour] = [columnOf.get(view.x), columnOf.get(view.y), columnOf.get(view.colour)];
  if (!x || !y) return draw("explorer-chart", null, "No column holds numbers, so there is nothing to draw.");
  const usable = (value, log) => isNumber(value) && (!log || value > 0);
  const fits = (run) => usable(y.values[run], view.logy) && (x.numeric ? usable(x.values[run], view.logx) : x.values[run] !== null);
  const within = runs.filter(fits);
  const left = runs.length - within.length;
  const row = (run) => ({ x: x.values[run], y: y.values[run], colour: colour ? colour.values[run] ?? NOTHING : "", run: data.names[run], what: title(run) });
  const rows = view.group.length ? groupsOf(within).map((group) => {
    const values = group.runs.map((run) => y.values[run]);
    const spread = deviation(values) ?? 0;
    const middle = mean(values);
    const here = row(group.runs[0]);
    const across = x.numeric ? mean(group.runs.map((run) => x.values[run])) : here.x;
    return { x: across, y: middle, low: middle - spread, high: middle + spread, colour: here.colour, n: values.length,
      what: view.group.map((id, i) => `${columnOf.get(id).label}=${show(group.settings[i], columnOf.get(id))}`).join(" ") };
  }) : within.map(row);
  const said = `${y.label} against ${x.label}: ${rows.length} ${view.group.length ? "groups" : "runs"}`
    + (left ? `; ${left} without a value ${view.logx || view.logy ? "above 0 " : ""}are not drawn` : "");
  document.getElementById("explorer-chart-note").textContent = `${said}. The table holds the same values.`;
  if (!rows.length) return draw("explorer-chart", null, "No run shown has both values.");
  const across = axis(x, view.logx);
  const up = { ...axis(y, view.logy, "y"), field: "y" };
  const colours = colour ? colouring(colour, rows) : {};
  if (colours === null) document.getElementById("explorer-chart-note").textContent += ` ${colour.label} has too many values for colours.`;
  const tooltip = [{ field: "what", title: "run" }, { field: "x", title: x.label }, { field: "y", title: y.label }];
  const layer = [
    ...(view.group.length ? [{ mark: { type: "rule" }, encoding: { x: across, y: { ...up, field: "low" }, y2: { field: "high" }, color: (colours || {}).color } }] : []),
    { mark: { type: "point", filled: true, size: 64, opacity: 0.85, cursor: "pointer" }, encoding: { x: across, y: up, ...colours, tooltip } },
  ];
  return draw("explorer-chart", { data: { values: rows }, layer, height: 320 }, said);
}

function drawCurves(place, runs, metric) {
  const curves = data.curves[metric] || [];
  const rows = runs.filter((run) => curves[run]).flatMap((run) => {
    const [grid, values] = curves[run];
    return values.map((value, i) => ({ x: data.steps[grid][i], y: value, colour: title(run) }));
  });
  if (!rows.length) return draw(place, null, "No curve was kept.");
  const many = runs.length > data.style.colours.length;
  const colours = many ? { detail: { field: "colour" } } : runs.length > 1 ? colouring({ label: "run" }, rows) : {};
  const encoding = {
    x: { field: "x", type: "quantitative", title: "optimizer steps", axis: { grid: false, format: "~s" } },
    y: { field: "y", type: "quantitative", title: nameOf(metric), scale: { zero: false } },
    tooltip: [{ field: "colour", title: "run" }, { field: "x", title: "step" }, { field: "y", title: nameOf(metric) }],
  };
  const legend = { orient: "bottom", columns: 1, title: null };
  if (colours.color) for (const part of [colours.color, colours.shape]) part.legend = legend;
  const few = rows.length <= 200;
  const layer = [{ mark: { type: "line" }, encoding: { ...encoding, ...colours, shape: undefined } },
    ...(few ? [{ mark: { type: "point", filled: true, size: 36 }, encoding: { ...encoding, ...colours } }] : [])];
  return draw(place, { data: { values: rows }, layer, height: 260 }, `${nameOf(metric)} along the steps of ${runs.length} runs`);
}

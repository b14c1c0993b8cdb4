// The paper's figures, drawn again by Vega-Lite when a pointer comes: the same specification, with the values beside it.

function wakeFigures() {
  if (!window.vegaEmbed) return;
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const spec = data.figures[figure.dataset.figure];
    if (spec) figure.addEventListener("pointerenter", () => wake(figure, spec), { once: true });
  }
}

async function wake(figure, spec) {
  const place = element("div");
  const still = figure.querySelector(".at-wide svg");
  const whole = { ...spec, $schema: data.style.schema, config: { ...spec.config, mark: { tooltip: { content: "data" } } } };
  try {
    await window.vegaEmbed(place, whole, { actions: false, ast: true, renderer: "svg" });
    still.replaceWith(place);
  } catch (error) { // the drawing that is there stays
    console.warn(`${figure.dataset.figure} could not be drawn again: ${error.message}`);
  }
}

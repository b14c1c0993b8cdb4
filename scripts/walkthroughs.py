"""Makes docs/walkthroughs/NAME.ipynb of NAME.py: the script's cells, executed, with what they print and draw.

python scripts/walkthroughs.py [NAME…]      without a name: all

The script (jupytext's percent format) is the source; docs/walkthroughs/README.md says how one is written.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).parents[1]))

from research.runs.files import atomic_write

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/walkthroughs"
MOST_BYTES = 400_000  # forges show no larger ones
PATHS = re.compile(r"(?<![\w.:/-])/(?:home|root|usr|opt|tmp|var|mnt|Users)/\w|\b0x[0-9a-f]{8,}")
SURROUNDINGS = {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "WANDB_MODE": "disabled"}


def names() -> list[str]:
    """Every walkthrough."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def read_script(name: str) -> NotebookNode:
    """The cells of a script, not executed; what does not come from it is the same for all."""
    notebook = jupytext.read(FOLDER / f"{name}.py", fmt="py:percent")
    notebook.metadata = metadata()
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()
    return notebook


def metadata() -> NotebookNode:
    """What a notebook says of its language; the kernel would add the version of this Python."""
    return NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    )


def execute(notebook: NotebookNode) -> None:
    """Run the cells in a kernel of their own; outputs keep nothing of the run but what the cells print and show.

    Raises:
        CellExecutionError: a cell failed.
        SystemExit: an output tells of this machine.
    """
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", coalesce_streams=True, resources=resources)
    client.execute(env=os.environ | SURROUNDINGS)
    notebook.metadata = metadata()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(codes, 1):
        cell.metadata, cell.execution_count = NotebookNode(), number
        progress = [output for output in cell.outputs if output.get("name") == "stderr"]
        print(*(output.text for output in progress), sep="", end="", file=sys.stderr)  # warnings too: to be seen once, here
        cell.outputs = [output for output in cell.outputs if output not in progress]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if of_machine := local_part(output):
                raise SystemExit(f"cell {number} shows {of_machine!r}, which another machine has not; print something else")


def local_part(output: NotebookNode) -> str | None:
    """A path or an address in memory that an output shows."""
    text = str(output)
    places = (str(ROOT), str(Path.home()), sys.prefix)
    match = PATHS.search(text)
    return next((place for place in places if place in text), match and match[0])


def write(name: str, notebook: NotebookNode) -> Path:
    """Write the notebook, whole or not at all.

    Raises:
        SystemExit: it is too large for a forge.
    """
    nbformat.validate(notebook)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if (size := len(text.encode())) > MOST_BYTES:
        raise SystemExit(f"{name}: {size:,} bytes; expected at most {MOST_BYTES:,}. Draw fewer marks, print fewer rows.")
    with atomic_write(FOLDER / f"{name}.ipynb") as stream:
        stream.write(text)
    return FOLDER / f"{name}.ipynb"


def main() -> None:
    """Make the notebooks that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; none: all")
    wanted = parser.parse_args().names or names()
    if unknown := sorted({*wanted} - {*names()}):
        parser.error(f"no walkthrough {', '.join(unknown)}; expected of {', '.join(names())}")
    for name in wanted:
        notebook = read_script(name)
        execute(notebook)
        print(write(name, notebook).relative_to(ROOT))


if __name__ == "__main__":
    main()

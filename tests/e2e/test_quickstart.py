"""`research quickstart`, and that a second one skips what is finished."""

import json
import time

import pytest


@pytest.mark.model
def test_quickstart_ends_in_a_page_and_a_second_one_skips_finished_stages(research_process, minilm, tmp_path):
    first = research_process("quickstart", "--out", tmp_path / "q")
    assert first.code == 0, first.err
    page = (tmp_path / "q/report/index.html").read_bytes()
    stages = {run: json.loads((tmp_path / f"q/{run}/metrics.json").read_text())["stages"] for run in ("exact", "hnsw")}
    assert list(stages["exact"]) == ["bm25", "dense", "fused"]
    assert stages["exact"]["dense"]["metrics"]["mrr@10"] > 0.4  # the untrained MiniLM on this task
    assert stages["hnsw"]["dense"]["facts"]["ann_recall@100"] > 0.97

    start = time.perf_counter()
    second = research_process("quickstart", "--out", tmp_path / "q")
    assert second.err.count("unchanged since") == 4
    assert time.perf_counter() - start < 30
    assert (tmp_path / "q/report/index.html").exists()
    assert len(page) > 10_000

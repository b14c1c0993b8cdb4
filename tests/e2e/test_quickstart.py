"""`research quickstart`, and that a second one skips what is finished."""

import json
import time

import pytest


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(1200)
def test_quickstart_ends_in_a_page_and_a_second_one_skips_what_is_finished(research_process, minilm, tmp_path):
    """The quick size of it: every command, a fraction of the training."""
    first = research_process("quickstart", "--quick", "--out", tmp_path / "q")
    assert first.code == 0, first.err
    assert (tmp_path / "q/report/index.html").stat().st_size > 10_000
    runs = {
        run: json.loads((tmp_path / f"q/{run}/metrics.json").read_text())
        for run in ("exact", "hnsw", "tandem", "dual_encoder", "cross_encoder")
    }
    assert list(runs["exact"]["stages"]) == ["bm25", "dense", "fused"]
    untrained = runs["exact"]["stages"]["dense"]["metrics"]["mrr@10"]
    assert untrained > 0.4
    assert runs["hnsw"]["stages"]["dense"]["facts"]["ann_recall@100"] > 0.97
    assert runs["tandem"]["stages"]["dense"]["metrics"]["mrr@10"] > untrained  # trained on 512 pairs only
    assert runs["tandem"]["stages"]["reranked"]["facts"]["mix"] == runs["tandem"]["mix"]["mix"]
    assert runs["dual_encoder"]["finished"]
    assert runs["cross_encoder"]["finished"]

    start = time.perf_counter()
    second = research_process("quickstart", "--quick", "--out", tmp_path / "q")
    assert second.code == 0, second.err
    assert second.err.count("finished before; nothing is trained again") == 2
    assert time.perf_counter() - start < 90
    assert (tmp_path / "q/report/index.html").exists()

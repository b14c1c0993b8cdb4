"""`research fit` on rows as people have them: the numbers of the batch, what is left out, what a refusal proposes."""

import json
from pathlib import Path

import pytest
import yaml

DUAL = """
seed_everything: 0
out: run
wandb: disabled
model:
  class_path: research.training.dual_encoder.DualEncoderModule
  init_args:
    model: ./model
    temperature: 0.05
    dropout: 0.0
    optimisation: {lr: 1.0e-3, warmup: 0.0, decay: constant}
data:
  class_path: research.data.pairs.PairData
  init_args: {train: rows.jsonl, val_split: null, test_split: null, batch_size: 2, drop_last: false}
trainer: {accelerator: cpu, devices: 1, max_steps: 1}
"""
THINGS = [
    "honey comes from the hive",
    "flour is ground by stones",
    "cloth is woven from yarn",
    "clay is fired until it is hard",
]
FLAG = [
    {
        "query": f"thing {i}",
        "pos": [THINGS[i]],
        "neg": [THINGS[(i + 1) % 4], THINGS[(i + 2) % 4]],
        "pos_scores": [0.9],
        "neg_scores": [0.2, 0.1],
    }
    for i in range(4)
]


@pytest.fixture
def fit(research, tiny_bert, tmp_path, monkeypatch):
    """Stand beside model/, dual.yaml and rows.jsonl of the rows given, and train."""
    (tmp_path / "model").symlink_to(tiny_bert)
    (tmp_path / "dual.yaml").write_text(DUAL)
    monkeypatch.chdir(tmp_path)

    def run(rows=None, *extra, name="rows.jsonl"):
        if rows is not None:
            Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return research("fit", "-c", "dual.yaml", "--data.train", name, *extra)

    return run


def curve(name: str) -> list[float]:
    lines = [json.loads(line) for line in Path("run/curves.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.mark.parametrize("symmetric", ["false", "true"])
def test_equal_queries_of_one_batch_are_no_negatives_of_each_other(fit, symmetric):
    rows = [
        {"query_id": name, "query": text, "positive_passages": [{"docid": name, "title": "", "text": THINGS[int(name)]}]}
        for name, text in (("1", "who wove the cloth"), ("2", "Who  wove the cloth"))
    ]
    result = fit(rows, "--model.symmetric", symmetric)
    assert result.code == 0, result.err
    assert curve("train/loss") == [0.0]
    assert curve("train/masked") == [2.0 if symmetric == "false" else 4.0]


def test_numbers_do_not_depend_on_the_shape(fit):
    """The same training rows in four shapes give the same losses to the bit."""
    losses = []
    triplets = [
        {"anchor": row["query"], "positive": row["pos"][0], "negative_1": row["neg"][0], "negative_2": row["neg"][1]}
        for row in FLAG
    ]
    mapped = [{"Frage": row["query"], "gut": row["pos"], "schlecht": row["neg"]} for row in FLAG]
    arrays = [[row["query"], *row["pos"], *row["neg"]] for row in FLAG]
    for out, rows, extra in (
        ("a", FLAG, ()),
        ("b", triplets, ()),
        ("c", arrays, ()),
        ("d", mapped, ("--data.columns", "{query: Frage, positive: gut, negative: schlecht}")),
    ):
        result = fit(rows, "--out", out, "--data.hard_negatives", 2, "--trainer.max_steps", 2, *extra)
        assert result.code == 0, result.err
        told = "12 passages have a score of another model, which is kept and not trained on"
        assert (told in result.err) == (rows is FLAG)
        assert json.loads(Path(out, "provenance.json").read_text())["data"]["examples"] == 4
        losses.append([json.loads(line).get("train/loss") for line in Path(out, "curves.jsonl").read_text().splitlines()])
    assert losses[0] == losses[1] == losses[2] == losses[3]
    assert len(losses[0]) == 2


def test_cross_encoder_trains_on_the_negatives_of_a_row(research, tiny_reranker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FLAG))
    Path("cross.yaml").write_text(f"""
out: run
wandb: disabled
model:
  class_path: research.training.cross_encoder.CrossEncoderModule
  init_args: {{model: {tiny_reranker}}}
data:
  class_path: research.data.candidates.CandidateData
  init_args: {{train: rows.jsonl, val_split: null, test_split: null, batch_size: 2, group_size: 3}}
trainer: {{accelerator: cpu, devices: 1, max_steps: 1}}
""")
    result = research("fit", "-c", "cross.yaml")
    assert result.code == 0, result.err
    assert 0.5 < curve("train/loss")[0] < 3  # of three candidates: ln 3 where the model tells nothing


# ---- what a refusal proposes works ----------------------------------------------------------------------------------

TWICE = {"query_id": "q", "query": "a bee", "positive_passages": [{"docid": "d", "text": "honey"}]}


@pytest.mark.parametrize(
    ("rows", "cure", "mend"),
    [
        (["{oops", *FLAG], "--data.skip_bad_rows true", ("--data.skip_bad_rows", "true")),
        (
            [TWICE, TWICE | {"query": "two"}, TWICE | {"query_id": "r"}],
            "--data.skip_bad_rows true",
            ("--data.skip_bad_rows", "true"),
        ),
        # the other proposals are tried in unit/test_shapes
        ([row | {"prompt": "find:"} for row in FLAG], "set model.query_prompt", (FLAG, "--model.query_prompt", "find:")),
    ],
)
def test_refusal_of_rows_proposes_what_works(fit, rows, cure, mend):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    Path("rows.jsonl").write_text(text)
    refused = fit()
    assert refused.code == 2, refused.err
    assert cure in refused.err.splitlines()[-1]
    assert not Path("run").exists()
    mended = fit(*mend) if not isinstance(mend[0], str) else fit(None, *mend)
    assert mended.code == 0, mended.err


def test_option_of_rows_is_refused_for_a_collection(research, collection, fit):
    result = fit(None, "--data.positive_from", 0.5, name=f"beir:{collection}")
    assert result.code == 2
    assert "data.positive_from is for training rows" in result.err


def test_collection_that_is_trained_on_proposes_the_option_of_fit(fit, collection):
    with open(collection / "corpus.jsonl", "a") as stream:
        stream.write("{oops\n")
    options = ("--data.train_split", "test", "--data.val_split", "dev")
    refused = fit(None, *options, name=f"beir:{collection}")
    assert refused.code == 2
    assert "or pass --data.skip_bad_rows true" in refused.err
    assert fit(None, *options, "--data.skip_bad_rows", "true", name=f"beir:{collection}").code == 0


def configured() -> dict:
    return yaml.safe_load(Path("run/config.yaml").read_text())["data"]["init_args"]


def test_negatives_that_rows_hold_are_trained_on_and_the_number_is_said(fit):
    """What is left out means as many as there are; config.yaml has the number, so that the point has one name."""
    result = fit(FLAG)
    assert result.code == 0, result.err
    assert "rows.jsonl: 2 hard negatives a query\n" in result.err
    assert configured()["hard_negatives"] == 2
    point = json.loads(Path("run/provenance.json").read_text())["point"]
    again = fit(None, "--data.hard_negatives", 2)
    assert "finished before" in again.err, again.err
    for extra in ((), ("--data.hard_negatives", 2)):
        named = fit(None, "--out", "points/{point}", *extra)
        assert named.code == 0, named.err
        assert [path.name for path in Path("points").iterdir()] == [point]


def test_negatives_that_are_not_trained_on_are_said(fit):
    unlike = [{"query": row["query"], "pos": row["pos"], "neg": row["neg"][: i % 3]} for i, row in enumerate(FLAG)]
    result = fit(unlike, "--data.hard_negatives", 0)
    assert "no hard negatives: data.hard_negatives is 0, and the rows hold up to 2 a query that are not used" in result.err
    result = fit(unlike, "--data.hard_negatives", 1, "--out", "one")
    assert (
        "1 hard negative a query (fewer for 2 that have fewer), drawn in each epoch of the up to 2 that the rows hold "
        "(data.hard_negatives)"
    ) in result.err


def test_a_run_of_before_that_left_negatives_out_is_another_one(fit):
    """Its config.yaml says 0: the same command would now train on two, and does not take the old numbers for these."""
    assert fit(FLAG, "--data.hard_negatives", 0).code == 0
    result = fit(None)
    assert result.code == 2
    assert "data.init_args.hard_negatives 0, now 2" in result.err


def test_rows_without_negatives_keep_their_point(fit):
    pairs = [{"query": row["query"], "answer": row["pos"][0]} for row in FLAG]
    result = fit(pairs)
    assert result.code == 0, result.err
    assert "negatives" not in result.err
    assert configured()["hard_negatives"] == 0


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--data.train", "absent.jsonl"], "absent.jsonl"),
        (["--data.batch_size", 5, "--data.drop_last", "true"], "batch_size=5"),
        (["--data.val", "beir:absent", "--data.val_split", "dev"], "BEIR folder 'absent' does not exist"),
        (["--model.temperature", "-1"], "temperature=-1"),
        (["--model.loss", "absent"], "loss='absent'"),
        (["--model.metrics", "[absent@1]"], "absent"),
        (["--model.model", "./absent"], "model './absent' does not exist"),
    ],
)
def test_what_is_wrong_without_a_model_is_said_before_one_is_read(fit, monkeypatch, extra, says):
    monkeypatch.setattr("research.training.dual_encoder.resolve", lambda name: pytest.fail("a model was read"))
    result = fit(FLAG, *extra)
    assert result.code == 2
    assert says in result.err

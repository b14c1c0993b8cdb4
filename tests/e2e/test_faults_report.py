"""Faults as a study's report meets them: its options, the sweep's files, runs that do not belong together."""

import json
import shutil
from pathlib import Path

import pytest
from faults import Row, cells, cut, refuse, remove, write

from tests.synthetic_runs import ids, write_study

A, B, C, *_ = ids(12)  # three seeds of one setting
RUN, PLAN = f"study/{A}", "study/plan.jsonl"
STUDY = "research report study --out out"
DIFF = "research report --diff"
MEND, AGAIN, CORRECT = "Mend the file", "Make the run again, or leave it out", "Correct it"


def change(name: str, *keys: str, to):
    """Set a value inside a JSON file."""

    def act(_):
        value = whole = json.loads(Path(name).read_text())
        for key in keys[:-1]:
            value = value[key]
        value[keys[-1]] = to
        Path(name).write_text(json.dumps(whole))

    return act


def first_line(**changes):
    """Of the plan, changed; None leaves a key out."""

    def act(_):
        line, *rest = Path(PLAN).read_text().splitlines()
        line = {key: value for key, value in (json.loads(line) | changes).items() if value is not None}
        Path(PLAN).write_text("\n".join([json.dumps(line), *rest]) + "\n")

    return act


def every_run(act):
    return tuple(act(f"study/{one}") for one in ids(12))


def other_metric(folder: str):
    return change(f"{folder}/metrics.json", "metrics", to={"mrr@10": 0.5}), change(
        f"{folder}/metrics.json", "monitor", to="val/mrr@10"
    )


def spec(text: str):
    return {"options": f"{STUDY} --spec spec.yaml", "breaks": (write("spec.yaml", text),)}


def claims(text: str):
    return {"options": f"{STUDY} --claims claims.yaml", "breaks": (write("claims.yaml", text),)}


OPTIONS = [
    Row(
        "missing file",
        "no spec",
        "report",
        "spec nowhere.yaml cannot be read",
        "expected a YAML file",
        "Check the path",
        f"{STUDY} --spec nowhere.yaml",
    ),
    Row(
        "missing file",
        "spec is a folder",
        "report",
        "spec study cannot be read",
        "expected a YAML file",
        "Check the path",
        f"{STUDY} --spec study",
    ),
    Row(
        "malformed line",
        "spec is no YAML",
        "report",
        "spec.yaml is not readable YAML",
        "expected `name: value`",
        MEND,
        **spec("metric: ["),
    ),
    Row(
        "malformed line",
        "spec is not UTF-8",
        "report",
        "spec.yaml is not readable YAML",
        "expected `name: value`",
        MEND,
        f"{STUDY} --spec spec.yaml",
        (write("spec.yaml", b"title: caf\xe9"),),
    ),
    Row(
        "duplicate",
        "name twice in a spec",
        "report",
        "'metric' is there twice",
        "expected `name: value`",
        MEND,
        **spec("metric: val/loss\nmetric: val/rouge_l"),
    ),
    Row("wrong type", "spec is a list", "report", "spec.yaml holds list", "expected a mapping", CORRECT, **spec("[1]")),
    Row(
        "wrong value",
        "unknown name in a spec",
        "report",
        "'metrik'",
        "did you mean 'metric'?",
        CORRECT,
        **spec("metrik: val/loss"),
    ),
    Row(
        "wrong value",
        "goal of a spec",
        "report",
        "goal is 'high'",
        "expected maximize or minimize",
        CORRECT,
        **spec("goal: high"),
    ),
    Row(
        "wrong type",
        "text for a truth value in a spec",
        "report",
        "pair_by_seed is 'yes'",
        "expected true or false",
        CORRECT,
        **spec("pair_by_seed: 'yes'"),
    ),
    Row(
        "unknown id",
        "factor of a spec that is no option",
        "report",
        "factor 'rr' is an option of no run",
        "known: ",
        "Correct the spec",
        **spec("factors: [rr]"),
    ),
    Row(
        "wrong value",
        "factors of a spec leave out what differs",
        "report",
        "differ in model.optimisation.lr (0.0001, 0.0002)",
        "expected one run a seed",
        "Name it among the factors",
        **spec("factors: [lora_dropout]"),
    ),
    Row(
        "wrong value",
        "metric of no run",
        "report",
        "no finished run has val/x",
        "expected one of val/loss",
        "Name another",
        f"{STUDY} --metric val/x",
    ),
    Row(
        "unknown id",
        "baseline that is no setting",
        "report",
        "baseline 'r=9' is no setting",
        "known: lora_dropout=0 lr=0.0001",
        "Name one of them",
        f"{STUDY} --baseline r=9",
    ),
    Row(
        "missing file",
        "no claims",
        "report",
        "claims nowhere.yaml cannot be read",
        "expected a YAML file",
        "Check the path",
        f"{STUDY} --claims nowhere.yaml",
    ),
    Row(
        "malformed line",
        "claims are no YAML",
        "report",
        "claims.yaml is not readable YAML",
        "expected `name: value`",
        MEND,
        **claims("claims: ["),
    ),
    Row(
        "wrong type",
        "claims without a list",
        "report",
        "claims.yaml has no claims",
        "a list of lines such as",
        "Add some",
        **claims("claims: []"),
    ),
    Row(
        "wrong value",
        "unknown name beside the claims",
        "report",
        "claims.yaml has 'foo'",
        "expected claims, metric and goal",
        CORRECT,
        **claims("claims: [lr=0.0001 beats lr=0.0002]\nfoo: 1"),
    ),
    Row(
        "wrong type",
        "metric of the claims is a list",
        "report",
        "metric is [1]",
        "expected a metric, such as val/loss",
        CORRECT,
        **claims("claims: [lr=0.0001 beats lr=0.0002]\nmetric: [1]"),
    ),
    Row(
        "wrong value",
        "line that is no claim",
        "report",
        "'lr is best' is no claim",
        "expected `r=16 beats",
        CORRECT,
        **claims("claims: [lr is best]"),
    ),
    Row(
        "unknown id",
        "claim about a setting that is not there",
        "report",
        "no setting has 'lr=7'",
        "expected one of",
        CORRECT,
        **claims("claims: [lr=7 beats lr=0.0002]"),
    ),
    Row(
        "wrong value",
        "three folders to --diff",
        "report",
        "--diff has 3 folders",
        "expected two",
        "Name two",
        f"{DIFF} study study study",
    ),
    Row(
        "missing file",
        "no report to --diff",
        "report",
        "nowhere does not exist",
        "expected a folder that",
        "Check the path",
        f"{DIFF} nowhere study",
    ),
    Row(
        "malformed line",
        "report that is cut, to --diff",
        "report",
        "report/report.json is not readable JSON",
        "expected a file this tool wrote",
        "run again",
        f"{DIFF} report study",
        (cut("report/report.json", 300),),
        ("report study --out report",),
    ),
    Row(
        "wrong type",
        "report of a former form, to --diff",
        "report",
        "report/report.json says nothing of its runs",
        "expected a study's groups",
        "Make that report again",
        f"{DIFF} study report",
        (change("report/report.json", "study", to={"metric": "val/loss"}),),
        ("report study --out report",),
    ),
    Row(
        "wrong value",
        "--out of --diff holds other files",
        "report",
        "--out study holds files",
        "nothing was touched",
        "Name a new or empty folder",
        f"{DIFF} study study --out study",
    ),
]

SWEEPS = [
    Row(
        "malformed line",
        "plan is no JSON",
        "report",
        PLAN,
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (write(PLAN, "{"),),
    ),
    Row(
        "malformed line",
        "plan is cut",
        "report",
        f"{PLAN}:12 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (cut(PLAN, -30),),
    ),
    Row(
        "malformed line",
        "plan is not UTF-8",
        "report",
        PLAN,
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (write(PLAN, b"\xff\xfe"),),
    ),
    Row(
        "malformed line",
        "plan line without values",
        "report",
        f"{PLAN}:1 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (first_line(values=None),),
    ),
    Row(
        "wrong type",
        "values of a plan are a list",
        "report",
        f"{PLAN}:1 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (first_line(values=[1]),),
    ),
    Row(
        "wrong type",
        "facts of a plan are a list",
        "report",
        f"{PLAN}:1 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (first_line(facts=[1]),),
    ),
    Row(
        "wrong type",
        "point of a plan is a number",
        "report",
        f"{PLAN}:1 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (first_line(point=3),),
    ),
    Row(
        "wrong value",
        "point of a plan is a path",
        "report",
        f"{PLAN}:1 is damaged",
        "expected a point a line",
        "Plan the sweep again",
        STUDY,
        (first_line(point="../elsewhere"),),
    ),
    Row(
        "duplicate",
        "point twice in a plan",
        "report",
        f"{PLAN}:1 and :2 are both {B}",
        "expected each point once",
        "Plan the sweep again",
        STUDY,
        (first_line(point=B),),
    ),
    Row(
        "missing file",
        "empty plan",
        "report",
        f"{PLAN} has no points",
        "expected one or more",
        "Plan the sweep again",
        STUDY,
        (write(PLAN, ""),),
    ),
    Row(
        "missing file",
        "sweep of which nothing is finished",
        "report",
        f"none of 12 runs in study is finished ({A} failed, {B} failed, {C} failed and 9 more)",
        "expected one or more",
        "Run the sweep",
        STUDY,
        (
            *every_run(lambda run: remove(f"{run}/metrics.json")),
            write("study/ledger.jsonl", "".join(json.dumps({"point": one, "state": "failed"}) + "\n" for one in ids(12))),
        ),
    ),
    Row(
        "missing file",
        "sweep whose runs are all gone",
        "report",
        "none of 12 runs in study is finished",
        "expected one or more",
        "Run the sweep",
        STUDY,
        every_run(remove),
    ),
    Row(
        "duplicate",
        "sweep twice",
        "report",
        "is given 2 times",
        "expected different runs",
        "Name it once",
        "research report study ./study --out out",
    ),
    Row(
        "duplicate",
        "sweep and a point of it",
        "report",
        f"{A} is given 2 times",
        "expected different runs",
        "Name it once",
        f"research report study {RUN} --out out",
    ),
    Row(
        "duplicate",
        "two runs of one setting and seed with different values",
        "report",
        "are of one setting and seed",
        "expected one run a seed",
        "Leave one out",
        "research report study copy --out out",
        (lambda _: shutil.copytree("study", "copy"), change(f"copy/{A}/metrics.json", "metrics", "loss", to=1.5)),
    ),
]

RUNS = [
    Row(
        "missing file",
        "run without config.yaml",
        "report",
        f"{A} has no config.yaml",
        "expected what `research fit` wrote",
        "leave it out",
        STUDY,
        (remove(f"{RUN}/config.yaml"),),
    ),
    Row(
        "malformed line",
        "config.yaml is cut",
        "report",
        f"{RUN}/config.yaml is not readable YAML",
        "expected the configuration",
        "leave it out",
        STUDY,
        (cut(f"{RUN}/config.yaml", 900),),
    ),
    Row(
        "malformed line",
        "metrics.json is cut",
        "report",
        f"{RUN}/metrics.json is not readable JSON",
        "expected a file",
        "run again",
        STUDY,
        (cut(f"{RUN}/metrics.json", 900),),
    ),
    Row(
        "wrong type",
        "metrics are a list",
        "report",
        f"{RUN}/metrics.json: metrics is [1]",
        "expected names with numbers",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "metrics", to=[1]),),
    ),
    Row(
        "wrong type",
        "metric is a text",
        "report",
        f'{RUN}/metrics.json: metrics.loss is "low"',
        "expected a number",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "metrics", "loss", to="low"),),
    ),
    Row(
        "wrong type",
        "values of examples are a number",
        "report",
        f"{RUN}/metrics.json: per_query.loss is 3",
        "expected names with numbers",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "per_query", "loss", to=3),),
    ),
    Row(
        "wrong type",
        "value of an example is a text",
        "report",
        f'{RUN}/metrics.json: per_query.loss.0 is "a"',
        "expected a number",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "per_query", "loss", "0", to="a"),),
    ),
    Row(
        "wrong type",
        "count of parameters is a text",
        "report",
        f'{RUN}/metrics.json: trained.trained_parameters is "many"',
        "expected a number",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "trained", "trained_parameters", to="many"),),
    ),
    Row(
        "wrong type",
        "seconds are a text",
        "report",
        f'{RUN}/metrics.json: seconds is "long"',
        "expected a number",
        AGAIN,
        STUDY,
        (change(f"{RUN}/metrics.json", "seconds", to="long"),),
    ),
    Row(
        "wrong type",
        "metrics of a test are a list",
        "report",
        f"{RUN}/test.json: metrics is [1]",
        "expected names with numbers",
        AGAIN,
        STUDY,
        (write(f"{RUN}/test.json", '{"metrics": [1]}'),),
    ),
    Row(
        "wrong type",
        "packages of a provenance are a list",
        "report",
        f"{RUN}/provenance.json: packages is [1]",
        "expected names with values",
        AGAIN,
        STUDY,
        (change(f"{RUN}/provenance.json", "packages", to=[1]),),
    ),
    Row(
        "wrong type",
        "command of a provenance is a text",
        "report",
        f'{RUN}/provenance.json: command is "x"',
        "expected a list",
        AGAIN,
        STUDY,
        (change(f"{RUN}/provenance.json", "command", to="x"),),
    ),
    Row(
        "malformed line",
        "curves are not UTF-8",
        "report",
        f"{A}/curves.jsonl is not UTF-8",
        "expected lines of JSON",
        "leave it out",
        STUDY,
        (write(f"{RUN}/curves.jsonl", b"\xff\n"),),
    ),
    Row(
        "wrong type",
        "step of a curve is a text",
        "report",
        f"{A}/curves.jsonl:1",
        "expected an object of a step",
        "leave it out",
        STUDY,
        (write(f"{RUN}/curves.jsonl", '{"step": "a", "val/loss": 1}\n'),),
    ),
    Row(
        "wrong type",
        "value of a curve is a text",
        "report",
        f"{A}/curves.jsonl:1",
        "expected an object of a step",
        "leave it out",
        STUDY,
        (write(f"{RUN}/curves.jsonl", '{"step": 1, "val/loss": "low"}\n'),),
    ),
    Row(
        "wrong value",
        "runs monitored by different metrics",
        "report",
        f"1 by val/mrr@10 ({A}), 11 by val/loss ({B}, {C}",
        "expected one metric for all",
        "Name it by --metric",
        STUDY,
        other_metric(RUN),
    ),
    Row(
        "wrong value",
        "metric that one of two reports has not",
        "report",
        "metric val/mrr@10 is not in both reports",
        "expected one of val/loss",
        "Name another",
        f"{DIFF} report report --metric val/mrr@10",
        before=("report study --out report",),
    ),
]

ROWS = OPTIONS + SWEEPS + RUNS


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A sweep of four settings, three seeds each, in ./study."""
    write_study(tmp_path / "study", 12)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_is_refused(cell, research, monkeypatch, place):
    refuse(cell, research, monkeypatch)

"""`research report wandb:ENTITY/PROJECT`: W&B's real client, in a process of its own, against a stand-in for its server."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import Result
from tests.e2e.fitting import process
from tests.wandb_log import run_records, write_log
from tests.wandb_server import Server, node

SWEEP = """
method: grid
metric: {name: top1, goal: minimize}
parameters: {lr: {values: [0.1, 0.2]}, seed: {values: [0, 1]}}
early_terminate: {type: hyperband, min_iter: 2}
"""


def history(lr: float, seed: int, steps: int = 1500) -> list[dict]:
    """More steps than the client asks for at once; validated at some."""
    rows = []
    for step in range(0, steps, 100):
        rows.append({"_step": step, "train": 1.0 * step})
        rows.append({"_step": step + 1, "top1": lr + 0.01 * seed + 1 / (1 + step), "top1_text": "x", "_runtime": 1.0 * step})
    return rows


POINTS = [(lr, seed) for lr in (0.1, 0.2) for seed in range(2)]


@pytest.fixture
def server():
    runs = [
        node(
            f"id{i}",
            {"lr": lr, "seed": seed, "dropout": 0, "_wandb": {"t": 1}},
            history(lr, seed),
            number=9 - i,
            sweepName="sw1",
            commit="c1",
        )
        for i, (lr, seed) in enumerate(POINTS)
    ]
    runs += [
        node("grp0", {"lr": 0.3, "seed": 0}, history(0.3, 0), number=20, group="by hand"),
        node("grp1", {"lr": 0.3, "seed": 1}, history(0.3, 1), number=21, group="by hand"),
    ]
    for i, state in enumerate(("crashed", "failed", "killed", "running", "pending", "preempting")):
        runs.append(node(f"s{i}", {"lr": 0.5 + i, "seed": 0}, history(0.5, 0), number=30 + i, state=state, group="states"))
    runs.append(
        node(
            "early",
            {"lr": 0.2, "seed": 2, "dropout": 0},
            history(0.2, 2, 300),
            number=40,
            state="killed",
            sweepName="sw1",
            commit="c1",
        )
    )
    found = Server(runs, {"sw1": SWEEP})
    yield found
    found.http.shutdown()


def report(server: Server | None, *argv: str, **variables: str) -> Result:
    base = {
        "WANDB_BASE_URL": server.url if server else "http://127.0.0.1:9",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_HTTP_TIMEOUT": "5",
        "HOME": "/nonexistent",
    }
    return process("report", *argv, "--out", "out", env=base | variables)


def lines(table: str) -> list[dict]:
    return list(csv.DictReader(Path("out", table).read_text().splitlines()))


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path("out").rglob("*")) if path.is_file()}


def test_a_sweep_of_the_server_becomes_a_report(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = report(server, "wandb:me/proj/sw1", "--json")
    assert result.code == 0, result.err
    assert (result.json["runs"], result.json["states"]) == (5, {"done": 4, "pruned": 1})
    table = lines("tables/results.csv")
    last = 1 / (1 + 1400)
    for line, lr in zip(sorted(table, key=lambda line: line["lr"]), (0.1, 0.2), strict=True):
        assert float(line["top1"]) == pytest.approx(lr + 0.005 + last)
    text = Path("out/report.md").read_text()
    assert "lr=0.1 has the best top1" in text  # the sweep's metric, and its goal
    assert text.startswith("# sw1")
    curves = json.loads(Path("out/figures/curves.vl.json").read_text())
    assert "1401" in json.dumps(curves)  # the step of the last validation, beyond the first page
    first = files()
    assert report(server, "wandb:me/proj/sw1").code == 0
    assert files() == first


@pytest.mark.thorough
def test_the_server_and_the_logs_of_the_same_runs_give_one_table(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, (lr, seed) in reversed([*enumerate(POINTS)]):
        records = run_records(
            f"id{i}",
            {"lr": lr, "seed": seed, "dropout": 0.0},
            history(lr, seed),
            commit="c1",
            started=1_700_000_000 - i,
            sweep_id="sw1",
        )
        write_log(Path(f"wandb/offline-run-20260101_00000{i}-id{i}/run-id{i}.wandb"), records)
    server.runs = server.runs[:4]
    Path("report.yaml").write_text("metric: top1\ngoal: minimize\n")
    tables = []
    for source in ("wandb:me/proj", "wandb"):
        result = report(server, source, "--spec", "report.yaml")
        assert result.code == 0, result.err
        tables.append({name: data for name, data in files().items() if "tables/" in name or "curves.vl" in name})
    assert len(tables[0]) >= 7
    assert {"out/tables/results.tex", "out/tables/runs.csv", "out/figures/curves.vl.json"} < tables[0].keys()
    assert tables[0] == tables[1]


@pytest.mark.thorough
def test_groups_states_and_a_whole_project(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = report(server, "wandb:me/proj/by hand", "--metric", "top1", "--json")
    assert result.json["states"] == {"done": 2}, result.err
    result = report(server, "wandb:me/proj", "--metric", "top1", "--json")
    assert result.code == 0, result.err
    assert result.json["runs"] == 13
    states = {line["run"]: (line["state"], line["error"]) for line in lines("runs.csv")}
    assert states["early"] == ("pruned", "")
    names = ("killed", "failed", "killed", "running", "missing", "preempted")
    said = ("crashed", "failed", "killed", "running", "pending", "preempting")
    assert [states[f"s{i}"] for i in range(6)] == [
        (name, f"W&B has it as {one}") for name, one in zip(names, said, strict=True)
    ]
    assert server.asked["Runs"] >= 5  # pages


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("wandb:me/nothing", "W&B has no project me/nothing"),
        ("wandb:me/proj/sw2", "no run of me/proj is in a sweep or group 'sw2'; did you mean 'sw1'?"),
    ],
)
def test_names_that_the_server_has_not_are_refused(server, tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    result = report(server, source)
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err
    assert not Path("out").exists()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("kind", "fault", "says"),
    [
        ("Viewer", 401, "W&B refuses the key"),
        ("Runs", 403, "W&B refuses the key"),
        ("Runs", "errors", "W&B does not give it (input: no such thing)"),
        ("Runs", 404, "W&B does not give it (out of order)"),
        ("Runs", 503, "W&B does not answer"),
        ("Viewer", "hang", "W&B does not answer"),
    ],
)
def test_a_server_that_refuses_or_is_silent_is_named_with_the_cure(server, tmp_path, monkeypatch, kind, fault, says):
    monkeypatch.chdir(tmp_path)
    server.faults[kind] = (1000, fault)
    result = report(server, "wandb:me/proj", "--metric", "top1", WANDB_HTTP_TIMEOUT="1")
    assert result.code == 2
    assert says in result.err, result.err
    assert "name the folders of the runs instead" in result.err
    assert "Traceback" not in result.err
    assert not Path("out").exists()


def test_no_network_and_no_key(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = report(None, "wandb:me/proj", WANDB_HTTP_TIMEOUT="1")
    assert (result.code, result.err.count("trying again")) == (2, 2)
    assert "W&B does not answer" in result.err
    result = report(server, "wandb:me/proj", WANDB_API_KEY="")
    assert result.code == 2
    assert "needs a key of W&B" in result.err
    assert "name the folders of the runs instead" in result.err
    result = report(server, "wandb:me/proj", WANDB_API_KEY="short")
    assert result.code == 2
    assert "W&B refuses the key" in result.err, result.err
    assert "trying again" not in result.err
    assert not server.asked


def test_an_answer_that_is_lost_is_asked_for_again(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.faults["Runs"] = (1, "hang")
    result = report(server, "wandb:me/proj/sw1", WANDB_HTTP_TIMEOUT="2")
    assert result.code == 0, result.err
    assert "trying again (2 left)" in result.err


@pytest.mark.thorough
def test_a_network_that_goes_away_costs_the_curves_and_not_the_report(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.faults["SampledHistoryPage"] = (1000, "hang")
    result = report(server, "wandb:me/proj/sw1", WANDB_HTTP_TIMEOUT="1")
    assert result.code == 0, result.err
    assert result.err.count("are without a curve") == 1  # said once, and not waited for again
    assert len(lines("tables/results.csv")) == 2
    assert not Path("out/figures/curves.svg").exists()

"""Our reading of W&B's logs against W&B's own, `wandb leet inspect --json`, on logs that W&B wrote and on damaged ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from research.runs.wandb.log import curve, read_log
from tests.wandb_log import run_records, write_log

PROGRAM = """
import sys, wandb
for number in range(3):
    run = wandb.init(project="other", mode="offline", dir=sys.argv[1], group="g", id=f"run{number}", name=f"name {number}",
                     config={"optimizer": {"lr": 10.0 ** -number, "betas": [0.9, 0.999]}, "seed": number, "note": "é|\\n"},
                     settings=wandb.Settings(console="off"))
    run.define_metric("best", summary="min")
    run.config.update({"late": number})
    for step in range(40):
        run.log({"val": {"loss": 1 / (step + 1 + number)}, "best": abs(step - 20), "acc/top-1": step / 40, "nan": float("nan"),
                 "weights": wandb.Histogram(list(range(50))), "text": "x" * 500, "flag": True})
    run.summary["final"] = 0.5 + number
    run.finish(exit_code=3 if number == 2 else 0)
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("wandb")
    subprocess.run([sys.executable, "-c", PROGRAM, str(place)], check=True, capture_output=True, cwd=place)
    found = sorted(place.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(found) == 3
    return found


def inspected(path: Path) -> list[dict]:
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run([wandb, "leet", "inspect", "--json", path], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def nested(flat: dict) -> dict:
    """`a.b` → b in a, as leet joins the names."""
    out: dict = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        inside = out
        for one in outer:
            inside = inside.setdefault(one, {})
        inside[last] = value
    return out


def same(path: Path, whole: bool = True) -> None:
    """All that a report takes from a log is what leet has."""
    log, theirs = read_log(path), inspected(path)
    config: dict = {}
    summary: dict = {}
    for record in theirs:
        told = record.get("run", {}) if record["type"] == "run" else record
        config |= nested(told.get("config", {}).get("update", {}))
        for name, value in nested(record.get("summary", {}).get("update", {})).items():
            summary[name] = summary.get(name, {}) | value if isinstance(value, dict) else value
    config.pop("_wandb", None)
    assert log.config == config
    assert json.loads(json.dumps(log.summary), parse_constant=str) == summary  # leet writes nan as a text
    rows = [record["history"]["item"] for record in theirs if record["type"] == "history"]
    assert len(log.history) == len(rows)
    for name in ("val.loss", "best", "acc/top-1", "loss"):
        assert curve([log], name) == [(row["_step"], row[name]) for row in rows if name in row]
    ends = [record["exit"].get("exit_code", 0) for record in theirs if record["type"] == "exit"]
    assert [log.exit_code] == (ends or [None])
    assert bool(log.damage) != whole
    (run,) = (record["run"] for record in theirs if record["type"] == "run")
    assert (log.id, log.name, log.group) == (run["run_id"], run.get("display_name", ""), run.get("run_group", ""))


def test_logs_of_w_and_b_are_read_as_it_reads_them(logs):
    for log in logs:
        assert log.stat().st_size > 100_000  # records that go on in the next block
        same(log)
    assert [read_log(log).exit_code for log in logs] == [0, 0, 3]


def test_a_log_that_is_cut_off_is_read_as_w_and_b_reads_it(logs, tmp_path):
    data = logs[0].read_bytes()
    for share in (0.1, 0.3, 0.77, 0.999):
        path = tmp_path / "run-run0.wandb"
        path.write_bytes(data[: int(len(data) * share)])
        same(path, whole=False)


def test_logs_made_by_hand_are_good_ones(tmp_path):
    """Those that other tests are made of."""
    rows = [{"_step": step, "loss": 1.5 * step, "text": "x" * 9000 * step} for step in range(9)]
    same(write_log(tmp_path / "run-h.wandb", run_records("h", {"lr": 0.1}, rows, {"final": 1}, run_group="g")))


def test_values_by_type_are_those_of_leet(tmp_path):
    from wandb.proto.wandb_internal_pb2 import Record

    records = [*run_records("t", {}, [], exit_code=None), Record()]
    for name, kind, value in (("loss", "number", 1.5), ("best", "integer", 3), ("acc/top-1", "json", "0.25")):
        item = records[-1].history.item.add()
        item.nested_key.append(name)
        setattr(item, kind, value)
    records[-1].history.step.num = 4
    log = read_log(write_log(tmp_path / "run-t.wandb", records))
    assert [curve([log], name) for name in ("loss", "best", "acc/top-1")] == [[(4, 1.5)], [(4, 3.0)], [(4, 0.25)]]
    (row,) = (record["history"]["item"] for record in inspected(log.path) if record["type"] == "history")
    assert {
        name: json.loads(str(value))
        for one in row
        for name, value in [(one["nested_key"][0], one.get("number", one.get("integer", one.get("json"))))]
    } == {"loss": 1.5, "best": 3, "acc/top-1": 0.25}

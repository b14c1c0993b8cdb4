"""Whose folder a sweep's is, what its workers run, and what they are told by the environment: on commands of other programs."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from research.errors import UserError
from tests.conftest import ROOT

SAY = ["sh", "-c", 'echo "$0 $*" >> said.txt', "${args_no_hyphens}"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of workers
    return tmp_path


def sweep(file: str, parameters: dict, **more) -> str:
    value = {"method": "grid", "name": "twin", "command": SAY, "parameters": parameters} | more
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text(yaml.safe_dump(value, sort_keys=False))
    return file


def ran(research, file: str) -> dict[str, int]:
    """The states of a sweep's points after `plan` and a worker in this process, which costs less than `run`."""
    assert research("sweep", "plan", file).code == 0
    assert research("sweep", "worker", file).code == 0
    return research("sweep", "status", file, "--json").json["states"]


def said() -> list[str]:
    return sorted(Path("said.txt").read_text().split("\n")[:-1])


LR = {"lr": {"values": [1, 2]}, "c": {"value": 0}}
OTHERS = {
    "other parameters": ({"r": {"values": [1, 2]}, "c": {"value": 0}}, {}),
    "other values": ({"lr": {"values": [3, 4]}, "c": {"value": 0}}, {}),
    "values that only overlap": ({"lr": {"values": [2, 3]}, "c": {"value": 0}}, {}),
    "another command": (LR, {"command": ["sh", "-c", "exit 0", "${args}"]}),
    "another method": ({"lr": {"min": 0.0, "max": 1.0}}, {"method": "random", "run_cap": 2}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_second_sweep_of_one_name_is_refused_and_leaves_the_first_alone(other, place, research):
    parameters, more = OTHERS[other]
    first, second = sweep("a.yaml", LR), sweep("b.yaml", parameters, **more)
    assert research("sweep", "plan", first).code == 0
    before = Path("runs/sweeps/twin/plan.jsonl").read_bytes()
    for verb in ("plan", "run", "status"):
        result = research("sweep", verb, second)
        assert result.code == 2, result.err
        assert "folder of another sweep called twin" in result.err
        assert "a.yaml), whose first point is lr=1 c=0" in result.err
    assert Path("runs/sweeps/twin/plan.jsonl").read_bytes() == before
    Path(second).write_text(Path(second).read_text().replace("name: twin", "name: other"))  # the cure
    assert research("sweep", "plan", second).code == 0


def test_sweeps_that_come_at_once_do_not_share_a_folder(place):
    """Both have looked before either has written."""
    from research.sweeps.folder import claimed, folder_of, refuse_other_sweep
    from research.sweeps.spec import read_sweep

    one, other = (read_sweep(Path(sweep(f"{name}.yaml", {name: {"values": [1, 2]}}))) for name in "ab")
    folder = folder_of(one)
    for each in (one, other):
        refuse_other_sweep(folder, each, 0)
    with claimed(folder, one, 0):
        (folder / "plan.jsonl").write_text("")
    with pytest.raises(UserError, match="folder of another sweep"), claimed(folder, other, 0):
        raise AssertionError("the second has taken the folder")


def test_an_edited_sweep_goes_on_in_its_folder(place, research):
    file = sweep("a.yaml", LR)
    assert research("sweep", "run", file, "--json").json["states"] == {"done": 2}
    sweep("a.yaml", {"lr": {"values": [1, 2, 3]}, "c": {"value": 0}})
    assert research("sweep", "run", file, "--json").json["states"] == {"done": 3}
    assert said() == ["lr=1 c=0", "lr=2 c=0", "lr=3 c=0"]  # each once
    Path("a.yaml").rename("moved.yaml")  # the same sweep by its content, and then one that goes on
    assert research("sweep", "plan", "moved.yaml").code == 0
    sweep("further.yaml", {"lr": {"values": [3, 1, 2, 5]}, "c": {"value": 0}})
    assert research("sweep", "plan", "further.yaml").code == 0


@pytest.mark.parametrize(("values", "code"), [([1, 2], 0), ([1, 2, 3], 0), ([1], 0), ([7, 8], 2)])
def test_a_folder_that_knows_a_name_only_is_told_by_its_points(values, code, place, research):
    assert ran(research, sweep("a.yaml", LR)) == {"done": 2}
    folder = Path("runs/sweeps/twin")
    (folder / "sweep.json").write_text('{"name": "twin"}\n')  # as earlier versions wrote it
    file = sweep("b.yaml", {"lr": {"values": values}, "c": {"value": 0}})
    result = research("sweep", "plan", file)
    assert result.code == code, result.err
    if not code:
        ran(research, file)
    assert said()[:2] == ["lr=1 c=0", "lr=2 c=0"]
    assert len(said()) == (3 if 3 in values else 2)


def test_a_worker_runs_the_plan_that_it_was_started_for(place, research):
    from research.runs.plan import copy_plan, read_plan

    file = sweep("a.yaml", LR)
    assert research("sweep", "plan", file).code == 0
    folder = Path("runs/sweeps/twin")
    kept, plan = copy_plan(folder, file, Path(file).read_text(), read_plan(folder))
    sweep("a.yaml", {"lr": {"values": [8, 9]}, "c": {"value": 0}}, command=["false", "${args}"])
    assert research("sweep", "plan", file).code == 0
    assert research("sweep", "worker", kept, "--folder", folder, "--plan", plan).code == 0
    assert said() == ["lr=1 c=0", "lr=2 c=0"]


def test_variables_are_filled_in_where_the_command_starts_and_stand_in_no_file(place, research, monkeypatch):
    command = ["sh", "-c", 'echo "$0 $1" >> said.txt', "${envvar:TOKEN}", "${args_no_hyphens}"]
    file = sweep("a.yaml", {"lr": {"values": ["${envvar:TOKEN}", 2]}}, command=command)
    ids = []
    for value in ("hush-1", "hush-2"):
        monkeypatch.setenv("TOKEN", value)
        assert ran(research, file) == {"done": 2}
        ids.append({json.loads(line)["point"] for line in Path("runs/sweeps/twin/plan.jsonl").read_text().splitlines()})
    assert not ids[0] & ids[1]  # another value is another point, as before
    # a value of a parameter is text: W&B's agent fills in words of the command alone
    assert said() == sorted(f"{value} lr={lr}" for value in ("hush-1", "hush-2") for lr in ("${envvar:TOKEN}", 2))
    texts = [path.read_text() for path in Path("runs").rglob("*") if path.is_file()]
    assert not [text for text in texts if "hush" in text]
    assert "$ sh -c echo" in next(Path("runs/sweeps/twin/logs").glob("????????????????.log")).read_text()


def test_values_come_in_a_file_where_the_command_asks_for_one(place, research):
    command = ["sh", "-c", "cat $0 >> said.txt", "${args_json_file}"]
    file = sweep("a.yaml", {"a": {"parameters": {"b": {"values": [1, None]}}}, "c": {"value": "x y"}}, command=command)
    assert ran(research, file) == {"done": 2}
    found = [json.loads(part) for part in Path("said.txt").read_text().replace("}\n{", "}\0{").split("\0")]
    assert sorted(found, key=str) == [{"a": {"b": 1}, "c": "x y"}, {"a": {"b": None}, "c": "x y"}]


def test_a_point_that_is_no_name_is_refused(place, research):
    file = sweep("a.yaml", LR)
    assert research("sweep", "plan", file).code == 0
    plan = Path("runs/sweeps/twin/plan.jsonl")
    lines = [json.loads(line) for line in plan.read_text().splitlines()]
    for point in ("..", ".", "", "a/b", "a\nb", 3):
        plan.write_text("".join(json.dumps(line | {"point": point}) + "\n" for line in lines[:1]))
        for verb in ("status", "run"):
            result = research("sweep", verb, file)
            assert result.code == 2
            assert "is damaged (point is" in result.err
        report = research("report", "runs/sweeps/twin", "--out", "page")
        assert report.code == 2
        assert "is damaged (point is" in report.err


def test_the_sweep_of_another_program_needs_no_metric_of_ours(place, research):
    """Its grid is run; what somebody here would have to look at while it runs is refused when it is planned."""
    metric = {"metric": {"name": "val/loss", "goal": "minimize"}}
    assert ran(research, sweep("a.yaml", LR, **metric)) == {"done": 2}
    assert research("sweep", "plan", sweep("r.yaml", LR, name="r", method="random", run_cap=2, **metric)).code == 0
    rule = {"early_terminate": {"type": "hyperband", "min_iter": 1}}
    for more in ({"method": "bayes", "run_cap": 3}, rule):
        result = research("sweep", "plan", sweep("b.yaml", LR, name="b", **metric, **more))
        assert result.code == 2
        assert "need to see val/loss while the command runs" in result.err


def test_locks_are_not_emptied_and_not_taken_through_links(place, research):
    file = sweep("a.yaml", LR)
    assert research("sweep", "plan", file).code == 0
    folder = Path("runs/sweeps/twin")
    point = json.loads((folder / "plan.jsonl").read_text().splitlines()[0])["point"]
    for name in (f"claims/{point}.lock", "sweep.lock", "ledger.jsonl"):
        precious = place / "precious"
        precious.write_text("mine\n")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(precious)
        verb = "plan" if name == "sweep.lock" else "worker"
        result = research("sweep", verb, file)
        assert result.code == 2, name
        assert "symbolic link" in result.err
        assert precious.read_text() == "mine\n"
        (folder / name).unlink()
    assert subprocess.run(["test", "-e", "said.txt"], check=False).returncode == 1  # and nothing was run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("worker", "--index", "x"), "invalid int value: 'x'"),
        (("worker", "--index", "-1"), "--index -1: the plan has 2 points"),
        (("worker", "--index", "2"), "--index 2: the plan has 2 points"),
        (("worker", "--index", "0", "--of", "x-y"), "--index 0 --of x-y: the plan has 2 points"),
        (("worker", "--plan", "."), "cannot read or write"),
        (("trial",), "arguments are required: --folder, --wandb"),
        (("finish",), "arguments are required: --folder, --plan, --round, --options"),
        (
            (
                "finish",
                "--folder",
                "runs/sweeps/twin",
                "--plan",
                "runs/sweeps/twin/plan.jsonl",
                "--round",
                "1",
                "--options",
                "{",
            ),
            "are not read",
        ),
    ],
)
def test_words_that_scripts_write_are_checked_too(words, says, place, research):
    file = sweep("a.yaml", LR)
    assert research("sweep", "plan", file).code == 0
    result = research("sweep", words[0], file, *words[1:])
    assert (result.code, says in result.err) == (2, True), result.err
    assert not Path("said.txt").exists()


def test_a_name_that_no_disk_takes_is_refused_before_anything_is_written(place, research):
    for name in ("x" * 241, "中" * 81):
        result = research("sweep", "plan", sweep("a.yaml", LR, name=name))
        assert result.code == 2
        assert "of 240 bytes at most" in result.err
    assert research("sweep", "plan", sweep("a.yaml", LR, name="中" * 80)).code == 0  # the cure
    assert research("sweep", "worker", "a.yaml").code == 0

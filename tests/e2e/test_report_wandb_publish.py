"""`research report --wandb` on a real sweep with offline W&B logs: named as logged, published to a stand-in server."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from research.report.wandb.keys import value_at
from tests.conftest import ROOT
from tests.e2e.fitting import process
from tests.e2e.sweeping import finished
from tests.e2e.test_sweep import CONFIG, R_ALPHA, sweep
from tests.wandb_log import records
from tests.wandb_publishing_server import StandIn, serving

KEY = "0" * 40
GOLDEN = Path(__file__).with_name("wandb_panels.golden.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished sweep of two settings and two seeds, whose trainings have logged to W&B offline."""
    place = tmp_path_factory.mktemp("wandb")
    result = finished(place, CONFIG.replace("wandb: disabled", "wandb: offline"), lambda: sweep(R_ALPHA))
    assert result.json["states"] == {"done": 4}, result.err
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "study", symlinks=True)
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def ids() -> list[str]:
    return sorted(json.loads(path.read_text())["id"] for path in Path("runs").glob("*/wandb.json"))


def report(*options: str, base: str = "http://127.0.0.1:9", **env: str):
    """A process of its own: W&B's client reads its environment once."""
    env = {"WANDB_MODE": "online", "WANDB_BASE_URL": base, "WANDB_API_KEY": KEY, "WANDB_DATA_DIR": "staged"} | env
    return process("report", "runs", "--out", "out", *options, env=env)


def everything() -> dict[str, bytes]:
    """The local report's files."""
    return {
        str(path.relative_to("out")): path.read_bytes()
        for path in Path("out").rglob("*")
        if path.is_file() and "wandb" not in path.parts[1]
    }


def logs() -> dict[str, dict]:
    """What W&B was sent of each run: config, names of the history, summary."""
    found = {}
    for path in Path("runs").glob("*/wandb/offline-run-*/*.wandb"):
        config, history, summary, id = {}, set(), {}, ""
        for record in records(path):
            if record.HasField("run"):
                id = record.run.run_id
                config = {one.key: json.loads(one.value_json) for one in record.run.config.update}
            for kind, part in ((history, record.history.item), (summary, record.summary.update)):
                names = {one.key or ".".join(one.nested_key): one.value_json for one in part}
                kind.update(names)
        found[id] = {"config": config, "history": history, "summary": summary}
    return found


def grids(made: dict) -> list[dict]:
    return [block["metadata"] for block in made["spec"]["blocks"] if block["type"] == "panel-grid"]


def test_dry_run_writes_the_same_bytes_without_key_or_network(place, research, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    result = research("report", "runs", "--out", "out", "--wandb", "--dry-run", "--json")
    assert (result.code, result.json["wandb"]) == (0, "out/wandb_report.json"), result.err
    first = everything()
    assert "wandb_report.json" in {path.name for path in Path("out").iterdir()}
    spec = Path("out/wandb_report.json").read_bytes()
    assert research("report", "runs", "--out", "out", "--wandb", "--dry-run").code == 0
    assert (everything(), Path("out/wandb_report.json").read_bytes()) == (first, spec)
    assert not Path("out/wandb").exists()
    assert research("report", "runs", "--out", "out").code == 0
    assert (everything(), Path("out/wandb_report.json").exists()) == (first, False)


def test_the_panels_of_real_runs_are_the_golden_file(place, research):
    """Run sets, panels, keys and layout, of trainings that really ran; TANDEM_GOLDEN=1 writes the file anew."""
    assert research("report", "runs", "--out", "out", "--wandb", "--dry-run").code == 0
    found = grids(json.loads(Path("out/wandb_report.json").read_text()))
    points = [json.loads(line)["point"] for line in Path("runs/plan.jsonl").read_text().splitlines()]
    for one in [one for grid in found for run_set in grid["runSets"] for one in run_set["filters"]["filters"]]:
        if {*one["value"]} <= {*points}:  # sorted by their ids
            one["value"].sort(key=points.index)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    for i, point in enumerate(points):  # they hold the code's hash
        text = text.replace(point, f"point-{i}")
    seen: dict[str, str] = {}  # and so do the ids that are made of them
    text = re.sub(r"\b[0-9a-f]{12}\b", lambda match: seen.setdefault(match[0], f"id-{len(seen)}"), text)
    if os.environ.get("TANDEM_GOLDEN"):
        GOLDEN.write_text(text + "\n")
    assert text + "\n" == GOLDEN.read_text()


def test_panels_and_run_sets_name_what_the_logs_hold(place, research):
    assert research("report", "runs", "--out", "out", "--wandb", "--dry-run").code == 0
    sent = logs()
    assert sorted(sent) == ids()
    named: dict[str, set] = {"config": set(), "history": set(), "summary": set()}
    for grid in grids(json.loads(Path("out/wandb_report.json").read_text()))[1:]:  # the first is of the report's own run
        for run_set in grid["runSets"]:
            assert run_set["filters"]["filters"][0]["value"] == ids()
            named["config"] |= {key["name"] for key in run_set["grouping"]}
        for panel in grid["panelBankSectionConfig"]["panels"]:
            config = panel["config"]
            kind = "history" if panel["viewType"] == "Run History Line Plot" else "summary"
            named[kind] |= {*config.get("metrics", [])} | ({config["targetKey"]} if "targetKey" in config else set())
            accessors = [one["accessor"] for one in config.get("columns", [])]
            for text in (*accessors, *(config[name] for name in ("xAxis", "yAxis") if panel["viewType"] == "Scatter Plot")):
                section, _, name = text.partition(":")
                named[section].add(name)
    assert named["history"] == {"val/loss", "train/loss"}
    assert named["summary"] == {"val/loss", "trained_parameters"}
    assert named["config"] == {"model.value.init_args.adapter.init_args.r"}  # alpha is tied to r, and no factor
    for id, one in sent.items():
        assert named["history"] <= one["history"]
        assert named["summary"] <= {*one["summary"]}
        metrics = json.loads(Path("runs", id, "metrics.json").read_text())
        assert json.loads(one["summary"]["val/loss"]) == metrics["metrics"]["loss"]
        assert json.loads(one["summary"]["trained_parameters"]) == metrics["trained"]["trained_parameters"]


def test_grouped_as_w_and_b_groups_the_runs_are_the_study_s_settings(place, research):
    assert research("report", "runs", "--out", "out", "--wandb", "--dry-run").code == 0
    grid = grids(json.loads(Path("out/wandb_report.json").read_text()))[1]
    (run_set,) = grid["runSets"]
    theirs: dict[tuple, set] = {}
    for id, one in logs().items():
        # "model.value.a.b" is key a.b of the configuration's entry "model"
        values = tuple(value_at(one["config"], key["name"].replace(".value.", ".", 1)) for key in run_set["grouping"])
        theirs.setdefault(values, set()).add(id)
    ours: dict[str, set] = {}
    for row in csv.DictReader(Path("out/runs.csv").read_text().splitlines()):
        ours.setdefault(row["option.model.adapter.r"], set()).add(row["run"])
    assert sorted(map(sorted, theirs.values())) == sorted(map(sorted, ours.values()))
    assert len(ours) == 2


def test_published_it_is_what_the_dry_run_said_and_the_files_are_there(place, research):
    assert research("report", "runs", "--out", "out", "--wandb", "me/tandem", "--dry-run").code == 0
    local, dry = everything(), json.loads(Path("out/wandb_report.json").read_text())
    stand_in = StandIn(ids())
    with serving(stand_in) as base:
        result = report("--wandb", "me/tandem", "--json", base=base)
        assert result.code == 0, result.err
        assert result.json["wandb"] == f"{base}/me/tandem/reports/{dry['displayName']}--view1"
        assert result.json["artifact"] == "me/tandem/report-tiny:v0"
        again = report("--wandb", base=base)  # the default entity, and the project that runs go to
    assert (again.code, again.out.splitlines()[-2:]) == (0, [result.json["wandb"], result.json["artifact"]]), again.err
    first, second = stand_in.sent("upsertView")
    spec = json.loads(first["spec"])
    for grid in grids({"spec": spec}):
        for run_set in grid["runSets"]:
            assert run_set.pop("project") == {"name": "tandem", "entityName": "me", "id": "7"}
    assert (spec, first["displayName"]) == (dry["spec"], dry["displayName"])
    assert (first["entityName"], first["projectName"], first["id"]) == ("me", "tandem", None)
    assert second["id"] == "view1"  # the same report, not a second one
    assert everything() == local
    # the artifact
    assert {one["input"]["artifactTypeName"] for one in stand_in.sent("CreateArtifact")} == {"report"}
    metadata = json.loads(stand_in.sent("CreateArtifact")[0]["input"]["metadata"])
    assert metadata["run_ids"] == ids()
    assert metadata["command"][:3] == ["research", "report", "runs"]
    provenance = json.loads(Path("runs", ids()[0], "provenance.json").read_text())
    assert [json.loads(one) for one in metadata["data"]] == [provenance["data"]]
    assert {"git_commit", "git_commits"} <= {*metadata}
    uploaded = {name.removeprefix("artifact/"): data for name, data in stand_in.files.items() if name.startswith("artifact/")}
    assert {name: data for name, data in uploaded.items() if name in local} == local
    assert {*uploaded} - {*local} == {"wandb_report.json"}
    # the figures, under the keys of the report's panels
    figures = {key for panel in grids(dry)[0]["panelBankSectionConfig"]["panels"] for key in panel["config"]["mediaKeys"]}
    images = {name for name in stand_in.files if name.startswith("run/media/images/")}
    assert {name.removeprefix("run/media/images/").partition("_0_")[0] for name in images} == figures
    runs = {one["name"] for one in stand_in.sent("UpsertBucket")}
    assert runs == {*grids(dry)[0]["runSets"][0]["filters"]["filters"][0]["value"]}


@pytest.mark.thorough
def test_runs_that_are_not_there_are_counted(place):
    stand_in = StandIn([])
    with serving(stand_in) as base:
        none = report("--wandb", "me/elsewhere", base=base)  # no such project
        stand_in.runs = ids()[1:]
        some = report("--wandb", "me/tandem", base=base)
    assert (none.code, none.out.splitlines()) == (2, ["out/index.html"])  # the local report is said, and there
    assert "4 of 4 runs are not in me/elsewhere" in none.err
    assert "wandb sync -e me -p elsewhere" in none.err
    assert (some.code, f"warning: 1 of 4 runs are not in me/tandem ({ids()[0]})" in some.err) == (0, True), some.err


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("refused", "says", "reports"),
    [
        ("upsertView", "nothing was published: W&B refused the report", 0),
        ("CreateArtifact", "Not published: its artifact and the figures that its panels show", 1),
    ],
)
def test_half_way_the_local_report_stays_and_it_is_said_what_was_published(refused, says, reports, place, research):
    assert research("report", "runs", "--out", "out").code == 0
    local = everything()
    with serving(StandIn(ids(), refuses=(refused,))) as base:
        result = report("--wandb", "me/tandem", base=base)
    assert (result.code, says in result.err) == (2, True), result.err
    assert (f"published: the report {base}/me/tandem/reports" in result.err) == bool(reports)
    assert "The local report in out is whole" in result.err
    assert everything() == local
    assert "Traceback" not in result.err


def test_a_report_that_was_saved_before_the_network_went_is_said_to_be(place):
    class Gone(StandIn):
        def answer(self, operation: str, asked: dict) -> dict:
            if operation == "upsertView":
                self.refuses = ("Viewer",)  # the client asks who it is before every question
            return super().answer(operation, asked)

    with serving(Gone(ids())) as base:
        result = report("--wandb", "me/tandem", base=base)
    assert (result.code, "published: the report (view1)" in result.err) == (2, True), result.err
    assert "Not published: its artifact" in result.err
    assert json.loads(Path("out/wandb_published.json").read_text())["report"] == "view1"


def test_without_a_key_or_a_server_the_local_report_stays(place, research):
    assert research("report", "runs", "--out", "out").code == 0
    local = everything()
    keyless = report("--wandb", WANDB_API_KEY="", NETRC="none")
    assert (keyless.code, "no W&B key was found" in keyless.err) == (2, True), keyless.err
    code = (
        "import sys; from research.cli import main; from research.report.wandb import publish\n"
        "publish.TIMEOUT = 2; sys.exit(main(sys.argv[1:]))"
    )
    env = {"WANDB_MODE": "online", "WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    unreachable = subprocess.run(
        [sys.executable, "-c", code, "report", "runs", "--out", "out", "--wandb"],
        text=True,
        timeout=120,
        capture_output=True,
        check=False,
        env=os.environ | env,
    )
    assert (unreachable.returncode, "cannot be reached" in unreachable.stderr) == (2, True), unreachable.stderr
    assert everything() == local
    disabled = research("report", "runs", "--out", "out", "--wandb")  # the tests' own WANDB_MODE
    assert (disabled.code, "WANDB_MODE=disabled; expected online" in disabled.err) == (2, True), disabled.err


def test_offline_the_files_wait_for_wandb_sync(place):
    result = report("--wandb", WANDB_MODE="offline")
    assert (result.code, "wait in out/wandb for `wandb sync`" in result.err) == (2, True), result.err
    (log,) = Path("out/wandb").glob("offline-run-*/*.wandb")
    kept = [record for record in records(log)]
    (artifact,) = [record.artifact for record in kept if record.HasField("artifact")]
    assert (artifact.type, artifact.name, json.loads(artifact.metadata)["run_ids"]) == ("report", "report-tiny", ids())
    files = {entry.path: Path(entry.local_path).read_bytes() for entry in artifact.manifest.contents}
    local = everything() | {"wandb_report.json": Path("out/wandb_report.json").read_bytes()}
    assert files == local
    (images,) = [{one.key or one.nested_key[0] for one in record.history.item} for record in kept if record.HasField("history")]
    figures = grids(json.loads(local["wandb_report.json"]))[0]["panelBankSectionConfig"]["panels"]
    assert {key for panel in figures for key in panel["config"]["mediaKeys"]} <= images

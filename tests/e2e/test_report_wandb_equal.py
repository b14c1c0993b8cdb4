"""A sweep's report is the same, byte for byte, whether its runs are read from their folders or from W&B's server."""

import json
import shutil
from pathlib import Path

import yaml

from research.runs.curves import read_lines
from research.runs.plan import read_plan
from tests.e2e.test_report_wandb_api import report
from tests.synthetic_runs import write_study
from tests.wandb_server import Server, node

SPEC = """\
metrics: [val/loss, val/rouge_l]
baseline: r=2 lora_alpha=4 lora_dropout=0 lr=0.0001
title: Three factors
"""
CLAIMS = "claims: [r=4 lora_alpha=4 lora_dropout=0 lr=0.0002 beats r=2 lora_alpha=2 lora_dropout=0 lr=0.0001]\n"


def sent(run: Path, number: int, sweep: str) -> dict:
    """What `research fit` sends to W&B of a training in this folder, as the server then holds it."""
    config, facts = (yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "provenance.json").read_text()))
    metrics = json.loads((run / "metrics.json").read_text())
    made_of = {"data": facts["data"], "code": facts["fingerprint"], "base_model": facts["model_hash"]}
    config |= {"made_of": made_of, "sweep": {"name": sweep, "point": facts["point"]}}
    ours = metrics["trained"] | {name: metrics.get(name) for name in ("seconds", "steps", "temperature", "pruned")}
    ours |= {"metrics": [*metrics["metrics"]], "directions": {}, "commit": facts["git_commit"]}
    summary = {f"val/{name}": value for name, value in metrics["metrics"].items()}
    summary |= {"trained_parameters": ours["trained_parameters"]}
    summary |= {"tandem": {name: value for name, value in sorted(ours.items()) if value is not None}}
    lines = [{"_step": line["step"]} | {name: line[name] for name in line if "/" in name} for line in read_lines(run)]
    return node(run.name, config, lines, number=number, summary=dict(sorted(summary.items())), group=sweep)


def test_folders_and_the_server_give_the_same_tables_and_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_study(Path("points"), 36)
    lines = Path("points/plan.jsonl").read_text().splitlines(keepends=True)
    plan = read_plan(Path("points"))
    done = [number for number, one in enumerate(plan) if (Path("points") / one.point / "metrics.json").exists()]
    Path("points/plan.jsonl").write_text("".join(lines[number] for number in done))  # W&B knows no error of a failed one
    assert len(done) == 35
    server = Server([sent(Path("points", plan[number].point), number, "points") for number in done], page=100)
    Path("report.yaml").write_text(SPEC)
    Path("claims.yaml").write_text(CLAIMS)
    try:
        for source in ("points", "wandb:me/proj/points"):
            result = report(server, source, "--spec", "report.yaml", "--claims", "claims.yaml")
            assert result.code == 0, result.err
            shutil.move("out", "folders" if source == "points" else "server")
    finally:
        server.http.shutdown()
    names = {
        path.relative_to("folders").as_posix()
        for path in Path("folders").rglob("*")
        if path.suffix in (".csv", ".tex", ".md", ".svg") or path.name.endswith(".vl.json")
    }
    assert {"runs.csv", "tables/main.csv", "tables/results.tex", "figures/curves.svg", "figures/parallel.vl.json"} < names
    assert [name for name in sorted(names) if not Path("server", name).exists()] == []
    different = [name for name in sorted(names) if Path("server", name).read_bytes() != Path("folders", name).read_bytes()]
    assert different == []

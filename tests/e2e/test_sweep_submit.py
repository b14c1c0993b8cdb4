"""sweep submit as a user types it, without a cluster: what is rendered is run here as the cluster would."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from research.runs.ledger import Ledger
from research.runs.state import is_finished
from tests.e2e.fitting import environment, signalled
from tests.e2e.test_sweep import CONFIG, metrics, place, sweep  # noqa: F401 (a fixture)
from tests.e2e.test_wandb_agent import COMMAND, StandIn, agents_environment, serve  # noqa: F401 (a fixture)
from tests.slow import CALLBACK
from tests.wandb_log import exit_codes

SEEDS = {"seed_everything": {"values": [0, 1, 2, 3]}}
JOB = ("--kubernetes", "--image", "tandem:1", "--claim", "team:/mnt/team")
SLOW = CONFIG.replace("max_steps: 2", "max_steps: 4000\n  max_epochs: -1").replace("out: run\n", "out: run\nsave_every: 50\n")


def events(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "ledger.jsonl").read_text().splitlines()]


def as_kubelet(job: dict, index: int) -> list[str]:
    """The command of a completion index's pod."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "python"
    return [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in container["command"][1:]]


def end(point: str) -> None:
    """As if the point had been pruned."""
    (Path("runs") / point).mkdir(parents=True)
    (Path("runs") / point / "metrics.json").write_text('{"finished": true}')
    Ledger(Path("runs")).append(point, "pruned")


def submitted(research, file: str) -> dict:
    """The Job."""
    return yaml.safe_load(Path(research("sweep", "submit", file, *JOB, "--json").json["file"]).read_text())


def test_the_job_is_written_for_the_points_that_are_left(place, research):  # noqa: F811
    file = sweep(SEEDS)
    points = [one["point"] for one in research("sweep", "plan", file, "--json").json["points"]]
    end(points[1])
    options = (*JOB, "--throttle", 2)
    shown = research("sweep", "submit", file, *options, "--dry-run")
    assert shown.code == 0, shown.err
    assert not Path("runs/submit").exists()
    told = research("sweep", "submit", file, *options, "--json").json
    assert told["apply"] == f"kubectl apply -f {told['file']}"
    assert told["points"] == 3
    assert Path(told["file"]).read_text() == shown.out
    job = yaml.safe_load(shown.out)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 2)
    kept = ["runs/submit/1/sweep.yaml", "--folder", "runs", "--plan", "runs/submit/1/plan.jsonl", "--seed", "0"]
    # paths from the folder that the claim holds, to copies of what was submitted
    assert as_kubelet(job, 2) == ["-m", "research", "sweep", "worker", *kept, "--of", "0,2-3", "--index", "2"]
    copy = Path("runs/submit/1/sweep.yaml").read_text()  # it reads the configuration that the sweep's folder holds
    assert re.sub(r"runs/config/sft-[0-9a-f]+\.yaml", "sft.yaml", copy) == Path(file).read_text()
    assert Path("runs/submit/1/plan.jsonl").read_text() == Path("runs/plan.jsonl").read_text()
    second = research("sweep", "submit", file, *JOB).out
    assert "3 points are in runs/submit/tiny-2.yaml; start: kubectl apply -f runs/submit/tiny-2.yaml" in second


def test_paths_that_pods_cannot_see_are_refused(place, research, tmp_path, monkeypatch):  # noqa: F811
    file = sweep(SEEDS)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    result = research("sweep", "submit", f"../{file}", *JOB)
    assert result.code == 2
    assert "which the claim holds; expected a path that pods can see" in result.err


@pytest.mark.thorough
def test_a_pod_trains_its_point_and_ends_as_the_policy_expects(place, research):  # noqa: F811
    file = sweep(SEEDS)
    points = [one["point"] for one in research("sweep", "plan", file, "--json").json["points"]]
    (Path("runs") / points[3]).write_text("in the way")  # --out is a file: wrong input
    end(points[0])  # is not run again: the completion indices are 0, 1, 2 of points 1, 2, 3
    job = submitted(research, file)
    # what becomes of the sweep's file and its plan does not concern what was submitted
    research("sweep", "plan", sweep({"seed_everything": {"values": [9]}}))

    def pod(index: int) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *as_kubelet(job, index)],
            env=environment(JOB_COMPLETION_INDEX=str(index)),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert job["spec"]["completions"] == 3
    second, third = pod(1), pod(2)
    assert second.returncode == 0, second.stderr
    assert third.returncode == 2, third.stderr  # FailIndex
    assert pod(2).returncode == 2  # and again, were it asked
    assert {event["point"]: event["state"] for event in events("runs")} == {
        points[0]: "pruned",
        points[2]: "done",
        points[3]: "failed",
    }
    assert metrics(Path("runs") / points[2])["finished"]
    beyond = pod(3)
    assert beyond.returncode == 2
    assert "--index 3 --of 1-3: the plan has 4 points" in beyond.stderr


def test_a_pod_that_is_told_to_stop_saves_and_ends_with_85(place, research):  # noqa: F811
    Path("sft.yaml").write_text(SLOW)
    file = sweep({"seed_everything": {"values": [0]}})
    (point,) = [one["point"] for one in research("sweep", "plan", file, "--json").json["points"]]
    argv = as_kubelet(submitted(research, file), 0)
    assert argv[:2] == ["-m", "research"]
    result = signalled(signal.SIGTERM, " ".join(argv[2:]), until=f"runs/{point}/curves.jsonl")
    assert result.code == 85, result.err  # Ignore
    assert [event["state"] for event in events("runs")] == ["running", "preempted"]


TARGET = "me/project/sw"
ENDLESS = {"method": "random"}
BAYES = {"method": "bayes", "metric": {"name": "val/loss", "goal": "minimize"}}
REFUSED = {
    "no image": (("--kubernetes", "--claim", "a:/b"), "--kubernetes without --image"),
    "no claim": (("--kubernetes", "--image", "x"), "--kubernetes without --claim"),
    "claim": (("--kubernetes", "--image", "x", "--claim", "here"), "expected NAME:/path"),
    "failures": ((*JOB, "--max-failed", -1), "--max-failed -1; expected 0 or more"),
    "memory": ((*JOB, "--mem", "much"), "--mem 'much'; expected a number with K, M, G or T"),
    "variable": ((*JOB, "--env", "KEY"), "--env 'KEY'; expected NAME=VALUE"),
    "key": ((*JOB, "--env", "WANDB_API_KEY=abc"), "is a secret by its name"),
    "key in small letters": ((*JOB, "--env", "my_password=abc"), "Put it into a Secret (--secret NAME"),
    "key in an address": ((*JOB, "--env", "HTTPS_PROXY=http://me:mine@host:1"), "has a password in its address"),
    "key before the command": ((*JOB, "--setup", "export HF_TOKEN=abc"), "HF_TOKEN=… is a secret by its name"),
    "key in a script": (("--setup", "export HF_TOKEN='abc'"), "HF_TOKEN=… is a secret by its name"),
    "key in a directive": (("--sbatch=--export=ALL,WANDB_API_KEY=abc",), "WANDB_API_KEY=… is a secret by its name"),
    "line within a partition": (
        ("--partition", "gpu\nrm -rf x"),
        "--partition 'gpu\\nrm -rf x'; expected a value without blanks",
    ),
    "option within an account": (("--account", "me --uid=0"), "expected a value without blanks"),
    "lines of one directive": (("--sbatch=--qos=x\ntouch y",), "expected one option on one line"),
    "no directive": (("--sbatch", "rm x"), "expected one option on one line"),
    "array": (("--sbatch", "--array=0-3"), "--array itself; expected --throttle N"),
    "array by a letter": (("--sbatch=-a 0-3",), "--array itself; expected --throttle N"),
    "array by its beginning": (("--sbatch", "--arr=0-3"), "--array itself; expected --throttle N"),
    "array behind another": (("--sbatch", "--constraint=a100 --array=0"), "--array itself"),
    "nodes by hand": (("--sbatch", "--nodes=2"), "--nodes itself; expected --nodes N"),
    "time twice": (("--time", "1:00", "--sbatch", "-t 2:00"), "--time itself; expected --time 1:00 alone"),
    "hours in words": (("--time", "2h"), "--time '2h'; expected a time as SLURM writes it: minutes, minutes:seconds, hours:"),
    "no time": (("--time", "banana"), "--time 'banana'; expected a time as SLURM writes it"),
    "time of a line": (("--sbatch", "-t90min"), "--sbatch --time '90min'; expected a time as SLURM writes it"),
    "time of the last job": (("--finish-sbatch", "--time 1d"), "days-hours:minutes:seconds. Write 1-0:00:00."),
    "memory in words": (("--mem", "lots"), "--mem 'lots'; expected a whole number with K, M, G or T"),
    "memory as pods have it": (("--mem", "16Gi"), "as SLURM writes it. Write 16G."),
    "memory of a line": (("--sbatch=--mem-per-cpu=1.5G",), "--sbatch --mem-per-cpu '1.5G'"),
    "warning as long as the limit": (("--time", "2:00"), "--time 2:00 is 120 s and --warning 120 s"),
    "warning of agents": (("--wandb", TARGET, "--time", "1:00"), "a task would be told to save when it starts"),
    "warning of a line": (("--sbatch=-t 5", "--warning", 300), "--sbatch --time 5 is 300 s and --warning 300 s"),
    "two nodes of a point of one": (("--nodes", 2), "trains with trainer.num_nodes: 1"),
    "GPUs twice": (("--gpus-per-node", 1, "--sbatch", "--gres=gpu:a100:1"), "--gres itself; expected --gpus-per-node 1 alone"),
    "processors twice": (("--cpus-per-task", 2, "--sbatch", "-c 4"), "expected --cpus-per-task 2 alone"),
    "dependency of the last job": (("--finish-sbatch", "--dependency=afterok:1"), "--dependency itself; expected the array"),
    "last job of agents": (("--wandb", TARGET, "--finish-sbatch", "--time=1"), "--finish-sbatch with --wandb"),
    "partition of pods": ((*JOB, "--partition", "gpu"), "--partition with --kubernetes"),
    "ranks of pods": ((*JOB, "--nodes", 2), "--nodes with --kubernetes"),
    "limit of pods": ((*JOB, "--time", "1:00"), "--time with --kubernetes"),
    "both": ((*JOB, "--wandb", TARGET), "--kubernetes with --wandb me/project/sw; expected one of them"),
    "image on SLURM": (("--image", "x"), "--image with SLURM"),
    "count on SLURM": (("--count", 2), "--count with SLURM"),
    "image of agents": (("--wandb", TARGET, "--image", "x"), "--image with --wandb"),
    "ranks of agents": (
        ("--wandb", TARGET, "--tasks-per-node", 2),
        "--tasks-per-node with --wandb; expected options of --wandb: a trial is one process there",
    ),
    "retry of agents": (("--wandb", TARGET, "--retry"), "--retry with --wandb"),
    "id alone": (("--wandb", "sw"), "--wandb 'sw'; expected ENTITY/PROJECT/SWEEP_ID"),
    "address": (("--wandb", "https://wandb.ai/me/project/sw"), "expected ENTITY/PROJECT/SWEEP_ID"),
    "id with a shell in it": (("--wandb", "me/project/$(x)"), "expected ENTITY/PROJECT/SWEEP_ID"),
    "no trials": (("--wandb", TARGET, "--count", 0), "--count 0; expected 1 to 4"),
    "more than there are": (("--wandb", TARGET, "--count", 5), "--count 5; expected 1 to 4, the trials of sweep.yaml"),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_go_together_are_refused(case, place, research):  # noqa: F811
    options, says = REFUSED[case]
    result = research("sweep", "submit", sweep(SEEDS), "--dry-run", *options)
    assert result.code == 2
    assert says in result.err
    assert result.out == ""
    assert not Path("runs/submit").exists()


@pytest.mark.parametrize("more", [ENDLESS, BAYES], ids=["random", "bayes"])
def test_an_endless_sweep_needs_a_number_of_agents(more, place, research):  # noqa: F811
    file = sweep({"model.optimisation.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}}, **more)
    result = research("sweep", "submit", file, "--wandb", TARGET, "--dry-run")
    assert result.code == 2
    assert f"{more['method']} without run_cap has no end" in result.err
    assert "Pass --count N" in result.err
    result = research("sweep", "submit", file, "--wandb", TARGET, "--dry-run", "--count", 7, "--throttle", 3)
    assert result.code == 0, result.err
    assert "#SBATCH --array=0-6%3\n" in result.out


def test_agents_are_not_submitted_for_points_that_cannot_be_run(place, research):  # noqa: F811
    more = {**BAYES, "run_cap": 3}
    file = sweep({"model.adapter.r": {"distribution": "int_uniform", "min": 0, "max": 4}}, **more)
    result = research("sweep", "submit", file, "--wandb", TARGET, "--dry-run")
    assert result.code == 2
    assert "adapter.r=0; expected 1 or more" in result.err


@pytest.mark.parametrize("name", ["a\nb", 'a"b', "a\x1bb"])
def test_a_folder_that_would_end_its_line_is_refused(name, place, research, monkeypatch):  # noqa: F811
    here = place / name
    here.mkdir()
    monkeypatch.chdir(here)
    Path("s.yaml").write_text("method: grid\nname: s\ncommand: [x, '${args}']\nparameters: {a: {values: [1]}}\n")
    result = research("sweep", "submit", "s.yaml", "--dry-run")
    assert result.code == 2
    assert "which would end the line of the script" in result.err
    assert not Path("runs").exists()


def test_values_of_variables_may_come_from_elsewhere_and_percent_signs_are_text(place, research, monkeypatch):  # noqa: F811
    here = place / "50%j $(x) `y` 'z'"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("s.yaml").write_text("method: grid\nname: s\ncommand: [x, '${args}']\nparameters: {a: {values: [1]}}\n")
    setup = ("--setup", "export HF_TOKEN=$(cat ~/key) WANDB_API_KEY=$KEY", "--setup", "source keys.sh")
    result = research("sweep", "submit", "s.yaml", "--dry-run", *setup, "--sbatch=--export=ALL")
    assert result.code == 0, result.err
    assert "/50%%j $(x) `y` 'z'/runs/sweeps/s/logs/slurm-%A_%a.log\"\n" in result.out
    checked = subprocess.run(["bash", "-n"], input=result.out, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_script_of_agents_is_sound(place, research):  # noqa: F811
    file = sweep(SEEDS)
    options = ("--throttle", 2, "--time", "2:00:00", "--gpus-per-node", 1, "--warning", 60, "--sbatch=--qos=x")
    result = research("sweep", "submit", file, "--wandb", "me/my project/sw", "--dry-run", *options, "--setup", "true")
    assert result.code == 0, result.err
    head = ("array=0-3%2", "time=2:00:00", "gres=gpu:1", "qos=x", "requeue", "signal=B:USR1@60")
    for line in (
        *(f"#SBATCH --{option}\n" for option in head),
        "\ntrue\n",
        "target='me/my project/sw'\n",
        '-m wandb agent --count 1 --forward-signals "$target")\n',
    ):
        assert line in result.out, line
    checked = subprocess.run(["bash", "-n"], input=result.out, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert re.findall(r"@\w+@", result.out) == []
    assert not Path("runs/submit").exists()


@pytest.mark.thorough
def test_a_task_that_is_stopped_goes_on_with_its_trial(place, research, serve, tmp_path):  # noqa: F811
    """The script of a task, run by bash as SLURM would; `scontrol` writes down what it is asked."""
    Path("sft.yaml").write_text(SLOW.replace("max_steps: 4000", f"max_steps: 30{CALLBACK}").replace("disabled", "offline"))
    file = sweep({"seed_everything": {"values": [7]}}, command=COMMAND)
    (point,) = [one["point"] for one in research("sweep", "plan", file, "--json").json["points"]]
    for name, text in (("scontrol", 'echo "$@" >> "$SCONTROL_LOG"'), ("sbatch", "echo 71")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    variables = agents_environment(serve(StandIn(Path(file)))) | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SCONTROL_LOG": str(tmp_path / "asked"),
        "SLURM_ARRAY_JOB_ID": "71",
        "SLURM_ARRAY_TASK_ID": "0",
        "TANDEM_CACHE": "cache",
    }
    told = subprocess.run(
        [sys.executable, "-m", "research", "sweep", "submit", file, "--wandb", TARGET, "--json"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert json.loads(told.stdout)["trials"] == 1, told.stderr
    script = "agent/submit/agents-sw.sh"
    Path(file).write_text("changed: since")  # a trial goes on by the copy
    started = time.monotonic()
    with open("first.log", "w") as log:
        task = subprocess.Popen(["bash", script], env=variables, stdout=log, stderr=log)
    curves = Path(f"agent/{point}/curves.jsonl")
    while not (curves.exists() and "train/loss" in curves.read_text()):
        assert task.poll() is None, Path("first.log").read_text()
        assert time.monotonic() - started < 120, Path("first.log").read_text()
        time.sleep(0.05)
    task.send_signal(signal.SIGUSR1)  # as SLURM does before the time limit
    assert task.wait(60) == 0, Path("first.log").read_text()
    assert (tmp_path / "asked").read_text().splitlines().count("requeue 71_0") == 1
    assert "the same command goes on from step-" in Path("first.log").read_text()
    run = Path("agent") / point
    assert not is_finished(run), "it was too quick to be stopped"
    again = subprocess.run(
        ["bash", script], env=variables | {"SLURM_RESTART_COUNT": "1"}, capture_output=True, text=True, timeout=200, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "going on from" in again.stdout + again.stderr
    assert (tmp_path / "asked").read_text().splitlines().count("requeue 71_0") == 1  # it has ended: not asked again
    assert metrics(run)["finished"]
    assert json.loads((run / "wandb.json").read_text())["id"] == "server0"
    logs = sorted(run.glob("wandb/offline-run-*-server0/*.wandb"))  # both processes are the server's one run
    assert [exit_codes(log) for log in logs] == [[85], [0]]  # failed, then finished
    steps = [json.loads(line)["step"] for line in curves.read_text().splitlines() if "train/loss" in line]
    assert steps == list(range(1, 31))


def test_a_trial_that_is_none_is_refused(place, research):  # noqa: F811
    file = sweep(SEEDS)
    result = research("sweep", "trial", file, "--folder", "nowhere", "--wandb", TARGET)
    assert result.code == 2
    assert "nowhere holds no trial of sw" in result.err
    folder = Path("task/wandb/sweep-sw")
    folder.mkdir(parents=True)
    (folder / "config-abc.yaml").write_text("wandb_version: 1\n\nmodel.adapter.r:\n  value: 4\n")
    result = research("sweep", "trial", file, "--folder", "task", "--wandb", TARGET)
    assert result.code == 2
    assert "differ in model.adapter.r, seed_everything" in result.err


def test_points_beyond_the_cluster_s_arrays_are_counted_anew_or_refused(place, research, tmp_path, monkeypatch):  # noqa: F811
    """SLURM's MaxArraySize bounds the number of a task, and with it how many there are."""
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "bin/scontrol"
    asked.write_text('#!/bin/sh\necho "MaxArrayTasks = 9"\necho "MaxArraySize            = 3"\n')
    asked.chmod(0o755)
    monkeypatch.setenv("PATH", f"{asked.parent}:{os.environ['PATH']}")
    text = "method: grid\nname: s\ncommand: [sh, -c, 'echo $0 >> said.txt', '${args_no_hyphens}']\n"
    Path("s.yaml").write_text(text + "parameters: {a: {values: [0, 1, 2, 3, 4]}}\n")
    result = research("sweep", "submit", "s.yaml", "--dry-run")
    assert result.code == 2
    assert "are 5 tasks, and an array has 3 at most" in result.err
    assert not Path("runs/sweeps/s/submit").exists()
    Path("s.yaml").write_text("run_cap: 3\n" + Path("s.yaml").read_text())  # the cure
    assert "#SBATCH --array=0-2\n" in research("sweep", "submit", "s.yaml", "--dry-run").out
    assert research("sweep", "worker", "s.yaml").code == 0
    Path("s.yaml").write_text(Path("s.yaml").read_text().replace("run_cap: 3\n", ""))
    script = research("sweep", "submit", "s.yaml", "--dry-run").out
    assert "#SBATCH --array=0-1\n" in script
    assert research("sweep", "plan", "s.yaml").code == 0
    words = re.search(r"--of (\S+)\n  --index", script)
    assert research("sweep", "worker", "s.yaml", "--of", words[1], "--index", "1").code == 0
    assert Path("said.txt").read_text().split() == ["a=0", "a=1", "a=2", "a=4"]


@pytest.mark.parametrize("more", ["early_terminate: {type: hyperband, min_iter: 1}\n", ""])
def test_what_the_metric_decides_can_be_left_to_w_and_b_s_agents(more, place, research):  # noqa: F811
    """As the refusal of another program says that `run` cannot look at while it runs."""
    target = "" if more else ", target: 0.1"
    Path("s.yaml").write_text(
        "method: grid\nname: s\nprogram: t.py\nparameters: {a: {values: [1, 2]}}\n"
        f"metric: {{name: val/loss{target}}}\n{more}"
    )
    result = research("sweep", "run", "s.yaml")
    assert (result.code, "leave them to W&B's agents" in result.err) == (2, True)
    result = research("sweep", "submit", "s.yaml", "--wandb", TARGET, "--dry-run")  # the cure
    assert result.code == 0, result.err
    assert "#SBATCH --array=0-1\n" in result.out


def split(scripts: str) -> tuple[str, str]:
    """The script of the array, and that of the job after it."""
    first, second = (f"#!/bin/bash{text}" for text in scripts.split("#!/bin/bash")[1:])
    return first, second


def test_the_last_job_asks_for_no_gpu_and_has_a_time(place, research):  # noqa: F811
    options = "--partition gpu --gpus-per-node 2 --cpus-per-task 8 --mem 64G --qos long --account me --time 9:00:00".split()
    lines = ("--sbatch", "--constraint=a100", "--sbatch", "--exclude=n[1-2]")
    array, last = split(research("sweep", "submit", sweep(SEEDS), "--dry-run", *options, *lines).out)
    asked = "partition=gpu gres=gpu:2 cpus-per-task=8 mem=64G qos=long account=me time=9:00:00 constraint=a100 exclude=n[1-2]"
    for option in asked.split():
        assert f"#SBATCH --{option}\n" in array
    own = [line for line in last.splitlines() if line.startswith("#SBATCH")]
    assert own[4:] == [
        f"#SBATCH --{option}" for option in ("time=30:00", "nodes=1", "ntasks=1", "cpus-per-task=1", "account=me")
    ]
    last_lines = ("--finish-sbatch", "--partition=cpu", "--finish-sbatch", "-t 1:00:00")
    array, last = split(research("sweep", "submit", sweep(SEEDS), "--dry-run", *options, *last_lines).out)
    assert "cpu\n" not in array
    assert "#SBATCH --partition=cpu\n#SBATCH -t 1:00:00\n" in last
    assert "--time=" not in re.sub("(?m)^options=.*", "", last)


def test_scripts_can_be_read(place, research):  # noqa: F811
    """Every name between @ signs is filled in, no line is long, and bash takes them."""
    Path("sft.yaml").write_text(f"{CONFIG}  num_nodes: 2\n")
    shown = research("sweep", "submit", sweep(SEEDS), "--dry-run", "--setup", "module load cuda", "--nodes", 2).out
    Path("sft.yaml").write_text(CONFIG)
    shown += research("sweep", "submit", sweep(SEEDS), "--dry-run", "--wandb", TARGET).out
    assert re.findall(r"@\w+@", shown) == []
    wordy = [line for line in shown.splitlines() if len(line) > 100 and not re.match(r"\w+=|#SBATCH --output", line)]
    assert wordy == []
    assert f"\ncd {place} || exit 1\nmodule load cuda\n" in shown
    assert "\n\n\n" not in shown.replace("\n\n#!", "")
    checked = subprocess.run(["bash", "-n"], input=shown, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_array_whose_last_job_is_refused_is_taken_back(place, research, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "bin").mkdir()
    refuse = 'case "$2" in *finish*) echo "no default partition" >&2; exit 1;; esac; echo 71'
    for name, text in (("sbatch", refuse), ("scontrol", "true"), ("scancel", 'echo "$@" >> cancelled')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    result = research("sweep", "submit", sweep(SEEDS))
    assert result.code == 2
    assert "no default partition" in result.err
    assert "--finish-sbatch=--partition=NAME" in result.err
    assert Path("cancelled").read_text() == "71\n"


def cluster_of(folder: Path, monkeypatch, **programs: str) -> None:
    """Put stand-ins of SLURM's commands on the PATH: name → shell text."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in ({"sbatch": "echo 71", "scontrol": "true", "squeue": "true", "scancel": "true"} | programs).items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


COUNTS = "echo x >> said; wc -l < said"  # 1, 2, 3, … as sbatch numbers jobs
FOREIGN = "method: grid\nname: s\ncommand: [x, '${args}']\nparameters: {a: {values: [0, 1, 2]}}\n"


def test_points_that_are_queued_are_not_submitted_again(place, research, tmp_path, monkeypatch):  # noqa: F811
    """Array 1 has three tasks; whatever else the queue holds, tasks of other names are others'."""
    Path("s.yaml").write_text(FOREIGN)
    queue = "1 0 PENDING s|1 1 RUNNING s|1 2 COMPLETING s|9 0 PENDING s|1 2 PENDING other"
    cluster_of(tmp_path, monkeypatch, sbatch=COUNTS, squeue=f"echo '{queue}' | tr '|' '\\n'")
    first = research("sweep", "submit", "s.yaml", "--json")
    assert (first.code, first.json["array"], first.json["points"], first.json["queued"]) == (0, "1", 3, 0), first.err
    second = research("sweep", "submit", "s.yaml", "--dry-run")
    assert "2 points are queued in array 1 already, and left out" in second.err
    assert "#SBATCH --array=2\n" in second.out
    second = research("sweep", "submit", "s.yaml")
    assert second.out.startswith("1 point is array 3; job 4 follows it")
    assert "`scancel 3 4` ends them" in second.out
    cluster_of(tmp_path, monkeypatch, sbatch=COUNTS, squeue="echo 1 0 PENDING s; echo 1 1 RUNNING s; echo 3 2 PENDING s")
    third = research("sweep", "submit", "s.yaml")
    assert (third.code, third.out) == (0, "3 points are queued in array 1, 3 already; nothing to submit\n")
    assert research("sweep", "submit", "s.yaml", "--json").json == {"points": 0, "queued": 3, "out": third_out()}
    assert [path.name for path in sorted(Path("runs/sweeps/s/submit").iterdir())] == ["1", "2"]


def third_out() -> str:
    return str(Path("runs/sweeps/s").resolve())


NO_CONTROLLER = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
NO_CONFIGURATION = "sbatch: fatal: Could not establish a configuration source"


@pytest.mark.parametrize("agents", [(), ("--wandb", TARGET)], ids=["points", "agents"])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (NO_CONTROLLER, "SLURM does not answer (sbatch: error: Batch job submission failed: Unable to contact"),
        (NO_CONFIGURATION, "type the command again when it says UP"),
        ("sbatch: error: invalid partition specified: x", "expected a job that this cluster takes. Correct the options"),
    ],
)
def test_what_slurm_refuses_leaves_nothing(error, says, agents, place, research, tmp_path, monkeypatch):  # noqa: F811
    Path("s.yaml").write_text(FOREIGN)
    cluster_of(tmp_path, monkeypatch, sbatch=f"echo '{error}' >&2; exit 1")
    result = research("sweep", "submit", "s.yaml", *agents)
    assert (result.code, says in result.err) == (2, True), result.err
    assert [path.name for path in Path("runs/sweeps/s").glob("*") if path.is_dir()] == []
    cluster_of(tmp_path, monkeypatch)
    assert research("sweep", "submit", "s.yaml", *agents).code == 0


def test_a_dry_run_in_json_is_one_line_with_the_scripts(place, research):  # noqa: F811
    for options, scripts in (((), ["array", "finish"]), (("--wandb", TARGET), ["array"]), (JOB, ["job"])):
        file = sweep(SEEDS)
        text = research("sweep", "submit", file, "--dry-run", *options).out
        told = research("sweep", "submit", file, "--dry-run", "--json", *options).json
        assert "\n".join(told["scripts"].values()).strip() == text.strip()
        assert [*told["scripts"]] == scripts
        assert told.get("points", told.get("trials")) == 4
        assert told["out"].endswith("runs")
    assert not Path("runs/submit").exists()


def test_cancelled_tasks_are_not_submitted_again(place, research, tmp_path, monkeypatch):  # noqa: F811
    """Task 1 of array 1 was cancelled, as `squeue` says, or the accounting alone; the other two are missing."""
    for name, programs in (
        ("squeue", {"squeue": 'case "$*" in *CANCELLED*) echo 1;; esac'}),
        ("sacct", {"sacct": "echo '1_0|FAILED'; echo '1_[1]|CANCELLED by 0'"}),
    ):
        text = FOREIGN.replace("name: s", f"name: {name}")
        Path("s.yaml").write_text(text)
        Path("said").unlink(missing_ok=True)
        cluster_of(tmp_path, monkeypatch, sbatch=COUNTS, **programs)
        assert research("sweep", "submit", "s.yaml", "--json").json["array"] == "1"
        folder = Path("runs/sweeps") / name
        script = (folder / "submit/1/finish-1.sh").read_text()
        assert "--array 1 " in script
        options = ("--folder", folder, "--plan", folder / "submit/1/plan.jsonl", "--round", 1, "--options", "{}")
        result = research("sweep", "finish", folder / "submit/1/s.yaml", *options, "--array", "1")
        assert "1 task of array 1 was cancelled: not submitted again" in result.err
        assert "2 of 3 points are missing: submitted again as array 3" in result.err
        assert "#SBATCH --array=0,2\n" in (folder / "submit/1/array-2.sh").read_text()


def test_a_task_that_is_told_before_it_listens_is_not_requeued_for_ever(place, research, tmp_path, monkeypatch):  # noqa: F811
    """As of a limit that is over while Python starts: three requeues, then its signal's code; a stop that saved counts anew."""
    Path("s.yaml").write_text(FOREIGN)
    cluster_of(
        tmp_path, monkeypatch, scontrol="exit 0", deaf="trap 'exit $(cat code)' USR1; sleep 0.5; kill -USR1 $PPID; sleep 1"
    )
    text = research("sweep", "submit", "s.yaml", "--dry-run").out.split("#!/bin/bash")[1]
    Path("task.sh").write_text(re.sub(r"(?m)^python=.*", "python=deaf", f"#!/bin/bash{text}"))
    Path("runs/sweeps/s/logs").mkdir(parents=True)
    env = os.environ | {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "0", "SLURM_RESTART_COUNT": "50"}
    ends = []
    for code in (138, 138, 85, 138, 138, 138, 138):
        Path("code").write_text(str(code))
        ends.append(subprocess.run(["bash", "task.sh"], env=env, capture_output=True, timeout=60, check=False).returncode)
    assert ends == [0, 0, 0, 0, 0, 0, 138]

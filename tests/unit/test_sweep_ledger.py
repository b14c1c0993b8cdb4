"""The ledger under many writers, torn lines and kills; a point is run once."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research.runs.ledger import ATTEMPTS, Ledger, should_run
from research.runs.plan import PlannedPoint, write_plan
from research.sweeps.process import stoppable
from research.sweeps.worker import run_point, work


def append_many(folder: str, who: int) -> None:
    for i in range(50):
        Ledger(Path(folder)).append(f"p{who}", "running", attempt=i, text="x" * 300)


def test_lines_of_many_writers_are_whole(tmp_path):
    writers = [multiprocessing.Process(target=append_many, args=(str(tmp_path), i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = Ledger(tmp_path).events()
    assert len(events) == 200
    for i in range(4):  # each one's in its order
        assert [e["attempt"] for e in events if e["point"] == f"p{i}"] == list(range(50))


def test_a_torn_line_loses_itself_alone(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("a", "running")
    ledger.append("a", "done")
    with open(ledger.path, "ab") as stream:
        stream.write(b'{"point": "b", "sta')
    assert ledger.standings(["a", "b"])["a"].state == "done"
    ledger.append("b", "running")
    assert [event["point"] for event in ledger.events()] == ["a", "a", "b"]


def test_running_without_a_claim_was_killed(tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.claim("a") as mine:
        assert mine
        ledger.append("a", "running")
        assert ledger.standings(["a"])["a"].state == "running"
        with Ledger(tmp_path).claim("a") as second:
            assert not second
    assert ledger.standings(["a"])["a"].state == "killed"


def ask(folder: str, stop) -> None:
    ledger = Ledger(Path(folder))
    while not stop.is_set():
        ledger.is_claimed("a")


def test_who_asks_for_a_claim_takes_it_from_nobody(tmp_path):
    """Asking holds the lock for a moment: a worker whose claim fell into it left its point alone."""
    ledger, stop = Ledger(tmp_path), multiprocessing.Event()
    with ledger.claim("a"):
        pass
    askers = [multiprocessing.Process(target=ask, args=(str(tmp_path), stop)) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(2000):
            with ledger.claim("a") as mine:
                assert mine
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def planned(point: str, argv: list[str]) -> PlannedPoint:
    return PlannedPoint(point, {}, argv, {})


def fail(_argv: list[str]) -> int:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(
    ("run", "attempts", "state", "error"),
    [
        (lambda argv: 0, 1, "done", None),
        (fail, ATTEMPTS, "failed", "ZeroDivisionError: a bug"),
        (lambda argv: 2, 1, "failed", "$ research fit"),
        (lambda argv: 85, 1, "preempted", "$ research fit"),
        (lambda argv: 3, 1, "diverged", "$ research fit"),
    ],
)
def test_a_crash_is_tried_again_and_wrong_input_is_not(run, attempts, state, error, tmp_path):
    ledger = Ledger(tmp_path)
    work(ledger, [planned("a", ["research", "fit"])], run, {})
    standing = ledger.standings(["a"])["a"]
    assert (standing.state, standing.attempts) == (state, attempts)
    assert standing.last.get("error") == error
    work(ledger, [planned("a", ["research", "fit"])], run, {})
    assert ledger.standings(["a"])["a"].attempts == attempts + (state == "preempted")
    ledger.append("a", "missing")  # the user asks for it
    run_point(ledger, planned("a", ["research", "fit"]), lambda argv: 0, {})
    assert ledger.standings(["a"])["a"].state == "done"


def reached(folder: Path, step: int) -> None:
    """As if a checkpoint of this step were there."""
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a/checkpoints.json").write_text(json.dumps([{"file": "x", "step": step, "sha256": "x"}] if step else []))


@pytest.mark.parametrize("kills", [False, True], ids=["told", "killed"])
def test_a_task_that_gets_nowhere_is_not_requeued_for_ever(kills, tmp_path):
    """Steps of the checkpoints that starts leave behind: 7 starts get further or are too few, then three get nowhere."""
    ledger, point, steps = Ledger(tmp_path), planned("a", ["research", "fit"]), iter([0, 0, 5, 5, 5, 6, 7, 7, 7, 7, 9])

    def task(argv: list[str]) -> int:
        reached(tmp_path, next(steps))
        if kills:
            raise SystemError  # nothing is noted of this start
        return 85

    def starts(count: int) -> list[int | None]:
        codes = []
        for _ in range(count):
            try:
                codes.append(work(ledger, [point], task, {}, requeues=True))
            except SystemError:
                codes.append(85)
        return codes

    reached(tmp_path, 0)
    if kills:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("research.sweeps.worker.run_command", lambda argv, shown, log, run, *_: (run(argv), ""))
            starts(10)
            assert starts(1) == [0]
    else:
        assert starts(10) == [85] * 10
        assert starts(1) == [0]
    standing = ledger.standings(["a"])["a"]
    assert (standing.state, standing.attempts, standing.last["code"]) == ("failed", 10, 2)
    assert "begun 3 times at step 7 and stopped each time before its next checkpoint" in standing.last["error"]
    assert "--retry" in standing.last["error"]
    assert not should_run(standing)
    assert next(steps) == 9  # the eleventh start trains nothing
    ledger.append("a", "missing")  # --retry
    assert work(ledger, [point], lambda argv: 0, {}, requeues=True) == 0
    assert ledger.standings(["a"])["a"].state == "done"


def test_who_stops_a_sweep_of_this_machine_often_may_go_on(tmp_path):
    for _ in range(5):
        assert work(Ledger(tmp_path), [planned("a", ["research", "fit"])], lambda argv: 130, {}) == 85
    assert Ledger(tmp_path).standings(["a"])["a"].state == "preempted"


def test_a_signal_before_the_start_counts_against_a_task(tmp_path):
    """As in a worker of a cluster that is told to stop while torch is loaded."""
    reached(tmp_path, 0)
    with stoppable():
        signal.raise_signal(signal.SIGUSR1)
        codes = [work(Ledger(tmp_path), [planned("a", ["research", "fit"])], fail, {}, requeues=True) for _ in range(5)]
    assert codes == [85] * 3 + [0] * 2  # the end of it is no reason for another start, stopped as it is
    assert [event["state"] for event in Ledger(tmp_path).events()] == ["running", "preempted"] * 3 + ["failed"]


def test_a_point_sees_its_own_variables_and_leaves_none(tmp_path):
    seen = []

    def run(argv: list[str]) -> int:
        seen.append((argv, os.environ["TANDEM_SWEEP"], os.environ["TANDEM_POINT"], os.environ.get("LEFT")))
        os.environ["LEFT"] = "behind"
        return 0

    points = [planned(name, ["research", "fit", "--out", "x/{point}"]) for name in ("a", "b")]
    work(Ledger(tmp_path), points, run, {"TANDEM_SWEEP": "s"})
    assert seen == [(["fit", "--out", f"x/{name}"], "s", name, None) for name in ("a", "b")]
    assert "LEFT" not in os.environ


def test_a_foreign_command_has_its_output_and_its_failure_noted(tmp_path):
    ledger = Ledger(tmp_path)
    speaks = planned("a", ["sh", "-c", "echo hello; echo no such thing >&2; exit 3"])
    work(ledger, [speaks, planned("b", ["nowhere-to-be-found"])], lambda argv: 0, {})
    standings = ledger.standings(["a", "b"])
    assert standings["a"].last["error"] == "no such thing"
    assert standings["a"].last["code"] == 3
    assert "hello" in (tmp_path / "logs/a.log").read_text()
    assert standings["b"].last["code"] == 2
    assert "cannot be started" in standings["b"].last["error"]


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ("exit 143", "preempted"),
        ("exit 138", "preempted"),
        ("exit 130", "preempted"),
        ("kill -TERM $$", "preempted"),
        ("exit 137", "failed"),
        ("exit 129", "failed"),
        ("exit 3", "failed"),
        ("kill -SEGV $$", "failed"),
        ("exit 0", "done"),
    ],
)
def test_a_foreign_command_ends_as_posix_says(end, state, tmp_path):
    """128 + n: a shell or a container tells that what it ran got signal n. SIGTERM, SIGUSR1 and SIGINT are a preemption."""
    ledger = Ledger(tmp_path)
    run_point(ledger, planned("a", ["sh", "-c", end]), lambda argv: 0, {})
    assert ledger.standings(["a"])["a"].state == state


def test_what_a_command_says_last_moves_no_terminal(tmp_path):
    ledger = Ledger(tmp_path)
    run_point(ledger, planned("a", ["sh", "-c", r"printf '\033[31mno\000 \033]0;title\007such\n\033[0m\n'; exit 1"]), int, {})
    assert ledger.standings(["a"])["a"].last["error"] == "no ]0;titlesuch"


def test_events_of_other_programs_and_versions_are_read_as_far_as_they_go(tmp_path):
    ledger = Ledger(tmp_path)
    odd = {"seconds": "x", "value": [1], "code": "1", "error": {"a": 1}, "pid": True}
    lines = [
        json.dumps({"point": "a", "state": "done", **odd}),
        json.dumps({"point": "b", "state": "flying"}),
        "[1]",
        "\0\0",
        json.dumps({"point": ["a"], "state": "failed"}),
        '{"point": "a", "sta',
    ]
    ledger.path.write_text("\n".join(lines))
    standings = ledger.standings(["a", "b"])
    assert {name: one.state for name, one in standings.items()} == {"a": "done", "b": "missing"}
    assert standings["a"].last == {"point": "a", "state": "done"}
    assert work(ledger, [planned(name, ["true"]) for name in "ab"], int, {}) == 0
    assert [(event["point"], event["state"]) for event in ledger.events()[2:]] == [("b", "running"), ("b", "done")]


WORKER = """
import sys
from pathlib import Path
from research.runs.ledger import Ledger
from research.runs.plan import read_plan
from research.sweeps.worker import work
folder = Path(sys.argv[1])
sys.exit(work(Ledger(folder), read_plan(folder), lambda argv: 0, {}))
"""


def test_fifty_kills_lose_no_point_and_run_none_twice(tmp_path):
    """Workers are killed at random moments, some while they run a command, some while they write."""
    import random

    draw = random.Random(0)
    script = "echo begin >> {0}.txt; sleep 0.02; echo end >> {0}.txt"
    points = [planned(f"p{i:02d}", ["sh", "-c", script.format(tmp_path / f"p{i:02d}")]) for i in range(60)]
    write_plan(tmp_path, points)
    ledger = Ledger(tmp_path)

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    workers = [start() for _ in range(3)]
    for _ in range(50):
        time.sleep(draw.uniform(0.02, 0.25))
        victim = draw.randrange(3)
        workers[victim].send_signal(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        workers[victim].wait()
        workers[victim] = start()
    for _ in range(20):
        for worker in workers:
            worker.wait(timeout=60)
        if all(s.state == "done" for s in ledger.standings([p.point for p in points]).values()):
            break
        workers = [start() for _ in range(3)]
    events = ledger.events()
    for one in points:
        mine = [event["state"] for event in events if event["point"] == one.point]
        assert mine.count("done") == 1, mine
        assert mine[-1] == "done"
        text = (tmp_path / f"{one.point}.txt").read_text().split()
        assert text.count("end") == 1 or mine.count("running") > 1  # ended once, or killed between its end and its note
        assert text[-1] == "end"
    assert sum(event["state"] == "running" for event in events) > 60  # some were killed
    for line in ledger.path.read_text().splitlines():
        json.loads(line)


def test_a_full_disk_ends_no_point_and_no_worker(tmp_path, monkeypatch, capsys):
    """The log and the ledger's last line find no room: the command goes on, and so does the worker."""
    import errno

    ledger, said = Ledger(tmp_path), []
    append, full = Ledger.append, OSError(errno.ENOSPC, "No space left on device")

    def refuse(self, point: str, state: str, **more) -> None:
        if state == "done" and point == "a":
            raise full
        append(self, point, state, **more)

    def speak(argv: list[str]) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(sys.stderr.stream, "write", lambda text: (_ for _ in ()).throw(full), raising=False)
            print("hello", file=sys.stderr, flush=True)
        said.append(argv)
        return 0

    monkeypatch.setattr(Ledger, "append", refuse)
    points = [planned(name, ["research", "fit", name]) for name in ("a", "b")]
    monkeypatch.setattr("research.sweeps.process.open", lambda *a, **k: Stream(*a, **k), raising=False)
    assert work(ledger, points, speak, {}) == 0
    assert said == [["fit", "a"], ["fit", "b"]]
    assert "does not take what became of a (No space left on device)" in capsys.readouterr().err
    assert [s.state for s in ledger.standings(["a", "b"]).values()] == ["killed", "done"]


class Stream:
    """A file whose write can be replaced."""

    def __init__(self, *args, **more):
        self.file = open(*args, **more)

    def write(self, text: str) -> int:
        return self.file.write(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name: str):
        return getattr(self.file, name)


RUNNER = ("-m", "research", "sweep", "run", "s.yaml", "--workers", "3")


@pytest.mark.thorough
def test_fifty_kills_of_workers_and_runner_leave_a_right_ledger(tmp_path, monkeypatch):
    """`sweep run` itself, and the workers that it starts, are killed at random moments; another `sweep run` goes on."""
    import random

    import yaml

    monkeypatch.chdir(tmp_path)
    script = "echo begin >> $0.txt; sleep 0.05; echo end >> $0.txt"  # $0: the first argument after the script
    value = {
        "method": "grid",
        "name": "s",
        "command": ["sh", "-c", script, "${args_no_hyphens}"],
        "parameters": {"p": {"values": list(range(150))}},
    }
    Path("s.yaml").write_text(yaml.safe_dump(value))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    draw = random.Random(0)

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *RUNNER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )

    def workers() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if b"worker" in words and (path / "cwd").resolve() == tmp_path:
                    found.append(int(path.name))
        return found

    runner, kills, runners = start(), 0, 0
    while kills < 50:
        time.sleep(draw.uniform(0.05, 0.4))
        if runner.poll() is not None:
            runner = start()
        alive = workers()
        if not alive:
            continue
        with contextlib.suppress(ProcessLookupError):
            victim = draw.choice([runner.pid, *alive])
            os.kill(victim, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            kills += 1
            if victim == runner.pid:
                runner.wait(30)
                runner, runners = start(), runners + 1
    runner.wait(120)
    final = subprocess.run(
        [sys.executable, *RUNNER, "--json"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert json.loads(final.stdout)["states"] == {"done": 150}, final.stderr
    assert runners > 3
    events = Ledger(Path("runs/sweeps/s")).events()
    for point in {event["point"] for event in events}:
        mine = [event["state"] for event in events if event["point"] == point]
        assert mine.count("done") == 1, mine
        assert mine[-1] == "done"
    for path in Path().glob("p=*.txt"):
        text = path.read_text().split()
        assert text[-1] == "end"
    assert len(list(Path().glob("p=*.txt"))) == 150
    for line in Path("runs/sweeps/s/ledger.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_stop_while_a_point_is_proposed_begins_none(tmp_path):
    def proposed():
        os.kill(os.getpid(), signal.SIGTERM)
        yield planned("a", ["research", "fit"])

    assert work(Ledger(tmp_path), proposed(), lambda argv: 0, {}) == 85
    assert Ledger(tmp_path).events() == []


@pytest.mark.parametrize("script", ["trap 'exit 143' TERM; sleep 30 & wait", "trap 'exit 1' TERM; sleep 30 & wait", "sleep 30"])
def test_a_foreign_command_that_is_told_to_stop_is_preempted_with_all_that_it_started(script, tmp_path):
    """Whatever its exit code, it has not crashed; and its children are gone when another worker may begin."""
    write_plan(tmp_path, [planned("a", ["bash", "-c", f"echo begun; {script}"])])
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)])
    limit = time.monotonic() + 30
    log = tmp_path / "logs/a.log"
    while time.monotonic() < limit and not (log.exists() and "\nbegun" in log.read_text()):
        time.sleep(0.05)
    group = next(int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path) == worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 85
    assert [event["state"] for event in Ledger(tmp_path).events()] == ["running", "preempted"]
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def _parent(process: Path) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return -1

"""Run a quickstart on the embedded data and models: plan it, run each step as a command, report progress, print results."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.errors import WRONG_INPUT
from research.progress import say
from research.quickstart.plan import FULL, Speed, choose, estimate, left_out, shrink
from research.quickstart.results import print_results
from research.quickstart.state import FILE, State, option, read_state
from research.quickstart.steps import STEPS, Names, argv, reason, text

SLOWER_FROM = 1.15  # times as long as estimated: from here on later steps shrink


class Road(NamedTuple):
    """What a quickstart is asked for.

    Attributes:
        out: its folder.
        minutes: to fit into; None for the whole road.
        started: time.perf_counter() when the command began.
        command: runs the arguments of a `research` command; its exit code.
        names: precision → what stands in the commands.
    """

    out: Path
    minutes: float | None
    started: float
    command: Callable[[list[str]], int]
    names: Callable[[str], Names]


def run_road(road: Road, measure: Callable[[], Speed]) -> int:
    """Run every step that is not finished, and return the exit code.

    Raises:
        UserError: the folder holds a quickstart of another size.
    """
    state = read_state(road.out, road.minutes, option(road.minutes))
    fresh = state is None
    if state is None:
        speed = measure()
        plan = FULL if road.minutes is None else choose(60 * road.minutes - (time.perf_counter() - road.started), speed)
        state = State(road.minutes, speed, plan, {}, {}, {})
    names = road.names(state.speed.precision)
    _say_plan(state, road)
    steps = [name for name in estimate(state.plan, state.speed) if name in STEPS]
    before = sum(state.seconds.values())  # of earlier processes
    changed = False  # whether a step has run: then all later steps run too
    for number, name in enumerate(steps, 1):
        clock = before + time.perf_counter() - road.started
        state, remaining = _resized(state, name, steps[number - 1 :], clock)
        sizes = state.sizes[name]
        place = f"\n[{number}/{len(steps)}] {_clock(clock)} of about {_clock(clock + remaining)}, {_clock(remaining)} left"
        if name in state.seconds and not changed and (road.out / STEPS[name].result).exists():
            say(f"{place}: {STEPS[name].title}: finished before")
            continue
        say(f"{place}: {reason(name, sizes)}\n$ {text(name, sizes, names)}")
        state.write(road.out)
        clocks = time.perf_counter(), time.process_time()
        code = road.command(argv(name, sizes, names))
        if code:
            if fresh and not state.seconds and code == WRONG_INPUT:  # nothing has begun
                (road.out / FILE).unlink(missing_ok=True)
            return code
        changed = True
        taken = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
        state = state._replace(
            seconds=state.seconds | {name: round(taken[0], 1)}, cpu_seconds=state.cpu_seconds | {name: round(taken[1], 1)}
        )
        state.write(road.out)
    print_results(road.out, state)
    minutes = (before + time.perf_counter() - road.started) / 60
    say(f"\n{minutes:.1f} minutes, {sum(state.cpu_seconds.values()) / 60:.1f} of CPU time; open {road.out}/report/index.html")
    _say_next(road.out)
    return 0


def _say_plan(state: State, road: Road) -> None:
    speed, plan = state.speed, state.plan
    seconds = estimate(plan, speed)
    where = "the GPU" if speed.device == "cuda" else "this CPU"
    say(f"{where} multiplies matrices fastest in {speed.precision}: {speed.gflops:,.0f} GFLOP/s. The road, with estimates:")
    shown = [(STEPS[name].title, taken) for name, taken in seconds.items() if name in STEPS]
    for number, (title, taken) in enumerate(shown, 1):
        say(f"{number:4}  {title:42} {_clock(taken):>6}")
    total = sum(taken for _, taken in shown)
    say(f"      {'in all':42} {_clock(total):>6}")
    if lines := left_out(plan):
        say(f"left out to fit {option(road.minutes)} (`research quickstart --full` has all):")
        for line in lines:
            say(f"    - {line}")
    if road.minutes is not None and total > 60 * road.minutes:
        say(f"this is the smallest road: it takes longer than --minutes {road.minutes:g} on this machine as it is loaded now")


def _resized(state: State, name: str, ahead: list[str], clock: float) -> tuple[State, float]:
    """Return the state with the sizes of the step `name`, and the estimated seconds of that step and those after it."""
    planned = estimate(state.plan, state.speed)
    estimated = {step: estimate(state.sizes[step], state.speed)[step] for step in state.seconds}
    slower = max(1.0, sum(state.seconds.values()) / sum(estimated.values())) if estimated else 1.0
    current = state.sizes[[*state.sizes][-1]] if state.sizes else state.plan
    if name not in state.sizes:
        if state.minutes is not None and slower > SLOWER_FROM:
            smaller = shrink(current, {*planned} - {*ahead}, 60 * state.minutes - clock, state.speed, slower)
            if smaller != current:
                say(f"the steps so far took {slower:.1f} times as long as estimated: what follows is made smaller")
            current = smaller
        state = state._replace(sizes=state.sizes | {name: current})
    ahead = [step for step in ahead if step not in state.seconds]
    later = estimate(current, state.speed)
    return state, slower * sum(later[step] for step in ahead)


def _say_next(out: Path) -> None:
    say("next, after `source .venv/bin/activate`:")
    say("  research quickstart --full                  # the table of the README: longer training, every function")
    say("  research fit -c configs/dual_encoder.yaml --data.train beir:MY_FOLDER --out runs/mine    # your own data")
    say(f"  research generate --model {out}/sft --prompts QUESTIONS.txt    # one question a line")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"

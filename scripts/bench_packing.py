#!/usr/bin/env python3
"""Several small trainings on one device at once, as a packed sweep runs them: K = 1, 4, 8 processes, each a LoRA of a small
language model.

  python scripts/bench_packing.py [--device cuda] [--processes 1 4 8] [--shape 135m] [--json]

gain_K is the steps a second of all K together over those of one alone; gib_K the memory of one of them.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from bench_lm import Bench
from benching import ROOT
from benching.sides import Side, SideError


def bench_packing(device: str, processes: list[int], shape: str, tokens: int, steps: int, batch: int = 8) -> dict:
    """
    Args:
        processes: how many at once, one number after the other.
        steps: of each process and number.

    Returns:
        steps_per_second_K, gain_K, gib_K.
    """
    result: dict = {"shape": shape, "tokens": tokens, "batch": batch, "steps": steps}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the sides: K processes share the cores
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, Path(scratch), random_weights=True)
        case = bench.case("sft", "lora", tokens, shape, batch)
        sides = [Side(str(ROOT / "scripts" / "bench_lm.py"), "ours", {"device": device}) for _ in range(max(processes))]
        try:
            for i, side in enumerate(sides):
                side.send(case=case | {"start": f"{case['start']}-{i}"})
            for side in sides:
                side.receive()
            for count in processes:
                some = sides[:count]
                for side in some:
                    side.send(steps=steps, lead=8 if device == "cuda" else 0)
                answers = [side.receive() for side in some]
                result[f"steps_per_second_{count}"] = round(sum(steps / answer["seconds"] for answer in answers), 3)
                result[f"gib_{count}"] = round(max(answer["gib"] for answer in answers), 3)
                one = result.get("steps_per_second_1")
                if one:
                    result[f"gain_{count}"] = round(result[f"steps_per_second_{count}"] / one, 3)
                print(f"{count} at once: {result[f'steps_per_second_{count}']} steps/s together", file=sys.stderr, flush=True)
        except SideError as error:
            result["error"] = str(error)
        for side in sides:
            side.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 4, 8], metavar="K")
    parser.add_argument("--shape", default="135m", choices=["tiny", "135m", "1.5b"])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    result = bench_packing(args.device, args.processes, args.shape, args.tokens, args.steps)
    print(json.dumps(result) if args.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()

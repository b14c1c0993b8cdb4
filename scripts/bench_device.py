#!/usr/bin/env python3
"""The physical limits that every share in our tables refers to: the fastest plain matrix product of each precision, and how
many bytes a second a copy moves; with the versions and the card.

  python scripts/bench_device.py [--device cuda] [--json]

A product's rate is the best over several sizes; many products run between two synchronisations, since one alone on a GPU
would be timed with its launch.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "peft", "lightning", "sentence-transformers", "trl", "datasets", "wandb", "hnswlib",
            "triton", "flash-attn", "numpy")  # fmt: skip
SIZES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
COPIED = {"cpu": 2**28, "cuda": 2**32}  # bytes


def environment(device: str) -> dict:
    """Versions, commit and code, and what computes."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    found = {
        "commit": _commit(),
        "sources": _sources(),
        "python": platform.python_version(),
        "packages": versions,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device,
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "gib": round(card.total_memory / 2**30, 1), "capability": f"{card.major}.{card.minor}",
                  "multiprocessors": card.multi_processor_count, "cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version(),
                  "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")}  # fmt: skip
    return found


def synchronize(device: str) -> None:
    """Wait for what the device has been told; a CPU has done it already."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_flops(
    dtype: torch.dtype, device: str, tf32: bool = False, sizes: tuple[int, ...] = (), seconds: float = 0.6
) -> dict:
    """FLOP/s of square matrix products.

    Args:
        tf32: let float32 products use a GPU's TF32 units.
        sizes: of the matrices; those that suit the device if none are given.
        seconds: of each size.

    Returns:
        {"flops": of the fastest size, "size": that size, "by_size": {size: FLOP/s}}.
    """
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    rates = {size: _product_rate(size, dtype, device, seconds) for size in sizes or SIZES[device]}
    torch.set_float32_matmul_precision(was)
    best = max(rates, key=rates.get)
    return {"flops": rates[best], "size": best, "by_size": rates}


def _product_rate(size: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run(count: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            torch.mm(a, b, out=out)
        synchronize(device)
        return (time.perf_counter() - start) / count

    run(1)  # picks the kernel
    count = max(1, min(1000, int(seconds / 3 / max(run(2), 1e-6))))
    return 2 * size**3 / min(run(count) for _ in range(3))


def copy_bandwidth(device: str, size: int = 0, repeats: int = 5) -> float:
    """Bytes a second that a copy reads and writes."""
    size = size or COPIED[device]
    a, b = (torch.zeros(size // 4, dtype=torch.int32, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        b.copy_(a)
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def bench_device(device: str, tiny: bool = False) -> dict:
    """Peaks in TFLOP/s and the bandwidth in GB/s."""
    sizes, seconds = ((512,), 0.05) if tiny else ((), 0.6)
    found = {}
    kinds = {"bf16": (torch.bfloat16, False), "fp16": (torch.float16, False), "tf32": (torch.float32, True),
             "fp32": (torch.float32, False)}  # fmt: skip
    for name, (dtype, tf32) in kinds.items():
        if device == "cpu" and name in ("fp16", "tf32"):
            continue  # no such units
        peak = peak_flops(dtype, device, tf32, sizes, seconds)
        by_size = {size: round(rate / 1e12, 3) for size, rate in peak["by_size"].items()}
        found |= {f"peak_tflops_{name}": by_size[peak["size"]], f"peak_size_{name}": peak["size"],
                  f"tflops_by_size_{name}": by_size}  # fmt: skip
    return found | {"copy_gb_per_second": round(copy_bandwidth(device, 2**24 if tiny else 0) / 1e9, 1)}


def _sources() -> str:
    """sha256 of the code: a copy of it may have no commit, or changes beside one."""
    whole = hashlib.sha256()
    for path in sorted(
        path for name in ("research", "scripts", "configs", "tests") for path in (ROOT / name).rglob("*")
    ):
        if path.suffix in (".py", ".sh", ".yaml"):
            whole.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def _commit() -> str:
    if told := os.environ.get("TANDEM_COMMIT"):
        return told
    head = _output("git", "-C", str(ROOT), "rev-parse", "HEAD")
    changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{head} + changes" if head and changed else head


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    result = environment(args.device) | bench_device(args.device)
    print(json.dumps(result) if args.json else "\n".join(f"{name:28} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()

"""What a machine is, and its physical limits: the fastest plain matrix product of each precision, and how many bytes a second a
copy moves.

A product's rate is the best over several sizes; many products run between two synchronisations, since one alone on a GPU
would be timed with its launch.
"""

import os
import subprocess
import sys
import time

import torch

from benching import ROOT
from research.runs.hashes import hash_file, hash_json
from research.runs.provenance import provenance

SIZES = {"cpu": (1024, 2048, 4096), "cuda": (2048, 4096, 8192, 16384)}
COPIED = {"cpu": 2**28, "cuda": 2**32}  # bytes


def environment(device: str) -> dict:
    """Provenance as a run has it, and what computes.

    A copy without .git is told its commit by TANDEM_COMMIT; `sources` is a hash of the code in any case.
    """
    files = sorted(
        path
        for name in ("research", "scripts", "configs", "tests")
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".py", ".sh", ".yaml")
    )
    found = provenance(
        sys.argv,
        sources=hash_json({str(path.relative_to(ROOT)): hash_file(path) for path in files})[:16],
        threads=torch.get_num_threads(),
        cpu=torch.backends.cpu.get_cpu_capability(),
        device=device,
    )
    found["git_commit"] = found["git_commit"] or os.environ.get("TANDEM_COMMIT")
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "gib": round(card.total_memory / 2**30, 1),
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return found


def _driver() -> str:
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except OSError:
        return ""


def synchronize(device: str) -> None:
    """Wait for what the device has been told; a CPU has done it already."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_flops(dtype: torch.dtype, device: str, tf32: bool = False, sizes: tuple[int, ...] = (), seconds: float = 0.6) -> dict:
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
    kinds = {
        "bf16": (torch.bfloat16, False),
        "fp16": (torch.float16, False),
        "tf32": (torch.float32, True),
        "fp32": (torch.float32, False),
    }
    for name, (dtype, tf32) in kinds.items():
        if device == "cpu" and name in ("fp16", "tf32"):
            continue  # no such units
        peak = peak_flops(dtype, device, tf32, sizes, seconds)
        by_size = {size: round(rate / 1e12, 3) for size, rate in peak["by_size"].items()}
        found |= {
            f"peak_tflops_{name}": by_size[peak["size"]],
            f"peak_size_{name}": peak["size"],
            f"tflops_by_size_{name}": by_size,
        }
    return found | {"copy_gb_per_second": round(copy_bandwidth(device, 2**24 if tiny else 0) / 1e9, 1)}

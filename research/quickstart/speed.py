"""The machine's speed, measured in a second: a product of matrices in each precision, and a piece of plain Python."""

import argparse
import ast
import gc
import inspect
import time

import torch

from research.models.inference import best_device, has_fast_bf16
from research.quickstart.plan import Speed

ROWS, INPUTS, OUTPUTS = 2048, 384, 1536  # of a layer of MiniLM with a batch of tokens
SECONDS = 0.5  # a precision
PARSINGS = 20
REFERENCE_PARSING = 0.012  # seconds of one parsing on the idle reference machine


def measure() -> Speed:
    """Time both precisions in turn, so that other work on the machine slows both, and take the faster."""
    device = best_device()
    products = {"fp32": _Product(device, torch.float32)}
    if device.type == "cpu" or has_fast_bf16():  # a CPU without bf16 instructions computes it too, slowly
        products["bf16"] = _Product(device, torch.bfloat16)
    for product in products.values():
        product.run()
        product.seconds, product.count = 0.0, 0  # the first product includes one-time costs
    while max(product.seconds for product in products.values()) < SECONDS:
        for product in products.values():
            product.run()
    rates = {precision: product.gflops for precision, product in products.items()}
    fastest = max(rates, key=rates.get)
    return Speed(device.type, fastest, rates[fastest], _slowness())


class _Product:
    def __init__(self, device: torch.device, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(0)
        self.texts = torch.randn(ROWS, INPUTS, generator=generator).to(device, dtype)
        self.layer = torch.randn(OUTPUTS, INPUTS, generator=generator).to(device, dtype)
        self.seconds, self.count = 0.0, 0

    def run(self) -> None:
        """Multiply once, and add its time."""
        started = time.perf_counter()
        torch.nn.functional.linear(self.texts, self.layer)
        if self.texts.is_cuda:
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        self.count += 1

    @property
    def gflops(self) -> float:
        """Return billions of operations a second."""
        return 2e-9 * ROWS * INPUTS * OUTPUTS * self.count / self.seconds


def _slowness() -> float:
    source = inspect.getsource(argparse)
    collecting = gc.isenabled()
    gc.disable()  # a collection visits all objects that torch has created: three made twenty parsings three times as slow
    try:
        started = time.perf_counter()
        for _ in range(PARSINGS):
            ast.parse(source)
        return (time.perf_counter() - started) / PARSINGS / REFERENCE_PARSING
    finally:
        if collecting:
            gc.enable()

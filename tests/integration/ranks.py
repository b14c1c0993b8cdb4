"""A small training as DDP: one forked process a rank, over gloo.

Ranks that Lightning starts itself import everything anew, some ten seconds each; tests/integration/test_configs.py,
tests/e2e/test_sweep.py and tests/cluster start them so, as a user does. Here a rank has what Lightning's launcher gives it.
"""

import contextlib
import os
import signal
import socket
import time
import traceback
from pathlib import Path

import torch

from tests.integration.small import KeepGradients, Training

SECONDS = 240


def run_ranks(training: Training, world: int, stop: int = 0) -> None:
    """`training` on `world` ranks, to its end or to step `stop`; gradients.pt and weights.pt are rank 0's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    logs = [training.out / f"rank-{rank}.log" for rank in range(world)]
    ranks = [_fork(training, rank, world, port, log, stop) for rank, log in enumerate(logs)]
    end, codes = time.monotonic() + SECONDS, dict[int, int]()
    while len(codes) < world and not any(codes.values()) and time.monotonic() < end:
        for pid in ranks:
            if pid not in codes and (done := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(done[1])
        time.sleep(0.005)
    for pid in ranks:  # the others of a rank that failed wait for it
        if pid not in codes:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert [codes.get(pid) for pid in ranks] == [0] * world, "\n".join(log.read_text()[-3000:] for log in logs)


def _fork(training: Training, rank: int, world: int, port: int, log: Path, stop: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "NODE_RANK": "0",
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "CUDA_VISIBLE_DEVICES": "",
        }
        torch.set_num_threads(1)
        training.options["trainer"] = training.options.get("trainer", {}) | {"strategy": "ddp", "devices": world}
        module = training.run(stop=stop or None, callbacks=(KeepGradients(training.out / "gradients.pt"),))
        if rank == 0:
            torch.save(module.state_dict(), training.out / "weights.pt")
        with contextlib.suppress(ValueError):
            torch.distributed.destroy_process_group()
        code = 0
    except BaseException:
        Path(log).open("a").write(traceback.format_exc())
    finally:
        os._exit(code)

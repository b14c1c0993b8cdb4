"""A process that has imported the libraries and none of our code, and forks a child for each pytest run that it is told.

Reads a line of JSON, {"arguments": [...], "log": FILE, "seconds": 300}; answers a line with pytest's exit code, -9 where the
time was up. A child imports `research` and
`tests` afresh from the working folder, so a file that was changed before is read as it is now; torch, transformers and the
others, which take most of the seconds of a start, are there already. Nothing is computed before the fork: libraries start their
threads at their first work, and threads do not survive a fork.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

LIBRARIES = """
numpy scipy.stats scipy.optimize sklearn.ensemble statsmodels.api pandas yaml pytest _pytest.assertion.rewrite pytest_timeout
torch torch.distributed torch.utils.data lightning lightning.pytorch.callbacks lightning.pytorch.cli jsonargparse
transformers.models.auto.modeling_auto transformers.models.bert.modeling_bert transformers.models.llama.modeling_llama
transformers.models.gpt2.modeling_gpt2 transformers.trainer transformers.generation.utils safetensors.torch tokenizers
peft peft.tuners.lora sentence_transformers sentence_transformers.cross_encoder datasets
trl.trainer.sft_trainer trl.trainer.dpo_trainer optuna bm25s hnswlib rouge_score.rouge_scorer wandb gguf tqdm rich.progress
""".split()


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # a test that needs it says so
            importlib.import_module(name)
    ours = [name for name in sys.modules if name.split(".")[0] in ("research", "tests")]
    assert not ours, f"{ours[0]} is imported before the fork"
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            _run(order["arguments"], order["log"])
        print(_wait(child, order["seconds"]), file=out, flush=True)


def _wait(child: int, seconds: float) -> int:
    """Its exit code; it is killed when the time is up, and what it has left behind (ranks of a broken DDP) in any case."""
    end = time.monotonic() + seconds
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode((done if done[0] else os.waitpid(child, 0))[1])


def _run(arguments: list[str], log: str) -> None:
    """Never returns."""
    code = 70
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(stream, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        import pytest

        code = int(pytest.main(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()

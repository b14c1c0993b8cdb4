"""Our side of a training benchmark: a LightningModule on its DataModule as `research fit` trains it, in turns."""

import itertools
from collections.abc import Callable, Iterator

import lightning as L
import yaml
from torch.utils.data import DataLoader

from benching import ROOT
from benching.turns import Turns
from research.training.resume import seed_step

PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true"}
HELD = 4  # batches that are made beforehand where tokens are given, in turn


def gpu_overlay() -> dict:
    """What configs/trainer/gpu.yaml changes in a DataModule."""
    return yaml.safe_load((ROOT / "configs" / "trainer" / "gpu.yaml").read_text())["data"]["init_args"]


def loading(device: str) -> dict:
    """What a user's DataModule gets there."""
    return gpu_overlay() if device == "cuda" else {}


def fit_in_turns(
    module: L.LightningModule, data: L.LightningDataModule, case: dict, turns: Turns, loss: Callable[[L.Trainer], float | None]
) -> None:
    """Train until the case ends.

    Args:
        case: device, precision, warmup, and input: "tokens" trains on a few batches that are made beforehand.
        loss: what a turn reports.
    """

    class Pause(L.Callback):
        def on_train_start(self, trainer, module) -> None:
            turns.begin(case["warmup"])

        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            seed_step(0, 0, trainer.global_step, module.bits)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            turns.step_done(lambda: loss(trainer))

    made = data.train_dataloader
    data.train_dataloader = lambda: held(endless(made(), data.batch_size), case)
    trainer = L.Trainer(
        accelerator=case["device"].replace("cuda", "gpu"),
        devices=1,
        max_steps=10**6,
        max_epochs=None,
        logger=False,
        precision=PRECISIONS[case["precision"]],
        callbacks=[Pause()],
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)


def endless(loader: DataLoader, size: int) -> DataLoader:
    """A DataModule's loader over its examples in their order, again and again: an epoch's end would fall into a turn."""
    return DataLoader(
        loader.dataset,
        batch_sampler=InOrder(len(loader.dataset), size),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=loader.worker_init_fn,
        pin_memory=loader.pin_memory,
    )


def held(loader: DataLoader, case: dict) -> DataLoader:
    """The loader, or its first batches again and again where the case is given tokens."""
    if case["input"] == "texts":
        return loader
    return DataLoader(Held(list(itertools.islice(loader, HELD))), batch_size=None)


class InOrder:
    """(epoch 0, index) of each step's examples; whole batches."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        starts = range(0, self.count // self.size * self.size, self.size)
        return ([(0, i) for i in range(start, start + self.size)] for start in itertools.cycle(starts))


class Held:
    """The same batches again and again."""

    def __init__(self, batches: list):
        self.batches = batches

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int):
        return self.batches[i % len(self.batches)]

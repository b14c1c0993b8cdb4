"""The DataModule that the four trainers share: what is measured, the order of batches with its place, and their loader."""

import abc
import signal
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from research.data.sampler import StatefulBatchSampler
from research.types import Collection, Examples


class BaseDataModule(L.LightningDataModule):
    """Training examples whose place is in the checkpoint, and collections that the module evaluates as a whole.

    A subclass reads its data in `__init__`, so that wrong data are refused before anything is written. Validation and test are
    one batch: the name of the collection that is evaluated.

    Args:
        batch_size: examples a process and step.
        chunk_overhead: see `chunked`.
        drop_last: leave out the last, smaller batch of an epoch.
        workers: processes that make batches ahead; 0 makes them between steps.
        skip_bad_rows: leave malformed rows out, counted.
        seed: of the order, and of what is drawn.

    Attributes:
        gives: type of the batches; a LightningModule says in `reads` which it takes.
        decides: options that null leaves to the data; the attribute of that name has the value that they gave it.
        dataset: training examples, by (epoch, index).
        collections: name ("val", "test", …) → what is evaluated.
        shared: name → rows of a collection that are trained on too.
        sampler: of the running epoch; says the place.
        place: where a resumed training begins.
    """

    gives: type[NamedTuple]
    dataset: Dataset
    decides: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, batch_size: int, chunk_overhead: int | None, drop_last: bool, workers: int, skip_bad_rows: bool, seed: int
    ):
        super().__init__()
        self.batch_size, self.chunk_overhead, self.drop_last, self.workers = batch_size, chunk_overhead, drop_last, workers
        self.skip_bad_rows, self.seed = skip_bad_rows, seed
        self.collections: dict[str, Collection | Examples] = {}
        self.shared: dict[str, int] = {}
        self.sampler: StatefulBatchSampler | None = None
        self.place: dict | None = None

    @abc.abstractmethod
    def describe(self) -> dict[str, str | int]:
        """Describe what the training reads, for provenance: fingerprints and counts."""

    @abc.abstractmethod
    def collate(self, model: nn.Module) -> Callable[[list], NamedTuple]:
        """Return what makes a batch for the model from a list of examples."""

    @abc.abstractmethod
    def load_test(self) -> Collection | Examples:
        """Load what `research test` measures on.

        Raises:
            UserError: none is named.
        """

    @abc.abstractmethod
    def count_shared(self, collections: dict) -> dict[str, int]:
        """Count the rows of each collection that are also trained on, and report them if there are any."""

    def notes(self) -> list[str]:
        """Return what a training reports about its data at the start, besides `describe`: what was given, how much is used."""
        return []

    def check_batches(self, world_size: int) -> None:
        """Refuse a batch that is larger than the data, before anything is written.

        Raises:
            UserError: as the sampler does.
        """
        if hasattr(self, "dataset"):  # rows are counted once they are tokens
            StatefulBatchSampler(len(self.dataset), self.batch_size, 0, world_size=world_size, drop_last=self.drop_last)

    def train_dataloader(self) -> DataLoader:
        """Make the loader of batches from the present place on; the new sampler keeps that place.

        A generator of its own leaves the global ones alone.
        """
        collate, trainer = self.collate(self.trainer.lightning_module.model), self.trainer
        self.sampler = StatefulBatchSampler(
            len(self.dataset),
            self.batch_size,
            self.seed,
            global_rank=trainer.global_rank,
            world_size=trainer.world_size,
            drop_last=self.drop_last,
        )
        if self.place is not None:
            self.sampler.load_state_dict(self.place)
        # fork: the dataset and the tokenizer are shared with the workers, not copied through a pipe; they outlive an epoch,
        # since each start of them costs a part of a second
        return DataLoader(
            self.dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.workers,
            generator=torch.Generator(),
            multiprocessing_context="fork" if self.workers else None,
            worker_init_fn=ignore_signals,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> list[str]:
        """Give the name of the validation's collection, if there is one."""
        return ["val"] if "val" in self.collections else []

    def test_dataloader(self) -> list[str]:
        """Read the test's collection now, and give its name."""
        if "test" not in self.collections:
            self.collections["test"] = test = self.load_test()
            self.shared |= self.count_shared({"test": test})
        return ["test"]

    def state_dict(self) -> dict:
        """Return the place in the data, for a checkpoint."""
        return self.sampler.state_dict() if self.sampler else {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Begin the next training at the place of a checkpoint."""
        self.place = state_dict or None


def ignore_signals(_worker: int) -> None:
    """Ignore signals in data workers: a cluster signals every process of a job, and the step must end and be saved first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

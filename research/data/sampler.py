"""Batches whose order is a function of (seed, epoch) and whose place is (epoch, consumed): a stopped run continues there."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from research.errors import UserError


class StatefulBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields lists of (epoch, index): the same global batches whatever the number of processes.

    Every epoch is a permutation drawn from its own generator, seeded by (seed, epoch) alone: nothing that the model or
    an adapter draws can change the order of the data. A global batch is a stretch of that permutation, and process
    `global_rank` takes every `world_size`-th example of it. The epoch goes with the index, so that a dataset can choose
    other negatives in every epoch without a state of its own, in whatever worker process.

    Args:
        size: examples in the dataset.
        batch_size: examples of a batch a process.
        seed: of the order.
        shuffle: False keeps the dataset's order in every epoch.
        global_rank, world_size: this process and how many there are.
        drop_last: leave out the examples of an epoch that do not fill a global batch. Without it the last batch is
            smaller; it must still give every process one example or more.

    Raises:
        UserError: a batch that is larger than the data, or a last batch that leaves a process without an example.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        shuffle: bool = True,
        global_rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ):
        self.size, self.seed, self.shuffle, self.drop_last = size, seed, shuffle, drop_last
        self.global_rank, self.world_size = global_rank, world_size
        self.global_batch = batch_size * world_size
        self.epoch = 0
        self.consumed = 0  # examples of this epoch that all processes have finished together
        if batch_size < 1 or self.global_batch > size:
            if world_size > size:
                raise UserError(
                    f"{world_size} processes (trainer.devices times num_nodes) share {size} examples; expected 1 "
                    f"to {size} processes. Set fewer trainer.devices."
                )
            raise UserError(
                f"batch_size={batch_size} on {world_size} processes takes {self.global_batch} examples a step, and "
                f"there are {size}; expected 1 to {size // world_size}. Pass a smaller batch_size."
            )
        if not drop_last and 0 < size % self.global_batch < world_size:
            raise UserError(
                f"the last batch of {size} examples leaves {size % self.global_batch} for {world_size} processes; "
                "expected one each or more. Pass drop_last=True, or another batch_size."
            )

    def __len__(self) -> int:
        """Count the batches of the whole epoch, those already consumed included."""
        return self.size // self.global_batch if self.drop_last else -(-self.size // self.global_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches of this epoch that are not consumed yet."""
        order, epoch = self._order(), self.epoch
        for start in range(self.consumed, len(self) * self.global_batch, self.global_batch):
            yield [(epoch, i) for i in order[start : start + self.global_batch][self.global_rank :: self.world_size]]

    def advance(self, limit: int | None = None) -> None:
        """Count a finished batch; after the last one (of `limit`, where epochs are cut short) the next epoch begins."""
        self.consumed += self.global_batch
        if self.consumed >= min(len(self), limit or len(self)) * self.global_batch:
            self.epoch, self.consumed = self.epoch + 1, 0

    def state_dict(self) -> dict:
        """Return the place, and what the order depends on."""
        return {
            "epoch": self.epoch,
            "consumed": self.consumed,
            "seed": self.seed,
            "size": self.size,
            "global_batch": self.global_batch,
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go to the place where `state` was taken.

        Raises:
            UserError: the state is of other data, another seed, or another global batch: the order would not be its.
        """
        mine = self.state_dict()
        wrong = [
            f"{name} {state.get(name)!r}, now {mine[name]!r}"
            for name in ("seed", "size", "global_batch", "shuffle")
            if state.get(name) != mine[name]
        ]
        if wrong:
            raise UserError(
                f"the checkpoint was taken with {'; '.join(wrong)}; expected the same, or the data would come in "
                "another order. Resume with the configuration of the run folder, or start a new run."
            )
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.size))
        # two numbers into one seed: neighbouring seeds and epochs must not share permutations
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B97F4A7C15 + self.epoch) % 2**63)
        return torch.randperm(self.size, generator=generator).tolist()

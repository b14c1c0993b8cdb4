"""Stops at any step and resumes there: the result equals an uninterrupted training, bit for bit on one machine.

What a step computes is a function of the weights, the optimizer's state, the batch and the random numbers of the step.
Weights, optimizer, schedule and Lightning's loops are in the checkpoint. The batch is a function of (seed, epoch, consumed),
see `StatefulBatchSampler`. The random numbers are drawn from generators that every micro-batch seeds anew from (seed, rank,
micro-batch): no state of a generator is carried from step to step, so none can be lost, and a second pass over the same
micro-batch (GradCache) can draw the same masks.

Checkpoints are taken between optimizer steps only: what accumulated in an unfinished window is computed again. A validation
comes between two of them: a training that is told to stop leaves it unfinished, and begins with it when it goes on.

Longer than most files: what is saved and what is taken up again must be read beside each other.
"""

import contextlib
import hashlib
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging  # Lightning runs a Checkpoint after all other callbacks
from lightning.pytorch.plugins.io import TorchCheckpointIO

from research.errors import UserError
from research.models.cpu.dropout import DropoutBits
from research.progress import say
from research.runs.disk import write_errors
from research.runs.files import atomic_write, write_json
from research.runs.folder import RunFolder
from research.runs.hashes import hash_file
from research.runs.layout import CHECKPOINTS
from research.training.curves import Curves
from research.training.stop import SIGNALS, Stopped, is_importing

AVERAGED = "current_model_state"  # where WeightAveraging puts the trained weights; the average stands in state_dict
KEEP = 2  # the last one, and the one before in case the last is damaged


def seed_step(seed: int, global_rank: int, micro: int, bits: DropoutBits | None = None) -> None:
    """Seed every random generator that a training step may use; `bits` generates the CPU's dropout masks."""
    digest = hashlib.sha256(f"{seed} {global_rank} {micro}".encode()).digest()
    value = int.from_bytes(digest[:8], "big")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)  # CUDA's generators too
    if bits is not None:
        bits.seed(value)


class Resume(Checkpoint):
    """Checkpoints in the run folder, and the place in data and random numbers that they need.

    Args:
        folder: the run folder.
        every: optimizer steps between checkpoints, beside those after each validation and at the end.
        stop_on: signals that end training at the next step with a checkpoint.
    """

    def __init__(self, folder: Path, every: int, stop_on: tuple[int, ...] = SIGNALS):
        self.folder, self.every, self.stop_on = Path(folder), every, stop_on
        self.micro = 0  # micro-batches that are finished
        self.saved = -1  # optimizer step of the newest checkpoint
        self.signal: int | None = None
        self.measures = False  # within an evaluation, which a signal ends
        self.left = False  # an evaluation, so that the step's checkpoint is still to be taken
        self.ended = False  # an early stop came before the signal
        self.lines = 0  # of the curves
        self.previous: dict[int, object] = {}
        self.file = AtomicFile()

    def state_dict(self) -> dict:
        return {"micro": self.micro, "ended": self.ended, "lines": self.lines}

    def load_state_dict(self, state_dict: dict) -> None:
        self.micro, self.ended, self.lines = (state_dict[name] for name in ("micro", "ended", "lines"))

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io, self.file.weights = self.file, module.state_dict

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict) -> None:
        """Leave frozen weights out of averaged ones as well; this callback comes after the one that averages."""
        if AVERAGED in checkpoint:
            trained = {"state_dict": checkpoint[AVERAGED]}
            module.on_save_checkpoint(trained)
            checkpoint[AVERAGED] = trained["state_dict"]

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Continue the curves from the checkpoint's place."""
        for curves in _curves(trainer):
            curves.trainer = trainer
            curves.rewind(self.lines)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.saved = trainer.global_step
        trainer.should_stop = trainer.should_stop or self.ended
        module.measuring = partial(self._measuring, trainer, module)
        for number in self.stop_on:
            self.previous[number] = signal.signal(number, self._on_signal)

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        seed_step(module.seed, trainer.global_rank, self.micro, module.bits)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.micro += 1
        trainer.datamodule.sampler.advance(trainer.num_training_batches)
        if not module.window.open and not self._validation_follows(trainer):
            self._between_steps(trainer, checkpoint=trainer.global_step - self.saved >= self.every)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not module.window.open:
            self._between_steps(trainer, checkpoint=True)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.saved != trainer.global_step:
            self._save(trainer)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
        vars(module).pop("measuring", None)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Save what an evaluation was left with; Lightning's loops are then in the middle of their validation."""
        if not self.left:
            return
        for callback in trainer.callbacks if trainer.validating else ():
            if isinstance(callback, WeightAveraging):  # it has lent the module its average
                callback.on_validation_epoch_end(trainer, module)
        self._save(trainer)

    @contextlib.contextmanager
    def _measuring(self, trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
        """Leave an evaluation when a signal has come before it, or comes within it.

        Not within an unfinished window, whose gradients no checkpoint holds; nor where other ranks would wait for this one.
        """
        if module.window.open:
            yield
            return
        if asked := self._any_rank(trainer):
            self.left = True
            raise Stopped(asked)
        self.measures = trainer.world_size == 1
        try:
            yield
        finally:
            self.measures = False

    def _on_signal(self, number: int, frame) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise Stopped(number)  # the second Ctrl-C: stop at once, back to the last checkpoint
        self.signal = number
        if self.measures and not is_importing(frame):
            self.measures, self.left = False, True
        say(f"signal {signal.Signals(number).name}: stopping {'now' if self.left else 'after this step'}, with a checkpoint")
        if self.left:
            raise Stopped(number)

    def _between_steps(self, trainer: L.Trainer, checkpoint: bool) -> None:
        asked = self._any_rank(trainer)
        if checkpoint or asked:
            self._save(trainer)
        if asked:
            raise Stopped(asked)

    def _any_rank(self, trainer: L.Trainer) -> int:
        """Return the signal that any rank received, so that all ranks stop at the same step."""
        if trainer.world_size == 1:
            return self.signal or 0
        number = torch.tensor(self.signal or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number)

    def _validation_follows(self, trainer: L.Trainer) -> bool:
        loop = trainer.fit_loop
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)

    def _save(self, trainer: L.Trainer) -> None:
        self.saved, self.ended = trainer.global_step, trainer.should_stop
        self.lines = max((curves.lines for curves in _curves(trainer)), default=0)
        name = f"step-{trainer.global_step:08d}.ckpt"
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        try:
            if self.file.error is not None:
                raise self.file.error
            if trainer.is_global_zero:
                _record(self.folder, name, trainer.global_step)
        except UserError as error:
            # training is worth more than this checkpoint: the one before is still there
            say(f"warning: {error} Training goes on; resuming would start at the checkpoint before")


def _curves(trainer: L.Trainer) -> list[Curves]:
    return [logger for logger in trainer.loggers if isinstance(logger, Curves)] if trainer.is_global_zero else []


class AtomicFile(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all.

    What the disk says is kept in `error` and not raised here: other ranks wait behind this call.
    """

    def __init__(self):
        self.error: UserError | None = None
        self.is_blocked: Callable[[], bool] = lambda: False  # whether no checkpoint may be taken now
        self.weights: Callable[[], dict] = dict  # the model's, for those that a checkpoint leaves out

    def load_checkpoint(self, path: str | Path, *args: object, **kwargs: object) -> dict:
        checkpoint = super().load_checkpoint(path, *args, **kwargs)
        for name in ("state_dict", AVERAGED) if AVERAGED in checkpoint else ():  # WeightAveraging wants them all
            checkpoint[name] = self.weights() | checkpoint[name]
        return checkpoint

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        self.error = None
        if self.is_blocked():
            self.error = UserError(f"{path} is not written, since the best model before it is not on the disk yet.")
            return
        try:
            with write_errors(Path(path)), atomic_write(Path(path), "wb") as stream:
                torch.save(checkpoint, stream)
        except UserError as error:
            self.error = error


def _record(folder: Path, name: str, step: int) -> None:
    """List the new checkpoint with its sha256; then remove older ones, and later ones that were skipped."""
    known = [entry for entry in RunFolder(folder).checkpoints if entry["step"] < step]
    known = [*known, {"file": name, "step": step, "sha256": hash_file(folder / name)}]
    write_json(folder / CHECKPOINTS, known[-KEEP:])
    for path in folder.glob("step-*.ckpt"):
        if path.name not in [entry["file"] for entry in known[-KEEP:]]:
            path.unlink()


def drop_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished run needs, its list first: files that a kill leaves behind are then no checkpoints."""
    paths = sorted(folder.glob("step-*.ckpt"))
    size = sum(path.stat().st_size for path in paths)
    for path in (folder / CHECKPOINTS, *paths):
        path.unlink(missing_ok=True)
    if paths:
        say(
            f"{folder}: finished; {len(paths)} checkpoint{'s' if len(paths) > 1 else ''} removed, {size / 1e6:,.1f} MB freed "
            "(--keep_checkpoints true keeps them)"
        )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint; a damaged one is skipped with a warning.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    listed = RunFolder(folder).checkpoints
    for entry in reversed(listed):
        path = folder / entry["file"]
        if path.exists() and hash_file(path) == entry["sha256"]:
            return path
        say(
            f"warning: checkpoint {path} is {'damaged' if path.exists() else 'missing'} (sha256 differs from {CHECKPOINTS}'s); "
            "falling back to the one before"
        )
    if listed:
        raise UserError(
            f"{folder} lists {len(listed)} checkpoints, and none of them is what was written; expected one to "
            "resume from. Name a new --out, or delete this folder to train anew."
        )
    return None

"""A bar on stderr: Lightning's own write to stdout, which carries results only."""

import lightning as L

from research.progress import bar, say


class Progress(L.Callback):
    """One bar over all micro-batches of the training, and a line for every validation."""

    def __init__(self):
        self.bar = None

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: object, batch_idx: int) -> None:
        # not at the start: the untrained model is measured before, and its minutes would count as those of a batch
        if trainer.is_global_zero and self.bar is None:
            limits = [trainer.max_steps * module.settings.accumulate] if trainer.max_steps > 0 else []
            if trainer.max_epochs and trainer.max_epochs > 0:
                limits.append(trainer.num_training_batches * trainer.max_epochs)
            total = int(min(limits))
            self.bar = bar(total, "train", "batch", initial=trainer.fit_loop.epoch_loop.total_batch_idx)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if self.bar is not None:
            if "train/loss" in trainer.callback_metrics:
                self.bar.set_postfix(loss=f"{float(trainer.callback_metrics['train/loss']):.4f}", refresh=False)
            self.bar.update()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == "fit":
            values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
            say(f"step {trainer.global_step}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, module, "fit")  # before the line that says why: Lightning calls no teardown then

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

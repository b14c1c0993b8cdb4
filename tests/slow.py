"""A training that is slow enough to be stopped in the middle, on any machine."""

import time

import lightning as L


class Slow(L.Callback):
    """Args:
    seconds: added to each step.
    """

    def __init__(self, seconds: float = 0.2):
        self.seconds = seconds

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        time.sleep(self.seconds)


CALLBACK = "\n  callbacks:\n  - class_path: tests.slow.Slow"
"""Its lines in the trainer's section."""

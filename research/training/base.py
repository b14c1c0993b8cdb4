"""What the four trainers have in common."""

from collections.abc import Mapping
from typing import ClassVar

import lightning as L

from research.metrics.directions import direction
from research.types import Direction


class TrainingModule(L.LightningModule):
    """A LightningModule that `research fit` trains.

    Attributes:
        reads: type of its batches; the DataModule `gives` the same.
        directions: metric of its validation, without split and cut → which side is better; None: neither. A subclass with
            metrics of its own adds them: `directions = SFTModule.directions | {"my_loss": "lower"}`.
    """

    reads: ClassVar[type]
    directions: ClassVar[Mapping[str, Direction | None]]

    @classmethod
    def better(cls, metric: str) -> Direction | None:
        """Which side of a metric is declared the better one."""
        return direction(metric, cls.directions)

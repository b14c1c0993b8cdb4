"""Builds Lightning's Trainer from a configuration, in a process that later trainings use too."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import jsonargparse
import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import distributed

from research.errors import UserError
from research.training.configuration import LEFT_OUT
from research.training.library_errors import lightning_errors
from research.training.normal_form import listed
from research.training.progress import Progress
from research.training.supported import check_trainer


def make_trainer(config: jsonargparse.Namespace, callbacks: list[L.Callback], loggers: list[Logger]) -> L.Trainer:
    """Make Lightning's Trainer; `callbacks` come after the configuration's own.

    Raises:
        UserError: arguments that do not go together, or a device that is not there.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(L.Trainer, "trainer", skip=LEFT_OUT, instantiate=False)
    try:
        values = parser.instantiate(jsonargparse.Namespace(trainer=config.trainer)).trainer.as_dict()
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(
            f"the trainer section names a class that cannot be made ({' '.join(str(error).split())[:400]}); "
            "expected arguments that it takes, and packages that are there. Correct it, or leave it "
            "out."
        ) from error
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # where every login node has it
    if SLURMEnvironment.detect():  # the batch script requeues, and our own handlers save: Lightning's would do both again
        values["plugins"] = [*listed(values.get("plugins")), SLURMEnvironment(auto_requeue=False)]
    given = values.get("callbacks") or []
    values["callbacks"] = [*listed(given), Progress(), *callbacks]
    for name in ("lightning.pytorch", "lightning.fabric"):  # hints that are not about this run
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    with lightning_errors():
        trainer = L.Trainer(
            **values,
            logger=loggers or False,
            default_root_dir=config.out,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    check_trainer(trainer)
    return trainer


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Restore what a training sets for the whole process: a sweep's worker trains other points after it."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    backend, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    cudnn = backend.benchmark, backend.deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_float32_matmul_precision(matmul)
        backend.benchmark, backend.deterministic = cudnn
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()

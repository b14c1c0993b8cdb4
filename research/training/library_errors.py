"""Turns errors that Lightning and PEFT raise about a configuration into UserErrors."""

import contextlib
from collections.abc import Iterator

from lightning.fabric.utilities.exceptions import MisconfigurationException

from research.errors import UserError


@contextlib.contextmanager
def lightning_errors() -> Iterator[None]:
    """Turn Lightning's errors about the configuration into UserErrors; keep Ctrl-C, which Lightning turns into exit code 1."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, AttributeError, LookupError, ImportError) as error:
        if isinstance(error, UserError):
            raise
        if (name := _callback_in(error)) is not None and not isinstance(error, MisconfigurationException):
            raise UserError(
                f"trainer.callbacks: {name} does not go with this training ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}); expected one that needs no more than Lightning's hooks. "
                "Leave it out."
            ) from error
        if not _raised_in(error, "lightning."):
            raise
        raise UserError(
            f"the trainer section does not work ({' '.join(str(error).split())[:400]}); expected arguments of "
            "lightning.Trainer that go together here. Correct it."
        ) from None


@contextlib.contextmanager
def peft_errors() -> Iterator[None]:
    """Turn PEFT's errors about an adapter into UserErrors.

    jsonargparse raises an error of its own where a class of several possible ones cannot be made.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        chain = [error, error.__cause__, error.__context__]
        reason = next((e for e in chain if e is not None and _raised_in(e, "peft.")), None)
        if isinstance(error, UserError) or reason is None:
            raise
        raise UserError(
            f"the adapter is refused by PEFT ({' '.join(str(reason).split())[:300]}); expected arguments of its "
            "class that go together. Correct model.adapter."
        ) from error


def _callback_in(error: BaseException) -> str | None:
    """Return the class of the Lightning callback that raised the error, itself or in a function that it called."""
    trace, name = error.__traceback__, None
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith("lightning.pytorch.callbacks."):
            name = type(trace.tb_frame.f_locals.get("self")).__name__
        elif module.startswith("research."):
            name = None  # it called back what is ours
        trace = trace.tb_next
    return name


def _raised_in(error: BaseException, package: str) -> bool:
    """Return whether the package itself raised the error, and not code that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(package)

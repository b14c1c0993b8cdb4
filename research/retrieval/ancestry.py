"""What a retriever was trained on, and what that started from: a `research fit` writes it into config.yaml."""

from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.retrieval.mined_file import mined_from
from research.runs.folder import RunFolder
from research.runs.layout import MODEL


class Trained(NamedTuple):
    """The training data of a run folder's model.

    Attributes:
        source, split: as `--data` and `--split` name them; None where config.yaml does not say.
        without_fold: "0/2" where fold 0 of 2 was left out, else None.
        model: what the training started from.
    """

    source: str | None
    split: str | None
    without_fold: str | None
    model: str | None = None

    def on(self, source: str, split: str) -> bool:
        """Test whether that is the training data, under whatever spelling of its path."""
        return self.split == split and self.source is not None and _place(self.source) == _place(source)


def trained_on(name: str) -> Trained | None:
    """Read the training data of a model; None where no config.yaml of a `research fit` lies beside it.

    Args:
        name: as the user gives it; the model/ of a run folder is that run's.

    Raises:
        UserError: a config.yaml that cannot be read.
    """
    folder = Path(name).expanduser()
    if name == "bm25" or not folder.is_dir():
        return None
    if folder.resolve().name == MODEL:
        folder = folder.resolve().parent
    run = RunFolder(folder)
    if not run.has_config:
        return None
    config = run.config
    data = config.get("data")
    if not isinstance(data, dict):  # the run folder of another verb
        return None
    values = data.get("init_args", data)
    values = values if isinstance(values, dict) else {}
    source, split, fold = (_text(values.get(key)) for key in ("train", "train_split", "without_fold"))
    if source is not None and source.endswith(".jsonl"):  # mined triplets say themselves what they were mined from
        source, split = mined_from(Path(source))
    model = config.get("model")
    model = model.get("init_args", model) if isinstance(model, dict) else {}
    return Trained(source, split, fold, _text(model.get("model")) if isinstance(model, dict) else None)


def ancestors(trained: Trained | None) -> list[Trained]:
    """List the trainings before it, newest first: what its model started from, and what that model started from, …"""
    before: list[Trained] = []
    while trained is not None and trained.model is not None and len(before) < 100:  # a folder may start from itself
        trained = trained_on(trained.model)
        before += [trained] if trained is not None else []
    return before


def check_training(retrievers: list[str], folds: bool, source: str, split: str) -> list[str]:
    """Say which retrievers know the queries that they are to mine.

    Args:
        retrievers: in order.
        folds: retriever i mines fold i.
        source, split: of the queries.

    Returns:
        the warnings, which the facts of the file keep.

    Raises:
        UserError: a retriever that was trained without another fold.
    """
    warnings = []
    for number, name in enumerate(retrievers):
        trained = trained_on(name)
        before = [earlier for earlier in ancestors(trained) if earlier.on(source, split)]
        if folds:
            fold = f"{number}/{len(retrievers)}"
            warnings += _check_fold(name, fold, trained, source, split)
            if any(earlier.without_fold != fold for earlier in before):
                warnings.append(
                    f"{name} started from a model that was trained on {source} split {split}, fold {fold} "
                    "included: leaving the fold out of the last training does not hide it"
                )
        elif before or (trained is not None and trained.on(source, split)):
            warnings.append(
                f"{name} was trained on {source} split {split}: it ranks these queries better than those of a "
                "test. With --folds each query is mined by a retriever that has not seen it"
            )
    for warning in warnings:
        say(f"warning: {warning}")
    return warnings


def _check_fold(name: str, fold: str, trained: Trained | None, source: str, split: str) -> list[str]:
    if trained is None or trained.without_fold is None:
        say(f"{name} records no fold that it was trained without; it mines fold {fold} as it is")
        seen = trained is not None and trained.on(source, split)
        return [f"{name} was trained on all of {source} split {split}, so on the queries of fold {fold} too"] if seen else []
    if trained.without_fold != fold:
        raise UserError(
            f"--retriever {name} was trained without fold {trained.without_fold}, expected {fold}: retriever i "
            "mines fold i, counted from 0 in the order given. Reorder the retrievers, name one a fold, or train "
            f"one with --data.without_fold {fold}."
        )
    if trained.source is not None and not trained.on(source, split):
        return [f"{name} left out fold {fold} of {trained.source} split {trained.split}, which are other queries than these"]
    return []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _place(source: str) -> str:
    kind, _, rest = source.partition(":")
    return f"beir:{Path(rest).expanduser().resolve()}" if kind == "beir" else source

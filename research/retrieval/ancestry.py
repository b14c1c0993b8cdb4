"""Finds what a retriever, and the model that it started from, were trained on: `research fit` writes it into config.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from research.errors import UserError
from research.progress import say
from research.retrieval.mined_file import mined_from
from research.runs.folder import RunFolder
from research.runs.layout import MODEL
from research.types import Queries


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
        """Test whether a source is the training data, however its path is written."""
        return self.split == split and self.source is not None and _place(self.source) == _place(source)


def trained_on(name: str) -> Trained | None:
    """Read the training data of a model; None where no config.yaml of a `research fit` lies beside it.

    Args:
        name: as the user gives it; the model/ of a run folder is that run's.

    Raises:
        UserError: a config.yaml that cannot be read.
    """
    config = _config_of(name)
    if config is None:
        return None
    values = _options(config["data"])
    source, split, fold = (_text(values.get(key)) for key in ("train", "train_split", "without_fold"))
    if source is not None and source.endswith(".jsonl"):  # mined triplets say themselves what they were mined from
        source, split = mined_from(Path(source))
    return Trained(source, split, fold, _text(_options(config.get("model")).get("model")))


def _config_of(name: str) -> dict | None:
    """Read the configuration of the training that made a model; None if there is none."""
    folder = Path(name).expanduser()
    if name == "bm25" or not folder.is_dir():
        return None
    if folder.resolve().name == MODEL:
        folder = folder.resolve().parent
    run = RunFolder(folder)
    if not run.has_config:
        return None
    config = run.config
    # the run folder of another verb has no data section
    return config if isinstance(config.get("data"), dict) else None


def _options(section: object) -> dict:
    values = section.get("init_args", section) if isinstance(section, dict) else {}
    return values if isinstance(values, dict) else {}


def ancestors(trained: Trained | None) -> list[Trained]:
    """List the earlier trainings, newest first: that of the model it started from, that of the model before, and so on."""
    before: list[Trained] = []
    while trained is not None and trained.model is not None and len(before) < 100:  # a folder may start from itself
        trained = trained_on(trained.model)
        before += [trained] if trained is not None else []
    return before


def check_training(retrievers: list[str], folds: bool, source: str, split: str) -> list[str]:
    """Report which retrievers were trained on the queries for which they mine.

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


def check_tested(models: list[str], source: str, split: str, queries: Queries, read: Callable[[dict], set[str]]) -> list[str]:
    """Report which models were trained on the queries on which they are measured, in their own training or in an earlier one.

    Args:
        models: retrievers and rerankers.
        source, split: of the queries.
        queries: id → text.
        read: options of a training's data → texts of its queries, where they are rows of a file that is there.

    Returns:
        the warnings, which the run folder keeps.
    """
    warnings = []
    for name in models:
        model: str | None = name
        for _ in range(100):  # a folder may start from itself
            if model is None or (config := _config_of(model)) is None:
                break
            by = name if model == name else f"{name} started from {model}, which"
            trained, options = trained_on(model), _options(config["data"])
            if trained.on(source, split):
                fold = f", all but fold {trained.without_fold}" if trained.without_fold else ""
                warnings.append(f"{by} was trained on {source} split {split}{fold}: its numbers there are too high")
            elif count := sum(text in known for text in queries.values()) if (known := read(options)) else 0:
                warnings.append(
                    f"{by} was trained on {count:,} of these {len(queries):,} queries ({options.get('train')}): its numbers "
                    "are too high"
                )
            model = trained.model
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

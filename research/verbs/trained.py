"""What a retriever's run folder says its model was trained on: a `research fit` writes it into config.yaml."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml

from research.errors import UserError


class Trained(NamedTuple):
    """The training data of a run folder's model.

    Attributes:
        source, split: as `--data` and `--split` name them; None where config.yaml does not say.
        without_fold: "0/2" where fold 0 of 2 was left out, else None.
    """

    source: str | None
    split: str | None
    without_fold: str | None

    def on(self, source: str, split: str) -> bool:
        """Whether that is the training data, under whatever spelling of its path."""
        return self.split == split and self.source is not None and _place(self.source) == _place(source)


def trained_on(name: str) -> Trained | None:
    """The training data of a model; None where no config.yaml of a `research fit` lies beside it.

    Args:
        name: as the user gives it; the model/ of a run folder is that run's.

    Raises:
        UserError: a config.yaml that cannot be read.
    """
    folder = Path(name).expanduser()
    if name == "bm25" or not folder.is_dir():
        return None
    if folder.resolve().name == "model":
        folder = folder.resolve().parent
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML ({str(error).splitlines()[0]}); expected the configuration that "
                        "`research fit` wrote. Copy the run folder again.") from None  # fmt: skip
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict):  # the run folder of another verb
        return None
    values = data.get("init_args", data)
    values = values if isinstance(values, dict) else {}
    source, split, fold = (_text(values.get(key)) for key in ("train", "train_split", "without_fold"))
    if source is not None and source.endswith(".jsonl"):  # mined triplets say themselves what they were mined from
        source, split = _mined_from(Path(source))
    return Trained(source, split, fold)


def _mined_from(triplets: Path) -> tuple[str | None, str | None]:
    try:
        facts = json.loads(sidecar(triplets).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, None
    return (_text(facts.get("source")), _text(facts.get("split"))) if isinstance(facts, dict) else (None, None)


def sidecar(triplets: Path) -> Path:
    """Where `mine` writes what a triplets file was made from."""
    return triplets.with_name(f"{triplets.name}.json")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _place(source: str) -> str:
    kind, _, rest = source.partition(":")
    return f"beir:{Path(rest).expanduser().resolve()}" if kind == "beir" else source

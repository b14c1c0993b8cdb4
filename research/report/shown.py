"""What a report shows: a study of trainings, trainings by themselves, and retrievals."""

from pathlib import Path
from typing import NamedTuple

from research.errors import UserError, suggest
from research.report.spec import Spec
from research.report.study_report import StudyReport, study_report
from research.report.systems import Systems, read_systems
from research.report.training import Training, read_training, record_of_fit
from research.runs.folder import RunFolder
from research.runs.record import RunRecord
from research.runs.table import is_sweep, name_folders, points_in, with_inner
from research.runs.wandb.records import is_wandb


class Shown(NamedTuple):
    """What a report shows.

    Attributes:
        fits: trainings that are no study.
        tested: folders of retrievals.
        study: of trainings that are compared over seeds.
        trainings: that are drawn one by one.
        systems: the retrievals.
    """

    fits: list[RunRecord]
    tested: list[Path]
    study: StudyReport | None
    trainings: list[Training]
    systems: Systems | None


def read_shown(paths: list[Path], spec: Spec, claims: Path | None) -> Shown:
    """Read run folders, sweeps and W&B's runs, each by what it is.

    Raises:
        UserError: runs that cannot be read or compared.
    """
    paths = with_inner(paths)
    sweeps = [path for path in paths if is_sweep(path)]
    fits = [path for path in paths if path not in sweeps and RunFolder(path).is_training]
    wandb = [path for path in paths if is_wandb(path)]
    tested = [path for path in paths if path not in [*fits, *sweeps, *wandb]]
    systems, spec = _systems(tested, name_folders([*fits, *tested]), spec, len(tested) < len(paths)) if tested else (None, spec)
    study = study_report([path for path in paths if path not in tested], spec, bool(sweeps or wandb), claims)
    if study is None:  # a sweep that nothing was measured in
        points = [path / planned.point for path in sweeps for planned in points_in(path)]
        fits += [path for path in points if path not in fits and RunFolder(path).is_training]
    names = name_folders([*fits, *tested])
    runs = [record_of_fit(path, names[path]) for path in fits]
    labels = study.study.labels if study else spec.labels
    trainings = [read_training(run, labels) for run in (study.trainings if study else runs)]
    return Shown(runs, tested, study, trainings, systems)


def _systems(tested: list[Path], names: dict[Path, str], spec: Spec, is_mixed: bool) -> tuple[Systems, Spec]:
    """Return the retrievals, tested against the spec's baseline where it is one of them; and the spec without it.

    Raises:
        UserError: the baseline is none of them, and there is no training that it may be of.
    """
    systems = read_systems(tested, names)
    if spec.baseline is None:
        return systems, spec
    fitting = systems.labels_of(spec.baseline)
    if len(fitting) == 1:
        return systems._replace(baseline=fitting[0]), spec._replace(baseline=None)
    if is_mixed:
        return systems, spec
    if fitting:
        raise UserError(f"baseline {spec.baseline!r} fits {', '.join(map(repr, fitting))}; expected one. Name one of them.")
    known = [row.label for row in systems.rows]
    raise UserError(f"baseline {spec.baseline!r} is no system; {suggest(spec.baseline, known)}. Name one of them.")

"""The matrix of faults and verbs has no hole: every pair is tested, or is named here with the reason why it cannot be.

Its rows are in test_faults_data, _options, _models, _stores, _training, _language, _sweeps, _report, _disk and _surroundings.
"""

import test_faults_data
import test_faults_disk
import test_faults_language
import test_faults_models
import test_faults_options
import test_faults_report
import test_faults_stores
import test_faults_surroundings
import test_faults_sweeps
import test_faults_training

from research.cli import VERBS

FAULTS = (
    "missing file",
    "malformed line",
    "unknown id",
    "duplicate",
    "wrong type",
    "wrong value",
    "mismatched store",
    "unreadable model",
    "full disk",
    "no permission",
    "no network",
    "lost W&B",
    "interrupt",
    "help",
)
EMBEDDED = "reads the embedded data only, which is cut from the running Python"
NO_MODEL = "loads no model"
NO_IDS = "instructions have no ids; two equal ones are two examples"
NO_ROWS = "reads no rows of data"
NO_WANDB = "does not speak to W&B"
NOT_APPLICABLE = {
    ("missing file", "quickstart"): f"{EMBEDDED}; its model is under `unreadable model`",
    ("malformed line", "quickstart"): EMBEDDED,
    ("unknown id", "quickstart"): EMBEDDED,
    ("duplicate", "quickstart"): f"{EMBEDDED}; its options name no data",
    ("mismatched store", "evaluate"): "reads no store; a run of other data is under `unknown id`",
    ("mismatched store", "quickstart"): "names no store; its stages are `retrieve`'s",
    ("unreadable model", "evaluate"): NO_MODEL,
    ("unreadable model", "report"): NO_MODEL,
    ("no network", "report"): "reads local run folders only",
    ("no network", "quickstart"): "needs none, by design; its package is under `unreadable model`",
    ("lost W&B", "encode"): NO_WANDB,
    ("lost W&B", "mine"): NO_WANDB,
    ("lost W&B", "evaluate"): NO_WANDB,
    ("lost W&B", "report"): NO_WANDB,
    ("lost W&B", "validate"): NO_WANDB,
    ("lost W&B", "test"): NO_WANDB,
    ("lost W&B", "quickstart"): "its stages are `retrieve`'s",
    ("unknown id", "generate"): NO_IDS,
    ("unknown id", "tokenize"): NO_IDS,
    ("duplicate", "generate"): NO_IDS,
    ("duplicate", "tokenize"): NO_IDS,
    ("lost W&B", "generate"): NO_WANDB,
    ("lost W&B", "tokenize"): NO_WANDB,
    ("malformed line", "export"): NO_ROWS,
    ("unknown id", "export"): NO_ROWS,
    ("duplicate", "export"): NO_ROWS,
    ("mismatched store", "export"): "reads no store",
    ("lost W&B", "export"): NO_WANDB,
    ("unknown id", "sweep"): "has options, no ids; unknown ones are under `wrong value`",
    ("mismatched store", "sweep"): "reads no store; a plan whose data have changed is in test_sweep",
    ("lost W&B", "sweep"): "does not speak to W&B; its points do, as `fit`",
    ("full disk", "tokenize"): "writes nothing",
    ("no permission", "tokenize"): "writes nothing",
}

SEARCH = "its files and options are asked in test_search.py and test_unjudged.py; its models and disks are `retrieve`'s"
NOT_APPLICABLE |= {(fault, "search"): SEARCH for fault in FAULTS if (fault, "search") not in test_faults_surroundings.COVERED}
ROWS = [
    *test_faults_data.ROWS,
    *test_faults_options.ROWS,
    *test_faults_models.ROWS,
    *test_faults_stores.ROWS,
    *test_faults_training.ROWS,
    *test_faults_language.ROWS,
    *test_faults_surroundings.NETWORK,
    *test_faults_sweeps.ROWS,
    *test_faults_report.ROWS,
]
COVERED = {(row.fault, verb) for row in ROWS for verb in row.verbs.split()}
COVERED |= {*test_faults_disk.COVERED, *test_faults_training.COVERED, *test_faults_surroundings.COVERED}


def test_every_fault_meets_every_verb_or_has_a_reason():
    matrix = {(fault, verb) for fault in FAULTS for verb in VERBS}
    assert matrix - COVERED - NOT_APPLICABLE.keys() == set()
    assert COVERED | NOT_APPLICABLE.keys() == matrix  # no misspelt class or verb
    assert COVERED & NOT_APPLICABLE.keys() == set()
    assert all(NOT_APPLICABLE.values())


def test_every_row_says_value_expectation_and_cure():
    assert [row.what for row in ROWS if not (row.value and row.expected and row.cure)] == []


def test_no_cell_is_written_twice():
    cells = [(row.what, verb, row.options) for row in ROWS for verb in row.verbs.split()]
    assert [cell for cell in set(cells) if cells.count(cell) > 1] == []

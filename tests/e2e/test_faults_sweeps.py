"""Faults as export and sweep meet them."""

import pytest
from faults import Row, cells, furnish, refuse, remove, replace, write

HUB = "tandem-tests/there-is-no-such-model"
AGAIN = "Copy or download it again"
ROWS = [
    Row(
        "missing file",
        "no such model",
        "export",
        "'./nowhere' does not exist",
        "expected a model folder",
        "Check the path",
        "research export ./nowhere --out out",
    ),
    Row(
        "wrong value", "nothing to merge", "export", "holds no adapter", "expected one to merge", "Leave --merge out", "--merge"
    ),
    Row(
        "wrong value",
        "folder that is not empty",
        "export",
        "--out collection exists",
        "expected a new one",
        "Name another",
        "--out collection",
    ),
    Row(
        "wrong type",
        "configuration that is a list",
        "export",
        "holds a JSON list",
        "expected a JSON dict",
        AGAIN,
        breaks=(write("lm/config.json", "[1]"),),
    ),
    Row(
        "unreadable model",
        "no weights",
        "export",
        "lm",
        "needs weights",
        "Save the model again",
        breaks=(remove("lm/model.safetensors"),),
    ),
    Row(
        "unreadable model",
        "malformed configuration",
        "export",
        "config.json",
        "is not valid JSON",
        AGAIN,
        breaks=(write("lm/config.json", "{"),),
    ),
    Row(
        "no network",
        "hub model",
        "export",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        f"research export {HUB} --out out",
    ),
    Row(
        "missing file",
        "no such sweep",
        "sweep",
        "nowhere.yaml cannot be read",
        "expected a YAML file",
        "Check the path",
        "research sweep plan nowhere.yaml",
    ),
    Row(
        "missing file",
        "no such configuration",
        "sweep",
        "'dual.yaml' does not exist",
        "expected a YAML file",
        "Check the path",
        breaks=(remove("dual.yaml"),),
    ),
    Row(
        "malformed line",
        "no YAML",
        "sweep",
        "sweep.yaml is not readable YAML",
        "expected `name: value`",
        "Mend the file",
        breaks=(write("sweep.yaml", "a: ["),),
    ),
    Row(
        "duplicate",
        "point twice",
        "sweep",
        "it computes what seed_everything=1 computes",
        "expected each point once",
        "Leave one out",
        breaks=(replace("sweep.yaml", "[0, 1]", "[1, 1]"),),
    ),
    Row(
        "duplicate",
        "name twice",
        "sweep",
        "'method' is there twice",
        "expected `name: value`",
        "Mend the file",
        breaks=(replace("sweep.yaml", "method: grid", "method: grid\nmethod: grid"),),
    ),
    Row(
        "wrong type",
        "parameter that is a list",
        "sweep",
        "seed_everything is '[0, 1]'",
        "expected `values",
        "Correct it",
        breaks=(replace("sweep.yaml", "{values: [0, 1]}", "[0, 1]"),),
    ),
    Row(
        "wrong type",
        "value of a wrong type",
        "sweep",
        "many",
        "expected",
        "Correct the configuration",
        breaks=(replace("sweep.yaml", "[0, 1]", "[many]"),),
    ),
    Row(
        "wrong value",
        "unknown method",
        "sweep",
        "method is 'gird'",
        "expected grid",
        "Correct it",
        breaks=(replace("sweep.yaml", "grid", "gird"),),
    ),
    Row(
        "wrong value",
        "unknown option",
        "sweep",
        "sed_everything",
        "did you mean",
        "Correct the configuration",
        breaks=(replace("sweep.yaml", "seed_everything", "sed_everything"),),
    ),
    Row(
        "wrong value",
        "point out of range",
        "sweep",
        "seed_everything=-1",
        "expected 0 to",
        "Correct the configuration",
        breaks=(replace("sweep.yaml", "[0, 1]", "[-1]"),),
    ),
    Row(
        "unreadable model",
        "no weights",
        "sweep",
        "model",
        "needs weights",
        "Save the model again",
        breaks=(remove("model/model.safetensors"),),
    ),
    Row(
        "no network",
        "hub model",
        "sweep",
        f"'{HUB}'",
        "Check the spelling and the network",
        "use a local folder",
        breaks=(replace("sweep.yaml", "seed_everything: {values: [0, 1]}", f"model.model: {{values: [{HUB}]}}"),),
    ),
]


@pytest.fixture
def place(collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_is_refused(cell, research, monkeypatch, place):
    refuse(cell, research, monkeypatch)

"""A sweep on data and a model of one's own: --config and --set in its command, with a name and a folder of their own."""

import shlex
from pathlib import Path

import pytest
import yaml

from research.errors import UserError
from research.sweeps.folder import folder_of
from research.sweeps.overlay import Overlay, overlaid
from research.sweeps.preview import scale_varies
from research.sweeps.sampling import sampled_points
from research.sweeps.spec import Sweep, read_sweep

COMMAND = "research fit -c a.yaml --out runs/sweeps/s/{point} ${args}"
PARAMETERS = {
    "model.adapter": {"values": [{"r": 2, "init_args": {"lora_alpha": 4}}]},
    "seed_everything": {"values": [0, 1]},
    "data.batch_size": {"value": 4},
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("trainer: {max_steps: 1}\n")
    return tmp_path


def sweep(command: str = COMMAND) -> Sweep:
    facts = {"method": "grid", "name": "s", "parameters": PARAMETERS, "command": shlex.split(command)}
    Path("s.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))
    return read_sweep(Path("s.yaml"))


def test_words_stand_after_the_configurations_and_before_what_is_swept():
    changed = overlaid(sweep(), Overlay(["own.yaml"], ["data.train=my data.jsonl", "model.model=/m/llama"]))
    argv = changed.argv_of(sampled_points(changed, 0)[0])
    folder = f"runs/sweeps/{changed.name}/{{point}}"
    assert argv[:8] == ["research", "fit", "-c", "a.yaml", "-c", "own.yaml", "--out", folder]
    assert argv[8:10] == ["--data.train=my data.jsonl", "--model.model=/m/llama"]
    assert argv[-3].startswith("--model.adapter=")
    assert argv[-2:] == ["--seed_everything=0", "--data.batch_size=4"]


@pytest.mark.parametrize(
    "command",
    [
        "research fit --out=x/{point} --monitor val/loss ${args}",
        "${env} research fit --out x/{point} -c a.yaml --config b.yaml ${args}",
        "python -m research fit --config=a.yaml --out ./{point} ${args_no_equals}",
    ],
)
def test_commands_of_other_forms_have_their_folder_moved(command):
    words = overlaid(sweep(command), Overlay(["own.yaml"], ["data.train=m.jsonl"])).command
    place = words.index("own.yaml")
    assert words[place - 1] == "-c"
    assert not any(word in ("-c", "--config") or word.startswith("--config=") for word in words[place:])
    assert words.index("fit") < place < words.index("--data.train=m.jsonl") == len(words) - 2
    assert any("-own-m-" in word and word.endswith("/{point}") for word in words)


def test_two_data_sets_have_names_and_folders_of_their_own():
    sweeps = [overlaid(sweep(), Overlay((), [f"data.train={folder}/train.jsonl"])) for folder in ("nq", "squad")]
    sweeps += [sweep(), overlaid(sweep(), Overlay((), ["model.optimisation.lr=1e-4"]))]
    assert len({one.name for one in sweeps}) == len({folder_of(one) for one in sweeps}) == 4
    for one in sweeps:
        assert folder_of(one) == Path("runs/sweeps") / one.name
    assert sweeps[0].name.startswith("s-train-")
    assert sweeps[3].name.startswith("s-lr1e-4-")


def test_name_and_folder_can_be_chosen():
    named = overlaid(sweep(), Overlay((), ["data.train=m.jsonl"], "mine"))
    assert (named.name, folder_of(named)) == ("mine", Path("runs/sweeps/mine"))
    moved = overlaid(sweep(), Overlay((), (), None, Path("/scratch/x")))
    assert (moved.name, folder_of(moved)) == ("s", Path("/scratch/x"))


def test_what_is_written_for_workers_and_w_and_b_is_the_same_sweep():
    changed = overlaid(sweep(), Overlay(["own.yaml"], ["data.train=a\nb.jsonl"]))
    Path("copy.yaml").write_text(changed.text)
    again = read_sweep(Path("copy.yaml"))
    assert (again.content, again.name, again.command) == (changed.content, changed.name, changed.command)
    assert sweep().text == Path("s.yaml").read_text()


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        (Overlay((), ["data.train"]), "expected NAME=VALUE"),
        (Overlay((), ["--data.train=x"]), "expected NAME=VALUE"),
        (Overlay((), ["out=x"]), "expected --out DIR"),
        (Overlay((), ["config=x"]), "expected --config YAML"),
        (Overlay((), ["seed_everything=3"]), "the sweep varies seed_everything"),
        (Overlay((), ["model.adapter.r=3"]), "the sweep varies model.adapter.r"),
        (Overlay((), ["model.init_args.adapter.init_args.lora_alpha=3"]), "the sweep varies model.adapter.lora_alpha"),
        (Overlay((), ["data.batch_size=3"]), "the sweep varies data.batch_size"),
        (Overlay((), ["data.train=a", "data.init_args.train=b"]), "data.train twice"),
        (Overlay(["nowhere.yaml"]), "--config nowhere.yaml does not exist"),
        (Overlay((), (), "a/b"), "expected a name that a folder can have"),
    ],
)
def test_what_would_change_nothing_is_refused(overlay, says):
    with pytest.raises(UserError) as error:
        overlaid(sweep(), overlay)
    assert says in str(error.value)


def test_what_the_command_would_win_over_is_refused():
    behind = "research fit -c a.yaml --out x/{point} ${args} --trainer.max_steps=3"
    with pytest.raises(UserError, match=r"sets trainer.max_steps after \$\{args\}"):
        overlaid(sweep(behind), Overlay((), ["trainer.max_steps=4"]))
    with pytest.raises(UserError, match="a command that is no `research fit`"):
        overlaid(sweep("sh run.sh ${args}"), Overlay((), ["trainer.max_steps=4"]))
    assert overlaid(sweep("sh run.sh ${args}"), Overlay()).name == "s"


def test_an_option_beside_those_of_a_swept_mapping_can_be_set():
    changed = overlaid(sweep(), Overlay((), ["model.adapter.lora_dropout=0.1"]))
    assert "--model.adapter.lora_dropout=0.1" in changed.command


@pytest.mark.parametrize(
    ("points", "noted"),
    [
        ([{"model.adapter.init_args.r": 4}, {"model.adapter.init_args.r": 8}], True),
        ([{"model": {"adapter.init_args.r": 4}}, {"model": {"adapter.init_args.r": 8}}], True),
        ([{"model.adapter.r": 4, "seed_everything": 0}, {"model.adapter.r": 4, "seed_everything": 1}], False),
        (
            [{"model.adapter.r": 4, "model.adapter.lora_alpha": 8}, {"model.adapter.r": 8, "model.adapter.lora_alpha": 16}],
            False,
        ),
        ([{"model.adapter.r": 4, "model.adapter.alpha": 4}, {"model.adapter.r": 8, "model.adapter.alpha": 4}], False),
        ([{"model.optimisation.lr": 0.1}, {"model.optimisation.lr": 0.2}], False),
    ],
)
def test_a_rank_that_varies_with_its_scale_is_noted(points, noted):
    assert scale_varies(points).startswith("note: model.adapter.r varies and lora_alpha does not") == noted

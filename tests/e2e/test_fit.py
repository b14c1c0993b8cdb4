"""fit, validate and test as a user types them, on a tiny model."""

import json
import re
import signal
from pathlib import Path

import fitting
import pytest
import torch
import yaml
from fitting import process, same_run, signalled

from research.training import dual_encoder
from research.training.dual_encoder import DualEncoderModule
from tests.conftest import write_collection

FIT = "fit -c dual.yaml"
LONG = "fit -c dual.yaml --trainer.max_epochs 40 --trainer.check_val_every_n_epoch 8"  # 200 steps, some seconds


@pytest.fixture
def place(tmp_path, tiny_bert, monkeypatch) -> Path:
    fitting.furnish(tmp_path, tiny_bert, monkeypatch)
    return tmp_path


@pytest.fixture
def typed(research, place):
    """typed("fit -c dual.yaml") → Result, in this process; it must succeed unless a code is named."""

    def run(line: str, code: int = 0):
        result = research(*line.split())
        assert result.code == code, result.err
        assert "Traceback" not in result.err
        return result

    return run


@pytest.fixture
def candidates(typed) -> None:
    """What the cross-encoder trains on and re-orders."""
    typed(fitting.MINE)
    typed(fitting.RETRIEVE.format(split="dev", out="first"))
    typed(fitting.RETRIEVE.format(split="test", out="testrun"))


def finished(folder: str) -> dict:
    return json.loads(Path(folder, "metrics.json").read_text())


# ---- what a run leaves ----------------------------------------------------------------------------------------------


def test_fit_leaves_a_run_folder_that_explains_itself(typed):
    result = typed(FIT)
    assert {path.name for path in Path("run").iterdir()} >= {
        "config.yaml",
        "model",
        "metrics.json",
        "curves.jsonl",
        "provenance.json",
    }
    assert not {*Path("run").glob("*.ckpt")} | {*Path("run").glob("checkpoints.json")}  # nobody goes on from it
    freed = r"run: finished; 2 checkpoints removed, [\d.]+ MB freed \(--keep_checkpoints true keeps them\)"
    assert re.search(freed, result.err)
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["model"]["init_args"]["temperature"] == 0.05  # a default that dual.yaml does not name
    assert config["data"]["init_args"]["batch_size"] == 4
    facts = json.loads(Path("run/provenance.json").read_text())
    assert facts["command"] == ["research", *FIT.split()]
    assert (facts["seed"], facts["device"]) == (0, "cpu")
    assert facts["data"]["queries"] == 20
    assert len(facts["model_hash"]) == 64
    assert {"git_commit", "git_dirty", "packages"} <= facts.keys()
    steps = [line["step"] for line in fitting.curve("run")]
    assert steps == sorted(steps)
    assert [line["step"] for line in fitting.curve("run") if "val/mrr@10" in line] == [0, 5, 10, 15]
    assert [line["step"] for line in fitting.curve("run") if "train/loss" in line] == [*range(1, 16)]
    assert re.search(r"^mrr@10 +0\.\d{4}   \[0\.\d{4}, \d\.\d{4}\]   untrained 0\.\d{4}$", result.out, re.MULTILINE)
    low, high = finished("run")["intervals"]["mrr@10"]
    assert low <= finished("run")["metrics"]["mrr@10"] <= high
    assert result.out.rstrip().endswith("written to run")


def test_a_device_is_chosen_by_its_name(typed):
    if not torch.cuda.is_available():
        for line in (FIT, "validate -c dual.yaml", "encode --data beir:collection --model ./model --out store"):
            said = typed(f"{line} --device cuda:0", code=2).err
            assert "--device cuda:0 is not there; expected one of cpu, or auto" in said
    typed(f"{FIT} --device cpu")
    assert json.loads(Path("run/provenance.json").read_text())["device"] == "cpu"
    assert yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]["devices"] == 1


def test_checkpoints_of_a_finished_run_stay_where_they_are_asked_for(typed):
    """They say nothing of what is computed: the run without the option is the same one, and is measured alike."""
    result = typed(f"{FIT} --keep_checkpoints true --json")
    assert sorted(path.name for path in Path("run").glob("*.ckpt")) == ["step-00000014.ckpt", "step-00000015.ckpt"]
    assert "finished before" in typed(FIT).err
    typed(f"{FIT} --out other")
    for name in ("run", "other"):
        assert typed(f"validate {name} --json").json["metrics"] == pytest.approx(result.json["metrics"])
    assert finished("run")["metrics"] == finished("other")["metrics"]


@pytest.mark.parametrize("line", [FIT, "fit -c cross.yaml"])
def test_a_run_keeps_what_the_best_model_ranked_first(typed, candidates, line):
    """For reports: the verdicts are those of the metric, and `research test` keeps its own."""
    typed(f"{line} --out run")
    found = finished("run")
    assert found["answers"].keys() == found["per_query"]["mrr@10"].keys()  # no more than 32 queries here
    for query, told in found["answers"].items():
        assert told["answer"].startswith("✓ relevant: ") == (found["per_query"]["mrr@10"][query] == 1.0), told
        assert told["reference"]
        assert told["prompt"]
    typed(f"{line.replace('fit', 'test')} --out run")
    tested = json.loads(Path("run/test.json").read_text())
    assert tested["answers"].keys() == tested["per_query"]["mrr@10"].keys()


def test_json_is_one_line_of_the_best_validation(typed):
    result = typed(FIT + " --json")
    metrics = result.json["metrics"]
    assert result.json == {"metrics": metrics, "out": "run"}
    best = max(
        (line for line in fitting.curve("run") if line.get("step") and "val/mrr@10" in line),
        key=lambda line: line["val/mrr@10"],
    )
    assert metrics == {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")}
    assert finished("run")["step"] == best["step"]


def test_retriever_is_a_run_folder(typed):
    metrics = typed(FIT + " --json").json["metrics"]
    found = typed("retrieve --data beir:collection --split dev --retriever run --out found --json")
    assert found.json["metrics"]["mrr@10"] == pytest.approx(metrics["mrr@10"], abs=1e-6)


def test_reranker_is_a_run_folder(typed, candidates):
    metrics = typed("fit -c cross.yaml --json").json["metrics"]
    found = typed("retrieve --data beir:collection --split dev --retriever bm25 --reranker cross --depth 8 --out found --json")
    assert found.json["metrics"]["mrr@10"] == pytest.approx(metrics["mrr@10"], abs=1e-6)


def test_same_command_again_trains_nothing(typed, monkeypatch):
    first = typed(FIT + " --json")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    monkeypatch.setattr("lightning.Trainer.fit", None)
    again = typed(FIT + " --json")
    assert "run: finished before; nothing is trained again" in again.err
    assert again.out == first.out
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_configuration_that_was_refused_can_be_corrected_in_its_folder(typed):
    assert "batch_size=21" in typed(FIT + " --data.batch_size 21", code=2).err
    typed(FIT)


def test_training_that_diverges_says_so(typed):
    result = typed(FIT + " --model.optimisation.lr 1e30 --model.optimisation.clip null", code=3)
    assert "error: the training diverged" in result.err
    assert result.out == ""


# ---- validate, test -------------------------------------------------------------------------------------------------


def test_validate_gives_the_numbers_of_the_best_validation(typed):
    best = typed(FIT + " --json").json
    result = typed("validate -c run/config.yaml --json")
    assert result.json["metrics"] == pytest.approx(best["metrics"])
    kept = json.loads(Path("run/validate.json").read_text())
    assert (kept["metrics"], kept["model"]) == (result.json["metrics"], "run/model")
    assert len(kept["per_query"]["mrr@10"]) == 20


def test_test_measures_the_test_split(typed):
    typed(FIT)
    result = typed("test -c run/config.yaml --data.test_split test --json")
    found = typed("retrieve --data beir:collection --split test --retriever run --out found --json")
    kept = json.loads(Path("run/test.json").read_text())
    assert kept["metrics"] == result.json["metrics"]
    assert kept["metrics"]["mrr@10"] == pytest.approx(found.json["metrics"]["mrr@10"], abs=1e-6)


@pytest.mark.parametrize(("precision", "said"), [("bf16-mixed", "bf16-mixed"), ("32-true", "fp32")])
def test_printed_numbers_say_their_precision(typed, precision, said):
    """`retrieve` on the same model computes in fp32, and its numbers differ a little from those of bf16."""
    command = f"{FIT} --trainer.precision {precision}"
    for line in (command, command, "test -c run/config.yaml --data.test_split test"):  # trained, found finished, tested
        assert f"; computed in {said}]" in typed(line).out


def test_cross_encoder_is_validated_and_tested(typed, candidates):
    best = typed("fit -c cross.yaml --json").json
    assert typed("validate -c cross/config.yaml --json").json["metrics"] == pytest.approx(best["metrics"])
    assert len(json.loads(Path("cross/validate.json").read_text())["per_query"]["mrr@10"]) == 20
    typed("test -c cross/config.yaml")
    assert Path("cross/test.json").exists()


def test_validate_without_a_run_measures_the_model_that_would_be_trained(typed):
    result = typed("validate -c dual.yaml --json")
    assert "run/model does not exist yet" in result.err
    assert result.json["out"] is None
    assert not Path("run").exists()
    typed(FIT)
    assert finished("run")["untrained"] == pytest.approx(result.json["metrics"])


def test_config_of_a_run_folder_means_that_folder_from_anywhere(typed, place, monkeypatch):
    typed(FIT)
    trained = finished("run")["metrics"]
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    config["data"]["init_args"]["train"] = f"beir:{place}/collection"
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    Path("run").rename("moved")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    result = typed("validate -c ../moved/config.yaml --json")
    assert result.json["metrics"] == pytest.approx(trained)
    assert Path(result.json["out"]).resolve() == place / "moved"


def test_queries_that_are_trained_and_validated_on_are_counted(typed):
    result = typed(f"{FIT} --data.val_split test")
    count = json.loads(Path("run/provenance.json").read_text())["data"]["val_trained"]
    assert count > 0
    assert f"warning: {count} of the {count} queries of beir:collection split 'test' (val) are trained on too" in result.err


def test_learned_temperature_does_not_stand_in_for_the_learning_rate(typed):
    typed(f"{FIT} --model.learn_temperature true --model.temperature_lr 0.5 --model.optimisation.lr 1e-4")
    rates = [line["train/lr"] for line in fitting.curve("run") if "train/lr" in line]
    assert rates
    assert max(rates) <= 1e-4


def test_metrics_deeper_than_a_hundred_are_of_as_many_documents(typed, monkeypatch):
    from research.training import validation

    monkeypatch.setattr(validation, "TOP_K", 2)  # the collection has 60 documents
    typed(f"{FIT} --model.metrics [mrr@10,recall@60]")
    assert finished("run")["metrics"]["recall@60"] == 1.0


# ---- stopped and resumed --------------------------------------------------------------------------------------------


@pytest.mark.sample(1)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 85), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_signal_stops_with_a_checkpoint_and_the_same_command_goes_on(number, code, typed):
    stopped = signalled(number, LONG, until="run/checkpoints.json")
    assert (stopped.code, stopped.out) == (code, "")
    assert re.search(r"stopped; the same command goes on from step-\d+\.ckpt$", stopped.err.rstrip())
    assert "Traceback" not in stopped.err
    resumed = typed(LONG)
    assert re.search(r"run: going on from step-\d+\.ckpt", resumed.err)
    typed(f"{LONG} --out straight")
    same_run("run", "straight")


@pytest.mark.sample(1)
@pytest.mark.parametrize("more", ["", " --model.optimisation.accumulate 2"])
def test_signal_to_all_processes_of_a_job_leaves_the_workers_to_the_last_step(more, typed):
    """A cluster signals every process; a data worker that dies first would take the checkpoint with it."""
    line = f"{LONG} --data.workers 2{more}"
    stopped = signalled(signal.SIGTERM, line, until="run/checkpoints.json", group=True)
    assert stopped.code == 85, stopped.err
    assert "Traceback" not in stopped.err
    assert "goes on from step-" in stopped.err


@pytest.mark.thorough
def test_killed_after_a_checkpoint_the_same_command_equals_a_straight_run(typed):
    killed = signalled(signal.SIGKILL, LONG, until="run/checkpoints.json")
    assert killed.code == -signal.SIGKILL
    assert "going on from step-" in typed(LONG).err
    typed(f"{LONG} --out straight")
    same_run("run", "straight")


def test_signal_before_the_first_step_stops_at_once(typed, monkeypatch):
    monkeypatch.setattr("research.training.dual_encoder.evaluate_retrieval", lambda *_: signal.raise_signal(signal.SIGTERM))
    result = typed(FIT, code=85)
    assert "stopped; the same command begins anew" in result.err
    monkeypatch.undo()


EMA = " --trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging --trainer.callbacks.decay 0.5"
LEFT = {
    "end of an epoch": (2, "", 5),
    "within an epoch": (3, " --trainer.val_check_interval 2", 4),
    "after the last step": (4, "", 15),
    "of a training that ends between two": (2, " --trainer.max_steps 7 --trainer.check_val_every_n_epoch 9", 7),
    "of averaged weights": (2, EMA, 5),
    "of averaged weights after the last step": (4, EMA, 15),
}
"""Where a validation is left → which of the training's, the untrained model's being the first; further options; the step."""


@pytest.mark.parametrize("comes", ["within", "before"])
@pytest.mark.parametrize("case", LEFT)
def test_a_signal_leaves_a_validation_which_comes_first_when_it_goes_on(case, comes, typed, monkeypatch):
    """Preemption gives a training seconds, and a validation may take minutes."""
    number, more, step = LEFT[case]
    validate, step_of, begun = dual_encoder.evaluate_retrieval, DualEncoderModule.training_step, []

    def within(*arguments):
        begun.append(len(begun) + 1)
        if comes == "within" and begun[-1] == number:
            signal.raise_signal(signal.SIGTERM)
            begun.append("went on")
        return validate(*arguments)

    def before(module, *arguments):
        if comes == "before" and module.global_step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return step_of(module, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(dual_encoder, "evaluate_retrieval", within)
        patch.setattr(DualEncoderModule, "training_step", before)
        stopped = typed(FIT + more, code=85)
    assert f"the same command goes on from step-{step:08}.ckpt" in stopped.err
    assert "went on" not in begun
    assert begun.count(number) == (comes == "within")
    assert f"going on from step-{step:08}.ckpt" in typed(FIT + more).err
    typed(f"{FIT}{more} --out straight")
    same_run("run", "straight")


def test_second_interrupt_stops_within_the_step(typed, monkeypatch):
    def twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("research.training.dual_encoder.embed", twice)
    assert typed(FIT, code=130).out == ""


@pytest.mark.parametrize("validated", [True, False])
def test_killed_between_the_last_checkpoint_and_the_end_finishes(validated, typed):
    command = FIT + ("" if validated else " --data.val_split null")
    typed(command + " --out straight")
    typed(command)
    if validated:
        metrics = finished("run")
        Path("run/metrics.json").write_text(json.dumps({n: v for n, v in metrics.items() if n != "finished"}))
    else:
        Path("run/metrics.json").unlink()  # it comes after the last checkpoint, with the model
    typed(command)
    assert finished("run")["finished"]
    same_run("run", "straight")


# ---- a world that breaks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_checkpoint_that_cannot_be_written_is_a_warning(error, typed, monkeypatch):
    typed(FIT + " --out straight")

    def full(*_, **__):
        raise error

    monkeypatch.setattr("torch.save", full)
    result = typed(FIT)
    assert "warning: cannot write run/step-00000004.ckpt" in result.err
    assert "Training goes on" in result.err
    assert not list(Path("run").glob("*.ckpt")) + list(Path("run").glob(".*.tmp"))
    same_run("run", "straight")


def test_list_of_checkpoints_that_cannot_be_written_is_a_warning(typed, monkeypatch):
    from research.training import resume

    write = resume.write_json

    def full(path, value):
        if path.name == "checkpoints.json":
            from research.errors import UserError

            raise UserError(f"cannot write {path}: No space left on device.")
        write(path, value)

    monkeypatch.setattr("research.training.resume.write_json", full)
    assert "warning: cannot write run/checkpoints.json" in typed(FIT).err


def test_best_model_that_finds_no_room_is_written_at_the_end(typed, monkeypatch):
    typed(FIT + " --out straight --model.optimisation.lr 1e-9")  # the first validation stays the best
    from research.training.dual_encoder import DualEncoderModule

    save, calls = DualEncoderModule.save, []

    def full(self, folder):
        calls.append(folder)
        if len(calls) < 3:
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(DualEncoderModule, "save", full)
    result = typed(FIT + " --model.optimisation.lr 1e-9")
    assert result.err.count("warning: the best model so far is not on the disk (cannot write run/model") == 2
    assert len(calls) == 3
    same_run("run", "straight")


def test_best_model_that_never_finds_room_is_refused_and_trained_again_with_room(typed, monkeypatch):
    typed(FIT + " --out straight")
    from research.training.dual_encoder import DualEncoderModule

    def full(self, folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DualEncoderModule, "save", full)
        result = typed(FIT, code=2)
    assert result.err.splitlines()[-1].startswith("error: cannot write run/model: ")
    assert not Path("run/metrics.json").exists()
    typed(FIT)
    same_run("run", "straight")


def test_curves_that_cannot_be_written_are_one_warning(typed, monkeypatch):
    from research.training import curves

    def closed(path, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves, "open", closed, raising=False)
    result = typed(FIT)
    assert result.err.count("warning: run/curves.jsonl cannot be written") == 1


def test_wandb_offline_keeps_its_files_in_the_run_folder(place):
    result = process(*FIT.split(), "--wandb", "offline", env={"WANDB_MODE": "offline"})
    assert result.code == 0, result.err
    assert "W&B: offline, files in run/wandb" in result.err
    assert list(Path("run/wandb").glob("offline-run-*"))


def test_wandb_that_is_lost_on_the_way_does_not_end_training(typed, monkeypatch):
    import wandb

    class Run:
        def log(self, values, step):
            raise wandb.errors.CommError("gone")

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    result = typed(FIT + " --wandb online")
    assert result.err.count("warning: W&B failed (CommError: gone); the run goes on") == 1
    assert finished("run")["finished"]


# ---- what the user reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_help_with_a_configuration_lists_its_options_and_their_values(verb, typed):
    text = typed(f"{verb} -c dual.yaml --help").out
    assert not Path("run").exists()
    # the values of dual.yaml, the class's own where it says nothing; model and data first, the trainer's last
    shown = (
        "--model.temperature 0.05",
        "--model.optimisation.lr 0.001",
        "--data.batch_size 4",
        "--out run",
        "--trainer.max_epochs 3",
    )
    assert [text.find(option) for option in shown] == sorted(text.find(option) for option in shown)
    assert all(option in text for option in shown)
    assert "--model.query_max_length null tokens; null takes the model's own" in " ".join(
        text.split()
    )  # docstrings are the help
    assert "AdamW and its schedule" in text
    assert "--trainer.gradient_clip_val" not in text
    assert "--trainer.fast_dev_run" not in text


def test_help_shows_the_options_of_an_adapter(typed):
    """With their values there, and PEFT's own words; what every adapter has comes last."""
    Path("lora.yaml").write_text(
        "model:\n  init_args:\n    adapter:\n      class_path: peft.LoraConfig\n      init_args:\n        r: 4\n",
        encoding="utf-8",
    )
    text = typed("fit -c dual.yaml -c lora.yaml --help").out
    assert "--model.adapter peft.LoraConfig" in text
    assert "--model.adapter.r 4 Lora attention dimension" in " ".join(text.split())
    assert (
        text.index("--model.adapter.r 4") < text.index("--model.adapter.lora_alpha") < text.index("--model.adapter.peft_type")
    )


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ("", 15),
        ("--trainer.max_steps 4", 4),
        ("--trainer.max_steps 4 --model.optimisation.accumulate 2", 8),
        ("--trainer.max_epochs -1 --trainer.max_steps 7", 7),
    ],
)
def test_bar_knows_how_long_the_training_is(options, batches, typed, monkeypatch):
    totals = []

    def bar(total, *args, **kwargs):
        totals.append(total)
        return tqdm(total=total, disable=True)

    from tqdm import tqdm

    monkeypatch.setattr("research.training.progress.bar", bar)
    typed(f"{FIT} {options}")
    assert totals == [batches]


def test_every_line_of_stderr_says_something_of_this_run(typed, candidates):
    """In a process of its own, where no other test has silenced anything."""
    result = process("fit", "-c", "cross.yaml")
    assert result.code == 0
    expected = (
        r"model has no head that scores; a new one is drawn at random, to be trained",
        r"\./model: [\d,]+ parameters to train; candidates\.jsonl: \d+ queries; validation on 20 queries and 60 documents; 1 × "
        r"cpu, 32-true",
        r"before reranking: mrr@10 \d\.\d{4}, ndcg@10 \d\.\d{4}",
        r"untrained: val/mrr@10 \d\.\d{4}, val/ndcg@10 \d\.\d{4}",
        r"step \d+: val/mrr@10 \d\.\d{4}, val/ndcg@10 \d\.\d{4}",
        r"train: .*batch.*",
        r"first/bm25\.trec: 2 of the 20 queries have no ranking, .*q1.* for example, and count 0",
        r"candidates\.jsonl: (7 negatives a query.*|left out: 1 without a negative)",
        r"warning: (the validation's 20 examples are too few|on the validation's 20 examples the change) .*",
        r"cross: finished; 2 checkpoints removed, [\d.]+ MB freed \(--keep_checkpoints true keeps them\)",
    )
    unexpected = [line for line in result.err.splitlines() if not any(re.fullmatch(one, line) for one in expected)]
    assert unexpected == []


@pytest.mark.parametrize("kind", ["dual", "cross"])
def test_a_run_is_tested_on_other_data_than_it_is_validated_on(typed, candidates, kind):
    """data.test, as the language models have it; the numbers are those that a validation on these data has."""
    write_collection(Path("other"), documents=40, queries=12)
    out = {"dual": "run", "cross": "cross"}[kind]
    options = "--data.test beir:other --data.test_split dev"
    if kind == "cross":
        typed("retrieve --data beir:other --split dev --retriever bm25 --out otherrun")
        options += " --data.test_run otherrun/bm25.trec"
    typed(f"fit -c {kind}.yaml {options}")
    tested = typed(f"test {out} --json").json["metrics"]
    as_validation = options.replace("data.test", "data.val")
    assert typed(f"validate {out} {as_validation} --json").json["metrics"] == pytest.approx(tested)
    assert json.loads(Path(out, "test.json").read_text())["metrics"] == tested


def test_queries_that_are_trained_and_tested_on_are_counted(typed):
    typed(f"{FIT} --data.test_split test --data.val_split null")
    tested = typed("test -c run/config.yaml")
    assert tested.code == 0
    assert "queries of beir:collection split 'test' (test) are trained on too" in tested.err
    measured = json.loads(Path("run/test.json").read_text())
    assert measured["trained_rows"] == len(measured["per_query"]["ndcg@10"])


@pytest.mark.parametrize(
    ("kind", "length", "expected", "facts"),
    [
        (
            "dual",
            "--model.doc_max_length 8",
            r"(warning: )?\d+ of 20 documents that are trained on are longer than the 8 tokens that \./model reads of them; .* "
            r"\(--model\.doc_max_length reads more, up to 64; .*\)",
            {"cut_documents", "cut_queries"},
        ),
        (
            "cross",
            "--model.max_length 8",
            r"warning: \d+ of \d+ pairs of query and document that are trained on are longer than the 8 tokens .*"
            r"\(--model\.max_length reads more, up to 64; .*\)",
            {"cut_pairs"},
        ),
    ],
)
def test_texts_that_are_longer_than_the_model_reads_are_counted(typed, candidates, kind, length, expected, facts):
    result = typed(f"fit -c {kind}.yaml {length} --trainer.max_steps 2")
    lines = result.err.splitlines()
    assert sum(bool(re.fullmatch(expected, line)) for line in lines) == 1, result.err
    measured = [line for line in lines if "that are measured on are longer" in line]
    assert len(measured) == 1, result.err  # once, though it is validated before and after
    provenance = json.loads(Path("run" if kind == "dual" else "cross", "provenance.json").read_text())
    assert facts == {name for name in provenance if name.startswith("cut_")}

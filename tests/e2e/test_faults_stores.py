"""Embeddings and indexes of something else, unfinished, or damaged: refused, never searched."""

import json
from pathlib import Path

import pytest
from faults import COMMANDS, MAKE_RUN, MAKE_STORE, Row, append, cells, copy, cut, furnish, refuse, remove, replace, write

CORPUS = "collection/corpus.jsonl"
HNSW = "--index hnsw"
MAKE_INDEX = COMMANDS["retrieve"].replace("--out out", "--out indexed --index hnsw")
AGAIN = "encode again"
REBUILD = "to build it again"


def another_model(_) -> None:
    """The same architecture with one other weight."""
    from safetensors.torch import load_file, save_file

    weights = load_file("model/model.safetensors")
    weights["encoder.layer.0.output.dense.weight"] += 0.1
    save_file(weights, "model/model.safetensors", metadata={"format": "pt"})


def unfinished(_) -> None:
    """As a kill leaves a store: the first lines of its journal, and rows of nothing."""
    key = json.loads(Path("store/store.json").read_text())["key"]
    Path("store/journal.jsonl").write_text(json.dumps({"key": key, "environment": {}}) + "\n[0, 8]\n")
    for name in ("store.json", "ids.json"):
        Path("store", name).unlink()


def permuted_ids(_) -> None:
    ids = json.loads(Path("store/ids.json").read_text())
    Path("store/ids.json").write_text(json.dumps(ids[::-1]))


def in_index(name: str, act):
    """`act(path)` on a file of the one HNSW folder in the cache."""
    return lambda patch: act(str(next(Path("cache/hnsw").glob(f"*/{name}"))))(patch)


def other_bytes(path: str):
    def act(_):
        content = bytearray(Path(path).read_bytes())
        content[96:] = bytes(255 - byte for byte in content[96:])
        Path(path).write_bytes(content)

    return act


def doubles(_) -> None:
    import numpy as np

    np.save("store/embeddings.npy", np.load("store/embeddings.npy").astype(np.float64))


def mismatched(what: str, value: str, expected: str, cure: str, *breaks, verb="retrieve", options="--embeddings store"):
    return Row("mismatched store", what, verb, value, expected, cure, options, breaks, (MAKE_STORE,))


def index(what: str, value: str, expected: str, cure: str, *breaks) -> Row:
    return Row("mismatched store", what, "retrieve mine", value, expected, cure, HNSW, breaks, (MAKE_INDEX,))


EMBEDDINGS = [
    mismatched(
        "embeddings of another model",
        "store holds embeddings of model './model'",
        "expected key",
        "Name the folder made from these",
        another_model,
    ),
    mismatched(
        "embeddings of other texts",
        "30 texts",
        "expected key",
        "Name the folder made from these",
        append(CORPUS, '{"_id": "d30", "text": "more"}'),
    ),
    mismatched(
        "embeddings of one changed text",
        "30 texts",
        "expected key",
        "Name the folder made from these",
        replace(CORPUS, '"text": "', '"text": "other '),
    ),
    mismatched(
        "embeddings of another max length",
        "store holds",
        "expected key",
        "Name the folder made from these",
        options="--embeddings store --max-length 6",
    ),
    mismatched(
        "embeddings of another pooling",
        "store holds",
        "expected key",
        "Name the folder made from these",
        options="--embeddings store --pooling cls",
    ),
    mismatched("unfinished store", "store/store.json is missing", "not one this tool finished", "Make it again", unfinished),
    mismatched(
        "store.json is not JSON",
        "store/store.json",
        "expected a file this tool wrote",
        "run again",
        cut("store/store.json", 40),
    ),
    mismatched(
        "store.json is an array",
        "store/store.json",
        "expected key, ids, count, dim and sha256",
        AGAIN,
        write("store/store.json", "[]"),
    ),
    mismatched(
        "ids.json cut short", "store/ids.json", "expected a file this tool wrote", "run again", cut("store/ids.json", -5)
    ),
    mismatched("ids.json in another order", "store/ids.json", "expected 30", AGAIN, permuted_ids),
    mismatched(
        "ids.json of numbers", "store/ids.json", "expected 30", AGAIN, write("store/ids.json", json.dumps(list(range(30))))
    ),
    mismatched(
        "no ids.json", "store/ids.json is missing", "not one this tool finished", "Make it again", remove("store/ids.json")
    ),
    mismatched(
        "embeddings.npy cut short", "store/embeddings.npy", "expected 30 float32 rows", AGAIN, cut("store/embeddings.npy", -32)
    ),
    mismatched(
        "embeddings.npy cut in the header",
        "store/embeddings.npy",
        "expected 30 float32 rows",
        AGAIN,
        cut("store/embeddings.npy", 20),
    ),
    mismatched(
        "empty embeddings.npy", "store/embeddings.npy", "expected 30 float32 rows", AGAIN, cut("store/embeddings.npy", 0)
    ),
    mismatched("no embeddings.npy", "store/embeddings.npy", "expected 30 float32 rows", AGAIN, remove("store/embeddings.npy")),
    mismatched("embeddings.npy of another type", "float64", "expected float32 of (30, 32)", AGAIN, doubles),
    mismatched(
        "--embeddings is a run folder",
        "run/store.json is missing",
        "not one this tool finished",
        "Make it again",
        options="--embeddings run",
    )._replace(before=(MAKE_RUN,)),
]

INTO = [
    mismatched(
        "--out is another model's store",
        "store holds embeddings of model './model'",
        "expected key",
        "or another",
        another_model,
        verb="encode",
        options="--out store",
    ),
    mismatched(
        "--out is a store of other texts",
        "store holds embeddings",
        "expected key",
        "or another",
        append(CORPUS, '{"_id": "d30", "text": "more"}'),
        verb="encode",
        options="--out store",
    ),
    mismatched(
        "--out is another model's unfinished store",
        "store holds unfinished embeddings of another model",
        "finish those first",
        "name another folder",
        unfinished,
        another_model,
        verb="encode",
        options="--out store",
    ),
    mismatched(
        "--out is a damaged store",
        "store/embeddings.npy",
        "expected 30 float32 rows",
        AGAIN,
        cut("store/embeddings.npy", -32),
        verb="encode",
        options="--out store",
    ),
]

INDEXES = [
    index(
        "index of another M",
        "M is 8",
        "expected 16",
        REBUILD,
        in_index("index.json", lambda p: replace(p, '"M": 16', '"M": 8')),
    ),
    index(
        "index of another space",
        "space is 'l2'",
        "expected 'cosine'",
        REBUILD,
        in_index("index.json", lambda p: replace(p, '"space": "cosine"', '"space": "l2"')),
    ),
    index(
        "index of another model",
        "model_hash is 'f00",
        "expected '",
        REBUILD,
        in_index("index.json", lambda p: replace(p, '"model_hash": "', '"model_hash": "f00')),
    ),
    index(
        "index of other ids",
        "ids is 'f00",
        "expected '",
        REBUILD,
        in_index("index.json", lambda p: replace(p, '"ids": "', '"ids": "f00')),
    ),
    index(
        "sidecar is not JSON",
        "index.json",
        "expected a file this tool wrote",
        "Delete it",
        in_index("index.json", lambda p: cut(p, 30)),
    ),
    index(
        "sidecar is an array",
        "index.json",
        "expected an object with",
        REBUILD,
        in_index("index.json", lambda p: write(p, "[]")),
    ),
    index(
        "sidecar without the size",
        "index.json",
        "expected an object with",
        REBUILD,
        in_index("index.json", lambda p: replace(p, '"bytes"', '"was"')),
    ),
    index("index cut short", "index.bin", "its sidecar says", REBUILD, in_index("index.bin", lambda p: cut(p, -8))),
    index("no index", "index.bin is missing", "its sidecar says", REBUILD, in_index("index.bin", remove)),
    index("index of other bytes", "index.bin", "expected sha256", REBUILD, in_index("index.bin", other_bytes)),
    Row(
        "mismatched store",
        "embeddings in the cache cut short",
        "retrieve mine",
        "embeddings.npy",
        "expected 30 float32 rows",
        AGAIN,
        "",
        (lambda patch: cut(str(next(Path("cache/embeddings").glob("*/embeddings.npy"))), -32)(patch),),
        (COMMANDS["retrieve"].replace("--out out", "--out other"),),
    ),
]

RUNS = [
    Row(
        "mismatched store",
        "runs of different splits",
        "report",
        "split dev",
        "cannot be compared",
        "Make one report for each",
        "research report run run2 --out out",
        before=(MAKE_RUN, MAKE_RUN.replace("test", "dev") + "2"),
    ),
    Row(
        "mismatched store",
        "runs of different data",
        "report",
        "(data f00",
        "cannot be compared",
        "Make one report for each",
        "research report run run2 --out out",
        (
            copy("run", "run2"),
            replace("run2/metrics.json", '"data": "', '"data": "f00'),
            replace("run2/provenance.json", '"data": "', '"data": "f00'),
        ),
        (MAKE_RUN,),
    ),
]

ROWS = [*EMBEDDINGS, *INTO, *INDEXES, *RUNS]


@pytest.mark.parametrize("cell", cells(ROWS))
def test_mismatched_store_is_refused(cell, research, collection, tiny_bert, tmp_path, monkeypatch):
    furnish(tmp_path, tiny_bert, monkeypatch)
    refuse(cell, research, monkeypatch)

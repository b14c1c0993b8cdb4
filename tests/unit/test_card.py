"""Model cards: the hub's header by huggingface_hub, and the text below it."""

import math
from pathlib import Path

import pytest
from huggingface_hub import EvalResult, ModelCard

from research.models.card import hub_id, model_card, read_license

CONFIG = {
    "seed_everything": 1,
    "model": {"class_path": "research.training.dual_encoder.DualEncoderModule", "init_args": {"model": "org/base@v2"}},
    "data": {
        "class_path": "research.data.pairs.PairData",
        "init_args": {"train": "hf:org/pairs:code@abc", "train_split": "train", "val": None, "val_split": "dev"},
    },
}
METRICS = {"metrics": {"mrr@10": 0.51239, "loss": None}, "untrained": {"mrr@10": 0.25}, "step": 84, "monitor": "val/mrr@10"}
PROVENANCE = {"git_commit": "c0ffee", "git_dirty": True, "model_hash": "0123456789abcdef0123", "packages": {"torch": "2.8"}}
RUN = {"config": CONFIG, "metrics": METRICS, "provenance": PROVENANCE}


def test_the_header_is_read_back_by_the_hub_s_library():
    card = ModelCard(model_card("sentence-transformers", "mine", None, RUN, license={"license": "mit"}).content)
    assert card.data.to_dict() == {
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "datasets": ["org/pairs"],
        "library_name": "sentence-transformers",
        "license": "mit",
        "metrics": ["mrr@10"],
        "pipeline_tag": "sentence-similarity",
        "tags": ["tandem", "dual-encoder"],
        "model-index": [
            {
                "name": "mine",
                "results": [
                    {
                        "task": {"type": "sentence-similarity"},
                        "dataset": {
                            "name": "org/pairs",
                            "type": "org/pairs",
                            "config": "code",
                            "split": "dev",
                            "revision": "abc",
                        },
                        "metrics": [{"type": "mrr@10", "value": 0.51239}],
                    }
                ],
            }
        ],
    }


def test_the_text_is_markdown_with_a_blank_line_around_every_part():
    card = model_card("sentence-transformers", "mine", None, RUN, ["encode_query gives the query's embedding"])
    assert card.text == (
        """
# mine

Trained from `org/base@v2`.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer('mine')
queries = model.encode_query(["a question"])
docs = model.encode_document(["a text"])
```

Encode_query gives the query's embedding.

## Data

- train: `hf:org/pairs:code@abc`, split `train`

## On the validation data

| metric | before | after |
| --- | --- | --- |
| mrr@10 | 0.2500 | 0.5124 |
| loss |  |  |

Measured at step 84, the best of this run by `val/mrr@10`: chosen on these data, so a test on others will be a little worse.

## Configuration

```yaml
seed_everything: 1
model:
  class_path: research.training.dual_encoder.DualEncoderModule
  init_args:
    model: org/base@v2
data:
  class_path: research.data.pairs.PairData
  init_args:
    train: hf:org/pairs:code@abc
    train_split: train
    val_split: dev
```

## Provenance

Code: commit c0ffee with local changes. Base weights: sha256 of 0123456789abcdef…. torch 2.8.
"""
    )


def test_a_card_without_a_run_is_short():
    card = model_card("adapter", "mine", "./base", {})
    assert card.data.to_dict() == {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["tandem"]}
    paragraphs = card.text.strip().split("\n\n")
    assert [paragraph[:24] for paragraph in paragraphs] == [
        "# mine",
        "Trained from `./base`.",
        "```python\nfrom peft impo",
        "model = AutoPeftModelFor",
        "`adapter_config.json` na",
        "No run folder lay beside",
    ]


@pytest.mark.parametrize(
    ("data", "dataset"),
    [
        ({"train": "builtin:stdlib", "val_split": "dev"}, ("builtin:stdlib", "dev")),
        ({"train": "a.jsonl", "val": "runs/b.jsonl", "val_split": "validation"}, ("b.jsonl", None)),
        ({"train": "hf:org/a", "val": "hf:org/b", "val_split": "test[:50]"}, ("org/b", "test[:50]")),
    ],
)
def test_results_name_the_set_that_chose_the_model(data, dataset):
    run = RUN | {"config": CONFIG | {"data": {"init_args": data}}}
    [result] = model_card("cross-encoder", "mine", None, run).data.eval_results
    assert (result.dataset_name, result.dataset_split) == dataset
    assert isinstance(result, EvalResult)
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-ranking", "mrr@10", 0.51239)


@pytest.mark.parametrize(
    "run",
    [
        RUN | {"metrics": METRICS | {"metrics": {"loss": math.nan, "mrr@10": math.inf}}},
        RUN | {"config": CONFIG | {"data": {"init_args": {"train": ["a.jsonl", "b.jsonl"]}}}},
        RUN | {"metrics": {}},
    ],
)
def test_what_is_no_number_or_has_no_one_dataset_is_no_result(run):
    assert "model-index" not in model_card("causal-lm", "mine", None, run).data.to_dict()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", "org/name"),
        ("org/name@v1", "org/name"),
        ("gpt2", "gpt2"),
        ("pkg:package/model", None),
        ("random:org/name", None),
        ("/a/folder", None),
        ("./folder", None),
        ("runs/sft/model", None),
        ("here/folder", None),
        (None, None),
    ],
)
def test_only_names_of_the_hub_are_its_ids(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here/folder").mkdir(parents=True)
    assert hub_id(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# A", {"license": "mit"}),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n",
            {"license": "other", "license_name": "own", "license_link": "LICENSE"},
        ),
        ("---\nlicense_name: own\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\n{ no: yaml\n---\n", None),
        ("# No header", None),
        (None, None),
    ],
)
def test_a_licence_is_read_from_a_card(text, expected, tmp_path):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert read_license(tmp_path) == expected

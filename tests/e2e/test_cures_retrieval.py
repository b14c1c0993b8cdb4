"""What a refusal proposes works: each row is a command that is refused, the proposal, and the command after it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from faults import append, furnish, remove, write

from research.data.folds import fold_of

GET = "retrieve --data beir:collection --split test --wandb disabled --out out "
MINE = "mine --data beir:collection --split test --out n.jsonl "
MEASURE = "evaluate --data beir:collection --split test --runs good.trec "
QRELS, CORPUS = "collection/qrels/test.tsv", "collection/corpus.jsonl"
HEADER = "query-id\tcorpus-id\tscore\n"


def judge(*lines: str):
    return write(QRELS, HEADER + "".join("\t".join(line.split()) + "\n" for line in lines))


CURES = [
    # command, what is proposed, the command after it (None: the same), how the place is broken, how it is mended
    (GET + "@DE --index hnsw --top-k 20 --ef 10", "pass --ef 20", GET + "@DE --index hnsw --top-k 20 --ef 20"),
    (
        GET + "@DE --index hnsw --top-k 20 --ef 20 --drop-self",
        "pass --ef 21",
        GET + "@DE --index hnsw --top-k 20 --ef 21 --drop-self",
    ),
    (GET + "@BM --ef 300", "Name one", GET + "@DE --index hnsw --ef 300"),
    (GET + "@DE --ef 300", "Pass that", GET + "@DE --ef 300 --index hnsw"),
    (GET + "@DE --bm25-b 0.5", "Name it", GET + "@DE @BM --bm25-b 0.5"),
    (GET + "@BM --depth 5", "leave --depth out", GET + "@BM"),
    (GET + "@BM @RE --top-k 5 --depth 9", "Pass --top-k 9", GET + "@BM --reranker ./reranker --top-k 9 --depth 9"),
    (GET + "@BM @RE --mix 2", "Pass --mix 0.2", GET + "@BM @RE --mix 0.2"),
    (GET + "--retriever BM25", "Write bm25", GET + "@BM"),
    (GET + "@BM @BM", "Remove one", GET + "@BM"),
    (GET + "@BM --metrics ndcg", "for example ndcg@10", GET + "@BM --metrics ndcg@10"),
    (GET + "@BM --bm25-b 7", "Leave them out", GET + "@BM"),
    (GET + "@BM --bm25-tokenizer regex:(", r"Pass regex:\w+", GET + r"@BM --bm25-tokenizer regex:\w+"),
    (GET + "@BM --bm25-stemmer englisch", "did you mean 'english'", GET + "@BM --bm25-stemmer english"),
    (GET.replace("test", "tset") + "@BM", "Pass one of them as --split", GET + "@BM"),
    (GET.replace("beir:", "") + "@BM", "expected beir:collection", GET + "@BM"),
    (MINE + "@DE --index hnsw --ef 50", "Pass --ef 100", MINE + "@DE --index hnsw --ef 100"),
    (MINE + "@BM --ranks 9", "1-30", MINE + "@BM --ranks 1-30"),
    (MINE + "@BM --ranks 1-5 --negatives 9", "Leave it out", MINE + "@BM --ranks 1-5"),
    (MINE + "@BM --relative-margin 2", "Pass --relative-margin 0.95", MINE + "@BM --relative-margin 0.95"),
    (MINE + "@BM --relative-margin 0.9 @RE", "Pass --margin 1", MINE + "@BM --margin 1 @RE"),
    (MINE + "@BM @DE --margin 1", "pass --reranker MODEL", MINE + "@BM @DE --margin 1 @RE"),
    (MINE + "@BM --folds", "leave --folds out", MINE + "@BM"),
    (MINE.replace("n.jsonl", "n") + "@BM", "n.jsonl for example", MINE + "@BM"),
    (MEASURE.replace("good", "goood"), "did you mean 'good.trec'", MEASURE),
    (MEASURE.replace("test", "dev"), "--split", MEASURE),
]
BROKEN = [
    (MINE + "@BM @DE --folds", "leave --folds out", MINE + "@BM @DE", judge("q0 d0 1", "q0 d1 1", "q2 d1 1")),
    (GET + "@BM", "--skip-bad-rows", None, append(CORPUS, "{oops")),
    (GET + "@BM", "--skip-bad-rows to keep it", None, append(QRELS, "q0\td99\t1")),
    (GET + "@BM", "--skip-bad-rows", None, append(QRELS, "q99\td0\t1")),
    (MEASURE, "--skip-bad-rows", None, append("good.trec", "q0 Q0 d5 1 0.5")),
    (MEASURE, "--skip-bad-rows", None, append("good.trec", "q0 Q0 d5 1 nan x")),
    (MEASURE, "--skip-bad-rows", None, append("good.trec", "q0 Q0 d0 3 0.1 x")),
    (
        "encode --data beir:collection --model ./model --out out",
        "--skip-bad-rows",
        None,
        append(CORPUS, '{"_id": "d0", "text": "x"}'),
    ),
    (MINE + "@BM", "--skip-bad-rows", None, append(QRELS, "q0\td1\t0.5")),
    (GET + "@BM", "Add the header line", None, write(QRELS, "query-id\tscore\nq0\t1\n"), judge("q0 d0 1")),
    (GET + "@BM", "rename the columns", None, append(CORPUS, '{"_id": "x", "body": "a"}'), remove("out")),
]


@pytest.fixture
def place(tmp_path, collection, tiny_bert, tiny_reranker, monkeypatch, research):
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    return lambda command: research(*shlex.split(typed(command), posix="\\" not in command))


def typed(command: str) -> str:
    for short, option in {"@BM": "--retriever bm25", "@DE": "--retriever ./model", "@RE": "--reranker ./reranker"}.items():
        command = command.replace(short, option)
    return command


@pytest.mark.parametrize(("command", "cure", "mended"), CURES, ids=[f"{row[0].split()[0]}: {row[1]}" for row in CURES])
def test_proposed_option_works(place, command, cure, mended):
    refused = place(command)
    assert refused.code == 2, refused.err
    assert cure in refused.err.splitlines()[-1]
    done = place(mended)
    assert done.code == 0, done.err


@pytest.mark.parametrize("row", BROKEN, ids=[f"{row[0].split()[0]} {i}: {row[1]}" for i, row in enumerate(BROKEN)])
def test_proposed_mending_works(place, row, monkeypatch):
    command, cure, mended, broken, *mend = row
    broken(monkeypatch)
    refused = place(command)
    assert refused.code == 2, refused.err
    assert cure in refused.err.splitlines()[-1]
    if cure == "rename the columns":
        Path(CORPUS).write_text(Path(CORPUS).read_text().replace('"body"', '"text"'))
    elif mend:
        mend[0](monkeypatch)
    done = place(mended or (command if mend else f"{command} --skip-bad-rows"))
    assert done.code == 0, done.err
    again = place(f"{command} --skip-bad-rows")
    assert "pass --skip-bad-rows" not in again.err  # what was given is not proposed


def test_command_that_makes_the_missing_run_is_the_one_to_type(place, tmp_path):
    """Of a cross-encoder: the run of the current retriever, under the name that it has there."""
    from research.data.candidates import CandidateData
    from research.errors import UserError

    assert place(MINE + "--retriever bm25").code == 0
    assert place("retrieve --data beir:collection --split dev --retriever bm25 --wandb disabled --out first").code == 0
    options = {"train": "n.jsonl", "val": "beir:collection", "val_run": "first/bm25.trec", "test_run": "first/gone.trec"}
    with pytest.raises(UserError) as caught:
        CandidateData(**options).load_test()
    command, option = re.search(
        r"Make it: research (.*?); then name its last \.trec: --data\.test_run (\S+)", str(caught.value)
    ).groups()
    assert place(f"{command} --wandb disabled").code == 0  # beside the run on the other split, not in its place
    data = CandidateData(**options | {"test_run": option})
    assert data.load_test().split == "test"


def test_command_that_makes_hard_negatives_is_the_one_to_type(place):
    from research.data.pairs import PairData
    from research.errors import UserError

    with pytest.raises(UserError) as caught:
        PairData("beir:collection", "test", val_split=None, batch_size=2, hard_negatives=2)
    command = re.search(r"Make one: research (.*?); then", str(caught.value))[1].replace("MODEL", "bm25")
    assert place(command).code == 0
    data = PairData("negatives.jsonl", val_split=None, test_split=None, batch_size=2, hard_negatives=2)
    assert json.loads(Path("negatives.jsonl").read_text().splitlines()[0])["query_id"] == data.queries[0].query_id


FIRST_FOLD = fold_of({"d0": 1}, 2)


def test_two_queries_of_one_document_and_their_refusal(place, monkeypatch):
    """All queries hang together by d1: no folds are possible, and training without one is not either."""
    from research.data.queries import load_training
    from research.errors import UserError

    judge("q0 d0 1", "q0 d1 1", "q2 d1 1")(monkeypatch)
    kept, _, _ = load_training("beir:collection", "test", f"{1 - FIRST_FOLD}/2", None, False)
    assert [query.query_id for query in kept] == ["q0", "q2"]
    with pytest.raises(UserError, match=r"leaves no training query.*Name another split, or a smaller fold"):
        load_training("beir:collection", "test", f"{FIRST_FOLD}/2", None, False)

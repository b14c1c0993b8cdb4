"""What `generate` asks and writes, without a model."""

import json

import pytest

from research.errors import UserError
from research.models.generate import Answer
from research.rag.answers import Answers, Question, _label, read_prompts, write_answers


def test_each_line_is_a_user_s_turn_or_raw(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Who?\nWhere?\nWhen?\nWhy?\n")
    raw = read_prompts(path, raw=True, limit=None)
    assert [question["prompt"] for question in raw] == ["Who?", "Where?", "When?", "Why?"]
    assert {question["reference"] for question in raw} == {None}
    assert read_prompts(path, raw=False, limit=None)[1]["prompt"] == [{"role": "user", "content": "Where?"}]
    assert [question["prompt"] for question in read_prompts(path, raw=True, limit=2)] == ["Who?", "When?"]  # spread evenly


def test_a_file_without_a_line_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="has no line; expected one prompt a line"):
        read_prompts(tmp_path / "empty.txt", raw=True, limit=None)


def test_a_question_that_does_not_fit_one_model_is_null_there(tmp_path):
    questions = [Question(prompt="a", reference="x"), Question(prompt="b", reference=None)]
    by_model = {
        "whole": Answers(
            {"0": Answer("x", 1, True), "1": Answer("y", 1, True)},
            {"exact_match": 1.0},
            {"exact_match": {"0": 1.0}},
            {"hash": "h1"},
        ),
        "short": Answers({"1": Answer("z", 1, True)}, {}, {}, {"hash": "h2"}),
    }
    write_answers(tmp_path, "questions.txt", "test", questions, by_model, ["research", "generate"])
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert rows == [
        {"id": "0", "prompt": "a", "reference": "x", "answers": {"whole": "x", "short": None}},
        {"id": "1", "prompt": "b", "reference": None, "answers": {"whole": "y", "short": "z"}},
    ]
    assert json.loads((tmp_path / "provenance.json").read_text())["models"] == {"whole": "h1", "short": "h2"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["kind"], metrics["split"], metrics["examples"]) == ("generate", "test", 2)
    assert metrics["models"]["whole"]["metrics"] == {"exact_match": 1.0}


def test_models_are_told_apart_by_short_names():
    taken: dict[str, Answers] = {}
    for name in ("runs/a/model", "b/", "runs/c/a"):
        taken[_label(name, taken)] = Answers({}, {}, {}, {})
    assert [*taken] == ["a", "b", "a#3"]

"""Rows as people bring them become TRL's forms, and nothing that a row says is dropped in silence."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.instructions import InstructionData, read_examples
from research.data.language import check_columns_used
from research.data.preferences import PreferenceData, read_preferences
from research.errors import UserError
from tests.lm import save_tiny

CHEAP = settings(derandomize=True, max_examples=40, deadline=None, database=None)
SYSTEM = {"role": "system", "content": "Be brief."}
Q, A, B = (
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "assistant", "content": "No."},
)
Q2, A2 = {"role": "user", "content": "And?"}, {"role": "assistant", "content": "Then."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TURNS = {"prompt": [Q], "completion": [A]}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*rows: dict) -> str:
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


INSTRUCTIONS = {
    "TRL's texts": ({"prompt": "Why?", "completion": " So."}, {"prompt": "Why?", "completion": " So."}),
    "TRL's messages": ({"prompt": [Q], "completion": [A]}, TURNS),
    "a completion that is one message": ({"prompt": [Q], "completion": A}, TURNS),
    "OpenAI": ({"messages": [SYSTEM, Q, A]}, {"messages": [SYSTEM, Q, A]}),
    "OpenAI with tools": ({"messages": [Q, CALLING], "tools": [TOOL]}, {"messages": [Q, CALLING], "tools": [TOOL]}),
    "tools as JSON": ({"messages": [Q, A], "tools": json.dumps([TOOL])}, {"messages": [Q, A], "tools": [TOOL]}),
    "no tools": ({"messages": [Q, A], "tools": []}, {"messages": [Q, A]}),
    "a call of before": (
        {"messages": [Q, {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"x": 1}'}}]},
        {"messages": [Q, CALLING]},
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]}, A]},
        {"messages": [Q, A]},
    ),
    "messages as JSON": ({"messages": json.dumps([Q, A])}, {"messages": [Q, A]}),
    "the template's arguments": (
        {"messages": [Q, A], "chat_template_kwargs": {"thinking": False}},
        {"messages": [Q, A], "chat_template_kwargs": {"thinking": False}},
    ),
    "the template's arguments as JSON": (
        {"messages": [Q, A], "chat_template_kwargs": '{"thinking": false}'},
        {"messages": [Q, A], "chat_template_kwargs": {"thinking": False}},
    ),
    "no arguments of a CSV cell": ({"messages": [Q, A], "chat_template_kwargs": " ", "tools": ""}, {"messages": [Q, A]}),
    "flags that agree": (
        {"messages": [Q, {**A, "weight": 1, "train": True}]},
        {"messages": [Q, {**A, "weight": 1, "train": True}]},
    ),
    "KTO's desired": ({"prompt": "Why?", "completion": " So.", "label": "True"}, {"prompt": "Why?", "completion": " So."}),
    "a class of a text": ({"text": "So.", "label": 0, "chat_template_kwargs": "{}"}, {"text": "So."}),
    "a class with a name": ({"question": "Why?", "answer": "So.", "label": "fact"}, TURNS),
    "Alpaca": ({"instruction": "Why?", "input": "", "output": "So."}, TURNS),
    "Alpaca by pandas": ({"instruction": "Why?", "input": float("nan"), "output": "So."}, TURNS),
    "Alpaca with null": ({"instruction": "Why?", "input": None, "output": "So.", "system": None, "history": None}, TURNS),
    "Alpaca with input": (
        {"instruction": "Why", "input": "this?", "output": "So."},
        {"prompt": [{"role": "user", "content": "Why\n\nthis?"}], "completion": [A]},
    ),
    "Dolly": (
        {"instruction": "Why", "context": "this?", "response": "So."},
        {"prompt": [{"role": "user", "content": "Why\n\nthis?"}], "completion": [A]},
    ),
    "LLaMA-Factory": (
        {"instruction": "And?", "input": "", "output": "Then.", "system": "Be brief.", "history": [["Why?", "So."]]},
        {"prompt": [SYSTEM, Q, A, Q2], "completion": [A2]},
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Why?"},
                {"from": "gpt", "value": "So."},
            ]
        },
        {"messages": [SYSTEM, Q, A]},
    ),
    "ShareGPT with system and tools": (
        {
            "conversations": [
                {"from": "human", "value": "Why?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
            ],
            "system": "Be brief.",
            "tools": json.dumps([TOOL]),
        },
        {"messages": [SYSTEM, Q, CALLING, {"role": "tool", "content": "2"}], "tools": [TOOL]},
    ),
    "question and answer": ({"question": "Why?", "answer": "So."}, TURNS),
    "query and response": ({"query": "Why?", "response": "So."}, TURNS),
    "OpenOrca": (
        {"id": "niv.1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."},
        {"prompt": [SYSTEM, Q], "completion": [A]},
    ),
    "OpenHermes": (
        {
            "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
            "title": "",
            "system_prompt": "Be brief.",
        },
        {"messages": [SYSTEM, Q, A]},
    ),
    "a system prompt that is said twice": (
        {"messages": [SYSTEM, Q, A], "system_message": "Be brief."},
        {"messages": [SYSTEM, Q, A]},
    ),
    "LIMA": ({"conversations": ["Why?", "So.", "And?", "Then."], "source": "stackexchange"}, {"messages": [Q, A, Q2, A2]}),
    "roles in capitals": (
        {"conversations": [{"from": "Human", "value": "Why?"}, {"from": "GPT", "value": "So."}]},
        {"messages": [Q, A]},
    ),
    "Llama 3's role of a tool": (
        {"messages": [Q, CALLING, {"role": "ipython", "content": "2"}]},
        {"messages": [Q, CALLING, {"role": "tool", "content": "2"}]},
    ),
    "each tool as JSON": ({"messages": [Q, A], "tools": [json.dumps(TOOL)]}, {"messages": [Q, A], "tools": [TOOL]}),
    "OpenAI's functions": ({"messages": [Q, A], "functions": [TOOL["function"]]}, {"messages": [Q, A], "tools": [TOOL]}),
    "functions of a program": ({"messages": [Q, A], "functions": ["main"]}, {"messages": [Q, A]}),
    "a text after messages": ({"prompt": [SYSTEM, Q], "completion": "So."}, {"prompt": [SYSTEM, Q], "completion": [A]}),
    "an answer to messages": ({"prompt": [SYSTEM, Q], "answer": "So."}, {"prompt": [SYSTEM, Q], "completion": [A]}),
    "messages in cells": ({"prompt": json.dumps([Q]), "completion": json.dumps([A])}, TURNS),
    "KTO's desired, by its other name": ({"messages": [Q, A], "kto_tag": True}, {"messages": [Q, A]}),
    "question about a context": (
        {"question": "Why", "context": "this?", "answer": "So."},
        {"prompt": [{"role": "user", "content": "Why\n\nthis?"}], "completion": [A]},
    ),
    "input and output": ({"input": "Why?", "output": "So."}, TURNS),
    "prompt and response": (
        {"prompt": "Why?", "response": "So.", "system": "Be brief."},
        {"prompt": [SYSTEM, Q], "completion": [A]},
    ),
    "text": ({"text": "Why? So.", "file": "a.txt", "tools": "[]", "images": []}, {"text": "Why? So."}),
}
BOTH = {"prompt": [Q], "chosen": [A], "rejected": [B]}
PREFERENCES = {
    "TRL's texts": (
        {"prompt": "Why?", "chosen": " So.", "rejected": " No."},
        {"prompt": "Why?", "chosen": " So.", "rejected": " No."},
    ),
    "TRL's messages": (BOTH, BOTH),
    "a common beginning": ({"chosen": [Q, A], "rejected": [Q, B]}, {"chosen": [Q, A], "rejected": [Q, B]}),
    "Anthropic's texts": (
        {"chosen": "Human: Why? Bot: So.", "rejected": "Human: Why? Bot: No.", "source": "x"},
        {"chosen": "Human: Why? Bot: So.", "rejected": "Human: Why? Bot: No."},
    ),
    "UltraFeedback": (
        {"prompt": "Why?", "chosen": [Q, A], "rejected": [Q, B], "score_chosen": 8.0},
        {"chosen": [Q, A], "rejected": [Q, B]},
    ),
    "UltraFeedback's answers alone": ({"prompt": "Why?", "chosen": [A], "rejected": [B]}, BOTH),
    "sides that repeat the prompt": ({"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]}, BOTH),
    "question and system": (
        {"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": [SYSTEM, Q], "chosen": [A], "rejected": [B]},
    ),
    "instruction and input": (
        {"instruction": "Why", "input": "this?", "chosen": "So.", "rejected": "No."},
        {"prompt": [{"role": "user", "content": "Why\n\nthis?"}], "chosen": [A], "rejected": [B]},
    ),
    "system of a common beginning": (
        {"system": "Be brief.", "chosen": [Q, A], "rejected": [Q, B]},
        {"prompt": [SYSTEM, Q], "chosen": [A], "rejected": [B]},
    ),
    "LLaMA-Factory": (
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        BOTH,
    ),
    "texts after messages": ({"prompt": [Q], "chosen": "So.", "rejected": "No."}, BOTH),
    "messages in cells": ({"prompt": json.dumps([Q]), "chosen": json.dumps([A]), "rejected": json.dumps([B])}, BOTH),
    "UltraFeedback in cells": (
        {"prompt": "Why?", "chosen": json.dumps([Q, A]), "rejected": json.dumps([Q, B])},
        {"chosen": [Q, A], "rejected": [Q, B]},
    ),
    "OpenOrca's pairs": (
        {"system_prompt": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": [SYSTEM, Q], "chosen": [A], "rejected": [B]},
    ),
    "tools": ({**BOTH, "tools": [TOOL]}, {**BOTH, "tools": [TOOL]}),
    "arguments as JSON": (
        {**BOTH, "chat_template_kwargs": '{"thinking": false}', "label": 0},
        {**BOTH, "chat_template_kwargs": {"thinking": False}},
    ),
    "tools and a common beginning": ({"chosen": [Q, A], "rejected": [Q, B], "tools": [TOOL]}, {**BOTH, "tools": [TOOL]}),
    "texts that begin with the question": (
        {"question": "Why?", "chosen": "Human: Why? Bot: So.", "rejected": "Human: Why? Bot: No."},
        {"chosen": "Human: Why? Bot: So.", "rejected": "Human: Why? Bot: No."},
    ),
}


@pytest.mark.parametrize("shape", INSTRUCTIONS)
def test_instruction_rows_become_trl_s_forms(shape):
    row, expected = INSTRUCTIONS[shape]
    assert read_examples(write(row), None).rows == [expected]


@pytest.mark.parametrize("shape", PREFERENCES)
def test_preference_rows_become_trl_s_forms(shape):
    row, expected = PREFERENCES[shape]
    assert read_preferences(write(row), None).rows == [expected]


def test_rows_that_were_read_before_are_what_they_were():
    """Their fingerprint is part of the names of runs; the one below was made at 18f75a2."""
    told = [{"role": "user", "content": "Why?", "name": "Eve", "id": None}, A]  # keys of its own, as the hub gives them
    for row in ({"messages": told}, {"prompt": told[:1], "completion": [A]}, {"text": "a", "question": "b", "answer": "c"}):
        kept = {name: value for name, value in row.items() if name not in ("question", "answer")}
        assert read_examples(write(row), None).rows == [kept]
    assert read_examples(write({"messages": told}), None).fingerprint == (
        "f6aab3c77f5155dc095c034f9ddf045c6a230146ff72985784bf03325863a1e7"
    )


REFUSED = [
    (
        {"utterance": "a"},
        "rows.jsonl:1: the row has 'utterance', expected prompt and completion.*Rename the keys, or name them",
    ),
    ({"prompt": "a", "completion": 5}, "completion is '5', expected a text or a list"),
    ({"prompt": "a", "completion": [A]}, "of two kinds, expected both texts or both"),
    ({"prompt": "a", "completion": "b", "label": False}, "label is False.*Leave such rows out"),
    (
        {"prompt": "a", "completion": "b", "tools": [TOOL]},
        "tools .*which completion, prompt cannot hold.*Write the row as messages",
    ),
    ({"prompt": "a", "completion": "b", "label": "False"}, "label is (False|'False')"),
    ({"messages": [Q, A], "kto_tag": False}, "kto_tag is False.*marked as undesired"),
    ({"prompt": "a", "completion": "b", "system": "c"}, "system 'c', which completion, prompt cannot hold"),
    ({"prompt": "a", "completion": "b", "system_prompt": "c"}, "system_prompt 'c', which completion, prompt cannot hold"),
    ({"messages": [Q, A], "system": "a", "system_prompt": "b"}, "begins with another one"),
    ({"messages": [Q, A], "tools": [TOOL], "functions": [{"name": "f"}]}, "functions is .*expected one of them"),
    ({"prompt": str([Q]), "completion": str([A])}, "prompt is .*expected a list of {role, content} or its JSON"),
    ({"text": "a", "history": [["b", "c"]]}, "history .*which text cannot hold"),
    ({"messages": [Q, A], "images": ["a.png"]}, "images .*expected text alone.*Leave the column images out"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, A]},
        "the part .*expected parts of text",
    ),
    ({"messages": [{"role": "critic", "content": "x"}]}, "expected .*roles system, user, assistant, tool"),
    ({"messages": [Q, {"role": "assistant", "content": None}]}, "a message without content is an assistant's with tool_calls"),
    ({"messages": [Q, {**A, "weight": 0.5}]}, "weight of a message of messages is '0.5', expected 0 or 1"),
    ({"messages": [Q, {**A, "weight": 1, "train": False}]}, "says weight 1 and train False, expected one of them"),
    ({"conversations": [{"from": "gpt", "value": "So.", "loss": True, "training": 0}]}, "says training 0 and loss True"),
    ({"prompt": [Q], "completion": [{**A, "train": True, "loss": False}]}, "says train True and loss False"),
    ({"prompt": "Why?", "completion": "No.", "label": "False"}, "label is 'False', expected answers to learn"),
    ({"prompt": [Q], "completion": [B], "label": 0}, "label is 0, expected answers to learn.*or the column label"),
    ({"question": "Why?", "answer": "No.", "label": " no "}, "label is ' no ', expected answers to learn"),
    ({"messages": [Q, B], "label": 0.0}, "label is 0.0, expected answers to learn"),
    ({"messages": [Q, A], "chat_template_kwargs": "[1]"}, "chat_template_kwargs is .*expected an object or its JSON"),
    ({"messages": [Q, A], "chat_template_kwargs": "{oops"}, "chat_template_kwargs is .*expected an object or its JSON"),
    ({"text": "So.", "chat_template_kwargs": '{"thinking": false}'}, "cannot hold"),
    ({"messages": [Q, {**A, "tool_calls": "x"}]}, "tool_calls of messages is 'x'"),
    ({"messages": "Why?"}, "messages is 'Why\\?', expected a text or a list"),
    ({"messages": [Q, A], "tools": "no"}, "tools is 'no', expected a list of tools or its JSON"),
    ({"messages": [Q, A], "tools": [5]}, "expected a list of tools"),
    ({"messages": [SYSTEM, Q, A], "system": "Another."}, "begins with another one"),
    ({"instruction": "a", "output": "b", "history": [["c"]]}, "history is .*expected a list of \\[question, answer\\]"),
    ({"instruction": 5, "output": "b"}, "instruction is '5', expected a text"),
    ({"question": "a", "answer": ["b"]}, "answer is .*expected a text"),
    ({"conversations": [{"from": "function_call", "value": "add"}]}, "a call of conversations is 'add', expected {name, arg"),
    ({"text": " "}, "text is empty, expected some text to learn"),
    ({"text": "\ud800"}, "half a surrogate pair"),
]
REFUSED_PAIRS = [
    ({"prompt": "a", "completion": "b", "label": True}, "one answer and a mark .*KTO.*Make pairs of .* or learn .*SFTModule"),
    ({"prompt": "a", "chosen": "b"}, "no rejected, expected prompt, chosen and rejected.*Mend the row, or name"),
    ({"prompt": 5, "chosen": "b", "rejected": "c"}, "prompt is '5', expected a text or a list"),
    ({"prompt": "a", "chosen": [A], "rejected": "c"}, "of two kinds"),
    ({"chosen": [Q, A], "rejected": [Q2, B]}, "begin with different messages.*Add a prompt"),
    ({"chosen": "So.", "rejected": "No.", "riddle": "Why is it?"}, 'the text .riddle.*data.columns {"prompt": "riddle"}'),
    ({"prompt": "a", "chosen": "b", "rejected": "c", "system": "d"}, "system 'd', which chosen, prompt, rejected cannot hold"),
    ({"chosen": "Yes ", "rejected": "No "}, "begin with different words.*Add a prompt"),  # TRL would ask "Yes"
    (
        {"prompt": "Why?", "chosen": [{**Q, "content": "Why? "}, A], "rejected": [Q, B]},
        "chosen begins with .*which the other side does not",
    ),  # or it would be asked twice
    ({"prompt": [Q], "chosen": [Q, A], "rejected": [B]}, "one of chosen and rejected repeats the prompt"),
    ({"chosen": [Q, A], "rejected": [Q]}, "rejected ends with .*'user'.*expected an answer"),
    ({"prompt": [Q], "chosen": [A], "rejected": [A]}, "the same, expected two answers"),
    ({"prompt": [Q], "chosen": [A], "rejected": [{"role": "assistant", "content": " "}]}, "rejected is empty"),
    ({"messages": [Q, A], "chosen": "So.", "rejected": "No."}, "messages ends with an answer"),
    ({"prompt": " ", "chosen": [A], "rejected": [B]}, "prompt is empty"),
]


@pytest.mark.parametrize(
    ("read", "row", "message"), [(read_examples, *one) for one in REFUSED] + [(read_preferences, *one) for one in REFUSED_PAIRS]
)
def test_what_cannot_be_held_is_refused_by_name(read, row, message):
    with pytest.raises(UserError, match=f"(?s)^rows.jsonl:1: .*{message}" if "rows.jsonl" not in message else message):
        read(write(row), None)
    with pytest.raises(UserError, match="has no usable"):  # the cure that every such message names
        read(write(row), None, skip_bad_rows=True)


@pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_examples, {"system": "Be brief.", "prompt": "Why?", "completion": "So."}),
        (read_preferences, {"system": "Be brief.", "prompt": "Why?", "chosen": "So.", "rejected": "No."}),  # truthy-dpo
    ],
)
def test_the_columns_that_a_refusal_names_make_messages(read, row):
    with pytest.raises(UserError, match="cannot hold") as error:
        read(write(row), None)
    columns = json.loads(re.search(r"data\.columns (\{.*?\})", str(error.value))[1])
    assert read(write(row), None, columns=columns).rows[0]["prompt"] == [SYSTEM, Q]


def test_a_verb_names_its_own_options(research):
    """tokenize and generate have no data.columns and no data.skip_bad_rows."""
    save_tiny(Path("lm"), layers=1)
    write({"ask": "Why?", "reply": "So."}, {"instruction": 5, "output": "a"})
    argv = ["tokenize", "--model", "lm", "--data", "rows.jsonl"]
    result = research(*argv)
    assert result.code == 2
    assert "name them in --columns, or pass --skip-bad-rows" in result.err
    result = research(*argv, "--columns", '{"question": "ask", "answer": "reply"}', "--skip-bad-rows", "--json")
    assert result.json["text"].startswith("<|user|>Why?<|end|>")
    result = research(*argv, "--columns", "question=ask")
    assert (result.code, "--columns 'question=ask'; expected a JSON object" in result.err) == (2, True)
    with pytest.raises(UserError, match=r"name them in data.columns, or pass --data.skip_bad_rows true"):
        read_examples("rows.jsonl", None)


def test_columns_that_are_not_read_are_named_once(capsys):
    rows = [{"instruction": "Why?", "output": "So.", "source": "x", "text": "y"}] * 3 + [
        {"instruction": "a", "output": "b", "id": 4}
    ]
    read_examples(write(*rows), None)
    assert capsys.readouterr().err == "rows.jsonl: columns that are not read: id, source, text\n"
    read_preferences(write({"prompt": "Other?", "chosen": [Q, A], "rejected": [Q, B]}), None)
    assert capsys.readouterr().err == "rows.jsonl: columns that are not read: prompt\n"


def test_columns_are_named_by_role(capsys):
    row = {"prompt": "x", "ask": "Why?", "good": "So.", "bad": "No."}
    columns = {"question": "ask", "chosen": "good", "rejected": "bad"}
    assert read_preferences(write({k: v for k, v in row.items() if k != "prompt"}), None, columns=columns).rows == [BOTH]
    found = read_examples(write(row), None, columns={"prompt": "ask", "completion": "good"})
    assert found.rows == [{"prompt": "Why?", "completion": "So."}]
    assert "columns that are not read: bad, prompt (ask is read)" in capsys.readouterr().err
    swapped = read_examples(
        write({"prompt": "a", "completion": "b"}), None, columns={"prompt": "completion", "completion": "prompt"}
    )
    assert swapped.rows == [{"prompt": "b", "completion": "a"}]
    for wrong, message in [
        ({"promt": "ask"}, "role 'promt'; did you mean 'prompt'"),
        ({"prompt": "aks", "completion": "good"}, "has the column 'aks' .*did you mean 'ask'"),
        ({"prompt": 5}, "expected the name of a column"),
        (
            {"prompt": "ask", "completion": "good", "context": "bad"},
            "names context .'bad'., and no row .*is made of it; expected roles of its shape .completion, prompt.*Leave it out",
        ),
        ({"question": "ask", "answer": "good", "rejected": "bad"}, "names rejected"),
    ]:
        with pytest.raises(UserError, match=f"(?s){message}"):
            read_examples(write(row), None, columns=wrong)
    with pytest.raises(UserError, match=r"rows.jsonl:1 has no column 'aks' \(prompt\); did you mean 'ask'"):
        read_examples(write({"ask": "a", "completion": "b"}), None, columns={"prompt": "aks"})
    with pytest.raises(UserError, match=r"no row of rows.jsonl has the column 'sytem'"):
        read_examples(write({"instruction": "a", "output": "b"}), None, columns={"system": "sytem"})


@pytest.mark.parametrize("data", [InstructionData, PreferenceData])
def test_columns_of_built_in_sources_alone_are_refused(data):
    for val in (None, "builtin:packages"):
        with pytest.raises(UserError, match=r"data.columns names columns of a table, and builtin:stdlib is built in.*Leave it"):
            data("builtin:stdlib", val=val, columns={"prompt": "ask"})
    for sources in (("rows.jsonl",), ("builtin:stdlib", "rows.jsonl"), ("builtin:stdlib", None, ["rows.jsonl"])):
        check_columns_used({"prompt": "ask"}, *sources)  # the validation's, or the test's


def test_cures_of_preferences_name_no_option_that_they_lack():
    from inspect import signature

    from research.data.chat_tokens import check_flags
    from research.data.preference_tokens import tokenise_preferences
    from tests.lm import byte_tokenizer

    flagged = read_preferences(write({**BOTH, "chosen": [{**A, "weight": 0}]}), None)
    endless = read_preferences(write({"prompt": [{"role": "system", "content": "x"}], "chosen": [A], "rejected": [B]}), None)
    tokenizer = byte_tokenizer("{{ raise_exception('no system') }}")
    for refuse, message in [
        (lambda: check_flags(flagged, "sides"), "weight 0 of a message .*Take them out of the rows"),
        (lambda: tokenise_preferences(endless, tokenizer, 64), "no system.*Correct the rows or the template"),
    ]:
        with pytest.raises(UserError, match=f"rows.jsonl:1.*{message}") as caught:
            refuse()
        named = {word.removeprefix("data.").strip(".,;)") for word in str(caught.value).split() if word.startswith("data.")}
        assert named <= signature(PreferenceData).parameters.keys()


def test_rows_of_two_forms_are_refused():
    with pytest.raises(UserError, match=r"rows.jsonl:2: the row has text where the first has completion, prompt as messages"):
        read_examples(write(TURNS, {"text": "a"}), None)
    both = [BOTH, {"chosen": [Q, A], "rejected": [Q, B]}]
    assert len(read_preferences(write(*both), None).rows) == 2  # the prompt named, and begun with


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_validation_on_trained_rows_is_said(kind, capsys):
    make = InstructionData if kind == "sft" else PreferenceData
    rows = [{"prompt": f"a {i}", "completion": f"b {i}", "chosen": f"b {i}", "rejected": f"c {i}"} for i in range(6)]
    unread = {"sft": ("chosen", "rejected"), "dpo": ("completion",)}[kind]
    rows = [{key: value for key, value in row.items() if key not in unread} for row in rows]
    train, other = write(*rows), Path("val.jsonl")
    other.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:2], {**rows[0], "prompt": "new"}]))
    data = make(train, None, str(other), None, noise=1.0) if kind == "dpo" else make(train, None, str(other), None)
    assert "warning: 2 of the 3 rows of val.jsonl (val) are trained on too; its numbers are too high" in capsys.readouterr().err
    assert data.shared == {"val_trained": 2}
    assert "val_trained" not in data.describe()  # which is in the names of runs
    data = make(train, "train[:4]", None, "train[3:]")  # slices of one file, which overlap
    assert "1 of the 3 rows of rows.jsonl split 'train[3:]' (val)" in capsys.readouterr().err
    make(train, "train[:3]", None, "train[3:]", test="rows.jsonl", test_split="train[2:]").test_dataloader()
    assert "1 of the 4 rows of rows.jsonl split 'train[2:]' (test)" in capsys.readouterr().err
    make(train, None, None, "dev")
    assert "its own rows are trained on" in capsys.readouterr().err


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
TALKS = st.lists(TEXTS, min_size=2, max_size=6)


def turns(texts: list[str]) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@CHEAP
@given(TALKS, TEXTS, st.sampled_from(["messages", "parts", "sharegpt", "json", "alpaca", "question", "completion"]))
def test_random_conversations_round_trip(texts, system, shape):
    texts = texts[: len(texts) // 2 * 2]
    talk = turns(texts)
    expected = {"messages": [{"role": "system", "content": system}, *talk]}
    if shape == "parts":
        row = {"messages": [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in talk], "system": system}
    elif shape == "sharegpt":
        names = {"user": "human", "assistant": "gpt"}
        row = {"conversations": [{"from": names[one["role"]], "value": one["content"]} for one in talk], "system": system}
    elif shape in ("messages", "json"):
        row = {"messages": talk if shape == "messages" else json.dumps(talk), "system": system}
    else:
        expected = {"prompt": [{"role": "system", "content": system}, *talk[:-1]], "completion": talk[-1:]}
        row = {"system": system, "history": [[*pair] for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]}
        names = {"alpaca": ("instruction", "output"), "question": ("question", "answer"), "completion": ("prompt", "response")}
        row |= dict(zip(names[shape], texts[-2:], strict=True))
    assert read_examples(write(row), None).rows == [expected]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(""),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "weight", "type", "text", "function"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=4,
)


def leaves(value) -> list[str]:
    if isinstance(value, (list, dict)):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value] if isinstance(value, str) else []


@settings(CHEAP, max_examples=300)
@given(
    st.sampled_from(
        [(read_examples, *one) for one in INSTRUCTIONS.values()] + [(read_preferences, *one) for one in PREFERENCES.values()]
    ),
    st.data(),
    JUNK,
)
def test_random_damage_is_refused_or_changes_nothing_else(case, data, junk):
    """A value lost, or another one in its place, in a random place of the row."""
    read, row, _ = case
    row = json.loads(json.dumps(row))
    place, key = row, data.draw(st.sampled_from(sorted(row)))
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = junk
    try:
        (found,) = read(write(row), None).rows
    except UserError as error:
        assert str(error).startswith("rows.jsonl:1: ")  # noqa: PT017
        assert "expected" in str(error)  # noqa: PT017
        return
    assert found == read(write(json.loads(json.dumps(row))), None).rows[0]
    said = "".join(leaves(row)) + "userassistantsystemtoolfunction"
    for leaf in leaves(found):
        assert all(part in said or part in json.dumps(row) for part in leaf.split("\n\n")), leaf


def test_a_damaged_row_ends_with_exit_code_2(research):
    Path("rows.json").write_text(json.dumps([TURNS, {"prompt": [Q], "completion": 5}], indent=1))
    result = research("tokenize", "--model", save_tiny(Path("lm")), "--data", "rows.json")
    assert result.code == 2
    assert "rows.json:16 (row 2): completion is '5', expected a text" in result.err
    assert "Traceback" not in result.err

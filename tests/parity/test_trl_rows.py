"""What our readers and tokenisation make of files is what TRL's trainers make of them, through datasets' own reader."""

import json
import tempfile
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import AutoModelForCausalLM

from research.data.instruction_tokens import tokenise
from research.data.instructions import InstructionData, read_examples
from research.data.preference_tokens import tokenise_preferences
from research.data.preferences import read_preferences
from research.errors import UserError
from research.prompts import prompt_ids
from tests.lm import MARKED, TEMPLATE, byte_tokenizer, save_tiny

TOOLS = (
    "{% if shout %}LOUD {% endif %}"
    "{% if tools %}<|system|>Tools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m['role'] if m['role'] != 'tool' else 'user' }}|>{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] or '' }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}</call>{% endfor %}<|end|>{% endgeneration %}{% else %}{{ m['content'] or '' }}<|end|>"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STRIPS = MARKED.replace("message['content']", "message['content'] | trim")
ASK = {"role": "user", "content": "please"}
SYSTEM = {"role": "system", "content": "Be brief."}


def call(arguments: dict, content: str | None = None) -> dict:
    function = {"name": "add" if "x" in arguments else "weather", "arguments": arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"id": "k", "type": "function", "function": function}]}


def talk(arguments: dict, content: str | None = None) -> list[dict]:
    return [ASK, call(arguments, content), {"role": "tool", "content": "3"}, {"role": "assistant", "content": "3."}]


def tool(name: str, **properties: str) -> dict:
    types = {key: {"type": value} for key, value in properties.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": types}}}


ADD, WEATHER = tool("add", x="integer", y="integer"), tool("weather", city="string")
TWO = [{"messages": talk({"x": 1, "y": 2})}, {"messages": talk({"city": "Paris"})}]
INSTRUCTIONS = {
    "tools of the row": [{"messages": talk({"x": 1, "y": 2}, ""), "tools": [ADD]}] * 3,
    "calls of several functions": TWO * 3,
    "tools that differ by row": [TWO[0] | {"tools": [ADD]}, TWO[1] | {"tools": [WEATHER, ADD]}] * 2,
    "arguments of several types": [{"messages": talk({"x": value})} for value in (1, "one", [1, 2], {"a": None}, True)],
    "tools of prompts": [{"prompt": [SYSTEM, ASK], "completion": talk({"x": i})[1:], "tools": [ADD]} for i in range(3)],
    "some with tools": [TWO[0] | {"tools": [ADD]}, TWO[1]],
    "the template's arguments": [{"messages": talk({"x": 1}), "chat_template_kwargs": {"shout": i % 2 == 0}} for i in range(3)],
    "many turns": [{"messages": [SYSTEM, *talk({"x": 1}, "Hm.")[:2], *talk({"x": 2})[1:], ASK, call({"x": 3})]}] * 2,
    "texts": [{"prompt": "Why? ", "completion": "So.<|end|>"}, {"prompt": "Why?", "completion": " So."}],
    "plain text": [{"text": "Why? So."}, {"text": "Why?<|end|>"}],
}
PAIRS = {
    "tools of pairs": [
        {"prompt": [SYSTEM, ASK], "chosen": [call({"x": 1})], "rejected": [call({"x": 2})], "tools": [ADD]},
        {"prompt": [ASK], "chosen": [call({"city": "Paris"})], "rejected": [call({"x": 2})], "tools": [WEATHER]},
    ],
    "a common beginning": [{"chosen": [SYSTEM, *talk({"x": 1})], "rejected": [SYSTEM, *talk({"x": 1})[:3], call({"x": 2})]}]
    * 2,
    "texts with a common beginning": [
        {"chosen": "H: Why? A: So.", "rejected": "H: Why? A: Never."},
        {"chosen": "H: Why? A: So", "rejected": "H: Why? A: So far."},
    ],
    "texts": [{"prompt": "Why? ", "chosen": "So.", "rejected": "No.<|end|>"}] * 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("trl") / "model", layers=1)


def written(tmp_path: Path, rows: list[dict]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def framed(frame: str):
    """A tokenizer that puts these tokens around every text."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[(one, tokenizer.convert_tokens_to_ids(one)) for one in ("<|system|>", "<|end|>")]
    )
    return tokenizer


def options(tmp_path: Path, **more) -> dict:
    return {
        "output_dir": str(tmp_path / "out"),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "max_length": None,
        "shuffle_dataset": False,
        "gradient_checkpointing": False,
        **more,
    }


def losses(rows: list[dict]) -> list[str]:
    """What can be learned of such rows."""
    talks = "messages" in rows[0] or isinstance(rows[0].get("prompt"), list)
    return ["all"] + ["completion"] * ("prompt" in rows[0]) + ["assistant"] * talks


@pytest.mark.parametrize(("name", "loss_on"), [(name, one) for name, rows in INSTRUCTIONS.items() for one in losses(rows)])
def test_instruction_files_are_those_of_trl(name, loss_on, folder, tmp_path):
    from trl import SFTConfig, SFTTrainer

    rows = INSTRUCTIONS[name]
    file, tokenizer = written(tmp_path, rows), byte_tokenizer(TOOLS)
    masks = {"completion_only_loss": loss_on == "completion", "assistant_only_loss": loss_on == "assistant"}
    table = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    theirs = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        SFTConfig(**options(tmp_path, **masks)),
        train_dataset=table,
        processing_class=tokenizer,
    ).train_dataset
    ours = tokenise(read_examples(file, None), tokenizer, 4096, loss_on).rows
    assert ours == [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in theirs]


@pytest.mark.parametrize("name", PAIRS)
def test_preference_files_are_those_of_trl(name, folder, tmp_path):
    from trl import DPOConfig, DPOTrainer

    file, tokenizer = written(tmp_path, PAIRS[name]), byte_tokenizer(TOOLS)
    table = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    config = options(tmp_path)
    del config["shuffle_dataset"]
    theirs = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder), args=DPOConfig(**config), train_dataset=table, processing_class=tokenizer
    ).train_dataset
    ours = tokenise_preferences(read_preferences(file, None), tokenizer, 4096).rows
    assert ours == [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in theirs]


def test_rows_of_a_saved_table_are_those_of_its_file(tmp_path):
    """Arrow writes the arguments of other rows' calls as nulls; they are in no token."""
    table = load_dataset("json", data_files=written(tmp_path, TWO), split="train", cache_dir=str(tmp_path / "cache"))
    from datasets import Dataset

    Dataset.from_list(TWO).save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "a.parquet"))
    tokenizer = byte_tokenizer(TOOLS)
    first, *others = (
        tokenise(read_examples(str(tmp_path / name), None), tokenizer, 512, "all").rows
        for name in ("rows.jsonl", "saved", "a.parquet")
    )
    assert others == [first, first]
    assert "null" not in tokenizer.decode(first[0]["input_ids"] + first[1]["input_ids"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TWO[0] | {"tools": [ADD]}], "rows have tool_calls, and the model's chat template does not write them"),
        ([{"messages": [ASK, {"role": "assistant", "content": "x"}], "tools": [ADD]}], "rows have tools, and .*made for tools"),
    ],
)
def test_what_the_template_does_not_write_is_refused(rows, message, tmp_path):
    with pytest.raises(UserError, match=f"(?s){message}"):
        tokenise(read_examples(written(tmp_path, rows), None), byte_tokenizer(MARKED), 512, "all")
    kept = [{"messages": [ASK, {"role": "assistant", "content": "x"}]}]  # the cure: without them
    assert tokenise(read_examples(written(tmp_path, kept), None), byte_tokenizer(MARKED), 512, "all").rows


def test_no_content_is_written_as_none_by_no_template(tmp_path):
    plain = byte_tokenizer(TOOLS.replace("m['content'] or ''", "m['content']"))
    (row,) = tokenise(read_examples(written(tmp_path, TWO[:1]), None), plain, 512, "all").rows
    assert "None" not in plain.decode(row["input_ids"])


def test_parts_that_the_template_does_not_write_are_named(tmp_path, capsys):
    no_system = TOOLS.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    told = [{"messages": [SYSTEM, {**ASK, "name": "Eve"}, call({"x": 1}), {"role": "assistant", "content": "3."}]}]
    tokenise(read_examples(written(tmp_path, told), None), byte_tokenizer(no_system), 512, "all")
    assert "parts of messages that the chat template does not write: name, system" in capsys.readouterr().err
    as_text = [
        {
            "messages": [
                ASK,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}],
                },
            ]
        }
    ]
    tokenise(read_examples(written(tmp_path, as_text), None), byte_tokenizer(TOOLS), 512, "all")
    assert "warning: " in (said := capsys.readouterr().err)
    assert "arguments of tool calls are texts" in said


def learned(row: dict, tokenizer) -> str:
    return tokenizer.decode([one for one in row["labels"] if one != -100])


@pytest.mark.parametrize("flag", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_messages_of_weight_0_are_not_learned(flag, tmp_path):
    said = [{"role": "assistant", "content": text} for text in ("one", "two", "three")]
    rows = [{"messages": [ASK, said[0], ASK, {**said[1], **flag}, ASK, said[2]]}]
    file, tokenizer = written(tmp_path, rows), byte_tokenizer(MARKED)
    (row,) = tokenise(read_examples(file, None), tokenizer, 512, "assistant").rows
    assert learned(row, tokenizer) == "one<|end|>three<|end|>"
    with pytest.raises(UserError, match=r"against what is learned .all.; .*Set data.loss_on to assistant"):
        tokenise(read_examples(file, None), tokenizer, 512, "all")
    pair = {"prompt": [ASK], "chosen": [{**said[0], **flag}], "rejected": [said[1]]}
    with pytest.raises(UserError, match="against what is learned"):
        tokenise_preferences(read_preferences(written(tmp_path, [pair]), None), tokenizer, 512)
    ones = [{"messages": [ASK, {**said[0], "weight": 1}]}]
    (row,) = tokenise(read_examples(written(tmp_path, ones), None), tokenizer, 512, "assistant").rows
    assert learned(row, tokenizer) == "one<|end|>"
    unmarked = [{"messages": [ASK, said[0], {**said[1], **flag}]}]
    merged = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )  # nothing between two messages of the assistant
    with pytest.raises(UserError, match="weight 0: which, cannot be told"):
        tokenise(read_examples(written(tmp_path, unmarked), None), byte_tokenizer(merged), 512, "assistant")


THINKS = TEMPLATE.replace(  # of earlier answers, the answer alone, as Qwen3's does
    "message['content']",
    "message['content'] if loop.last or message['role'] != 'assistant' else message['content'].split('</think>')[-1]",
)
SYSTEM_FIRST = "{% if messages[0]['role'] != 'system' %}<|system|>You help.<|end|>{{ '\\n' }}{% endif %}"  # as SmolLM2's


@pytest.mark.parametrize("first", ["", SYSTEM_FIRST])
def test_a_template_without_marks_teaches_what_one_with_marks_does(first, tmp_path):
    """ShareGPT on most models: what a message of the assistant adds to the conversation is the assistant's."""
    said = [{"role": "assistant", "content": text} for text in ("one\n", " two ", "three")]
    talks = (
        [ASK, said[0], ASK, said[1]],
        [{"role": "system", "content": "s"}, ASK, said[2]],
        [ASK, said[0], said[1], ASK],
        [ASK, {**said[0], "weight": 0}, ASK, said[1]],
    )
    rows = [{"messages": talk} for talk in talks]
    file = written(tmp_path, rows)
    marked, plain = (
        tokenise(read_examples(file, None), byte_tokenizer(first + template), 512, "assistant")
        for template in (MARKED.replace("\n", "{{ '\\n' }}"), TEMPLATE)
    )
    assert plain.rows == marked.rows
    assert learned(plain.rows[0], byte_tokenizer()) == "one\n<|end|> two <|end|>"


def test_a_template_that_writes_earlier_answers_otherwise_is_refused(tmp_path):
    thought = {"role": "assistant", "content": "<think>so</think>yes"}
    once = written(tmp_path, [{"messages": [ASK, thought]}])
    (row,) = tokenise(read_examples(once, None), byte_tokenizer(THINKS), 512, "assistant").rows
    assert learned(row, byte_tokenizer()) == "<think>so</think>yes<|end|>"
    twice = written(tmp_path, [{"messages": [ASK, thought, ASK, thought]}])
    with pytest.raises(UserError, match=r"lacks \{% generation %\}.*otherwise than alone \(message 2\)"):
        tokenise(read_examples(twice, None), byte_tokenizer(THINKS), 512, "assistant")


def test_pairs_equal_in_tokens_are_left_out_and_counted(tmp_path):
    def pair(bad: str) -> dict:
        sides = [[{"role": "assistant", "content": text}] for text in ("It is 1.", bad)]
        return {"prompt": [ASK], "chosen": sides[0], "rejected": sides[1]}

    rows = [pair("It is 1. "), pair("It is 2."), pair("\nIt is 1."), pair("It is 1. It is.")]
    tokenizer = byte_tokenizer(STRIPS)
    made = tokenise_preferences(read_preferences(written(tmp_path, rows), None), tokenizer, 512)
    assert (made.index, made.equal, made.dropped, made.truncated) == ([1, 3], 2, 0, 0)
    cut = len(made.rows[1]["prompt_ids"]) + len("It is 1.")
    made = tokenise_preferences(read_preferences(written(tmp_path, rows), None), tokenizer, cut)
    assert (made.index, made.equal, made.truncated) == ([1], 3, 1)  # what differs lies beyond max_length
    with pytest.raises(UserError, match=r"same tokens on both sides .*expected pairs that differ"):
        tokenise_preferences(read_preferences(written(tmp_path, rows[::2]), None), tokenizer, 512)


@pytest.mark.parametrize("frame", ["<|system|> $A", "$A <|end|>", "<|system|> $A <|end|>"])
def test_raw_rows_are_those_of_trl_whatever_the_tokenizer_adds(frame, folder, tmp_path):
    """A token before every text, and an end after it, which stands after TRL's own."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    tokenizer, model = framed(frame), AutoModelForCausalLM.from_pretrained(folder)
    for rows in (INSTRUCTIONS["texts"], INSTRUCTIONS["plain text"]):
        loss_on = losses(rows)[-1]
        settings = SFTConfig(**options(tmp_path, completion_only_loss=loss_on == "completion"))
        theirs = SFTTrainer(model, settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train_dataset
        ours = tokenise(read_examples(written(tmp_path, rows), None), tokenizer, 4096, loss_on).rows
        assert ours == [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in theirs]
    for rows in (PAIRS["texts"], PAIRS["texts with a common beginning"]):
        config = options(tmp_path)
        del config["shuffle_dataset"]
        theirs = DPOTrainer(
            model, args=DPOConfig(**config), train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        ).train_dataset
        ours = tokenise_preferences(read_preferences(written(tmp_path, rows), None), tokenizer, 4096).rows
        assert ours == [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in theirs]


@pytest.mark.parametrize("frame", ["$A", "<|system|> $A", "$A <|end|>", "<|system|> $A <|end|>"])
def test_a_raw_prompt_is_answered_as_it_is_trained(frame, tmp_path):
    """A tokenizer that ends every text (add_eos_token) would have an answer begin after the end."""
    tokenizer = framed(frame)
    for prompt in ("Why?", "Why? <|end|>"):
        file = written(tmp_path, [{"prompt": prompt, "completion": " So."}])
        (row,) = tokenise(read_examples(file, None), tokenizer, 512, "completion").rows
        trained = row["input_ids"][: sum(label == -100 for label in row["labels"])]
        assert prompt_ids(tokenizer, prompt, "m") == trained


def test_answers_are_compared_with_completions_that_have_a_text(tmp_path):
    """An empty answer would equal a call without a content, and be an exact match."""
    made = [
        {"prompt": [ASK], "completion": [call({"x": 1})]},
        {"prompt": [ASK], "completion": [call({"x": 2}, "Hm.")]},
        {"prompt": [ASK], "completion": [{"role": "assistant", "content": "3."}]},
    ]
    file = written(tmp_path, made)
    data = InstructionData(file, None, file, None)
    data.tokens["val"] = tokenise(data.collections["val"], byte_tokenizer(TOOLS), 512, "completion")
    assert [(name, text) for name, _, text in data.questions("val", 9)] == [("1", "Hm."), ("2", "3.")]
    file = written(tmp_path, made[:1])
    data = InstructionData(file, None, file, None)
    data.tokens["val"] = tokenise(data.collections["val"], byte_tokenizer(TOOLS), 512, "completion")
    with pytest.raises(UserError, match=r"no completion .* has a text .*Leave rouge_l"):
        data.questions("val", 9)


def test_pairs_without_a_prompt_are_left_out_as_such(tmp_path):
    """TRL gives them an empty prompt, after which nothing predicts the first token."""
    file = written(tmp_path, [{"prompt": "", "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match=r"none of the 1 pairs .* has a prompt .*Give the rows a prompt"):
        tokenise_preferences(read_preferences(file, None), byte_tokenizer(), 64)
    file = written(tmp_path, [{"prompt": text, "chosen": "a", "rejected": "b"} for text in ("", "Why?")])
    assert tokenise_preferences(read_preferences(file, None), byte_tokenizer(), 64).index == [1]


def test_a_talk_without_the_assistant_is_refused_as_such(tmp_path):
    with pytest.raises(UserError, match=r"rows.jsonl:1: RuntimeError: no message is the assistant's"):
        tokenise(read_examples(written(tmp_path, [{"messages": [ASK]}]), None), byte_tokenizer(MARKED), 512, "assistant")


def test_plain_text_has_no_turns_to_learn(tmp_path):
    for rows in ([{"text": "a"}], [{"prompt": "a", "completion": "b"}]):
        with pytest.raises(UserError, match=r"plain text .*expected completion or all"):
            tokenise(read_examples(written(tmp_path, rows), None), byte_tokenizer(), 512, "assistant")


def test_a_tokenizer_without_an_end_is_said(tmp_path, capsys):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    (row,) = tokenise(
        read_examples(written(tmp_path, [{"prompt": "a", "completion": " b"}]), None), tokenizer, 64, "completion"
    ).rows
    assert learned(row, tokenizer) == " b"
    assert "no end token" in capsys.readouterr().err


def test_rows_are_tokenised_without_trl_and_datasets(tmp_path, monkeypatch):
    import sys

    expected = tokenise(read_examples(written(tmp_path, TWO), None), byte_tokenizer(TOOLS), 512, "all", packing=True)
    for name in ("trl", "datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert tokenise(read_examples(written(tmp_path, TWO), None), byte_tokenizer(TOOLS), 512, "all", packing=True) == expected


def test_a_row_that_the_template_refuses_is_named_by_its_place(tmp_path):
    picky = byte_tokenizer("{% if messages[0]['content'] == 'no' %}{{ raise_exception('never') }}{% endif %}" + MARKED)
    rows = [{"messages": [{**ASK, "content": text}, {"role": "assistant", "content": "3"}]} for text in ("a", "no", "b")]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: TemplateError: never"):
        tokenise(read_examples(written(tmp_path, rows), None), picky, 512, "all")
    examples = read_examples(written(tmp_path, [rows[0]] * 3 + rows), None, limit=3)  # lines 1, 3 and 5
    with pytest.raises(UserError, match=r"rows\.jsonl:5: TemplateError: never"):
        tokenise(examples, picky, 512, "all")


VALUES = st.sampled_from(
    [
        None,
        0,
        True,
        1.5,
        "",
        " ",
        "x",
        [],
        {},
        [None],
        [{}],
        [["x"]],
        {"role": "user"},
        {"function": "add"},
        [{"function": None}],
        [{"type": "image"}],
        {"name": "add", "arguments": "{"},
    ]
)


@settings(derandomize=True, max_examples=250, deadline=None, database=None)
@given(
    st.sampled_from(
        [(kind, row) for kind, table in enumerate((INSTRUCTIONS, PAIRS)) for rows in table.values() for row in rows]
    ),
    st.data(),
    VALUES,
)
def test_random_damage_is_tokenised_or_refused_with_its_place(case, data, value):
    """A value lost, or another one in its place, as deep as a call's arguments: a tokenised row, or file and line."""
    kind, row = case
    place = row = json.loads(json.dumps(row))
    key = data.draw(st.sampled_from(sorted(row)))
    while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.integers(0, 4)):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = value
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder), [row])
        try:
            if kind:
                made = tokenise_preferences(read_preferences(file, None), byte_tokenizer(TOOLS), 512).rows
            else:
                made = tokenise(read_examples(file, None), byte_tokenizer(TOOLS), 512, "all").rows
        except UserError as error:
            assert file in str(error)  # noqa: PT017
            assert "xpected" in str(error)  # noqa: PT017
        else:
            assert len(made) == 1

"""What `research generate` does: prompts → answers of one or several language models → metrics, in a run folder."""

import json
import time
from pathlib import Path
from typing import NamedTuple, TypedDict

from research import prompts
from research.data.instructions import read_examples, reference
from research.data.language import check_columns_used
from research.data.rows import SKIPPING, evenly_spaced, read_lines
from research.errors import UserError
from research.metrics import generation
from research.models.generate import Answer, Decoding, generate
from research.models.hashed import hash_model
from research.models.sources import resolve
from research.progress import say
from research.rag.generate import load_lm, prompt_room
from research.runs.files import atomic_write
from research.runs.writers import write_metrics, write_provenance


class Question(TypedDict):
    """A prompt, as a text or as messages, and the text that its answers are compared with; None without one."""

    prompt: str | list[prompts.Message]
    reference: str | None


class Answers(NamedTuple):
    """One model's answers.

    Attributes:
        answers: {number of the question: answer}; a question that does not fit the model has none.
        metrics: {metric: mean}; {} where no question has a reference.
        per_query: {metric: {number: value}}.
        facts: what the answers depend on.
    """

    answers: dict[str, Answer]
    metrics: dict[str, float]
    per_query: dict[str, dict[str, float]]
    facts: dict

    def text(self, number: int) -> str | None:
        """Return the text of an answer; None if there is none."""
        answer = self.answers.get(str(number))
        return None if answer is None else answer.text


class Asking(NamedTuple):
    """How questions are asked, the same for every model.

    Attributes:
        decoding: how an answer is chosen.
        precision: "fp32" | "bf16" of the weights.
        max_prompt_tokens: questions with longer prompts are left out, counted.
        batch_size: prompts at a time.
    """

    decoding: Decoding
    precision: str
    max_prompt_tokens: int
    batch_size: int


def read_prompts(path: Path, raw: bool, limit: int | None) -> list[Question]:
    """Read one prompt from each line.

    Args:
        path: a text file.
        raw: the line as it is, else as a user's turn.
        limit: so many of them, spread evenly; None for all.

    Raises:
        UserError: no line.
    """
    questions = [Question(prompt=line if raw else [prompts.user(line)], reference=None) for _, line in read_lines(path)]
    if not questions:
        raise UserError(f"{path} has no line; expected one prompt a line. Add some.")
    return questions if limit is None else evenly_spaced(questions, limit)


def read_questions(
    source: str, split: str | None, limit: int | None, skip_bad_rows: bool, columns: dict[str, str] | None
) -> list[Question]:
    """Read prompts and references from instruction data; the arguments are those of `read_examples`.

    Raises:
        UserError: as `read_examples`, or rows without a prompt.
    """
    check_columns_used(columns, source, option="--columns")
    rows = read_examples(source, split, limit, skip_bad_rows, columns, SKIPPING).rows
    if "prompt" not in rows[0]:
        raise UserError(
            f"rows of {source} have no prompt ({', '.join(rows[0])}); expected prompt and completion, or "
            "instruction and response. Name other data, or write the prompts into a file for "
            "--prompts."
        )
    # a completion that is a call of a tool has no text to compare with
    return [Question(prompt=prompts.asked(row), reference=reference(row) or None) for row in rows]


def answer_all(models: list[str], questions: list[Question], asking: Asking) -> dict[str, Answers]:
    """Ask several models the same questions, and measure their answers.

    Returns:
        {a short name of the model: its answers}, in order.

    Raises:
        UserError: a model that cannot be read, or that no prompt fits.
    """
    references = {str(i): [row["reference"]] for i, row in enumerate(questions) if row["reference"] is not None}
    by_model: dict[str, Answers] = {}
    for name in models:
        answers, facts = _answer(name, questions, asking)
        per_query = generation.evaluate({number: answer.text for number, answer in answers.items()}, references)
        means = {metric: sum(values.values()) / len(values) for metric, values in per_query.items() if values}
        by_model[_label(name, by_model)] = Answers(answers, means, per_query, facts)
    return by_model


def write_answers(
    out: Path, source: str, split: str | None, questions: list[Question], by_model: dict[str, Answers], command: list[str]
) -> None:
    """Write answers.jsonl, metrics.json and provenance.json into a run folder."""
    # the marker first: a folder of other files without it would be taken for somebody else's
    hashes = {label: answers.facts["hash"] for label, answers in by_model.items()}
    write_provenance(out, command, models=hashes)
    with atomic_write(out / "answers.jsonl") as stream:
        for i, row in enumerate(questions):
            texts = {label: answers.text(i) for label, answers in by_model.items()}
            stream.write(json.dumps({"id": str(i), **row, "answers": texts}, ensure_ascii=False) + "\n")
    write_metrics(
        out,
        {
            "kind": "generate",
            "source": source,
            "split": split,
            "examples": len(questions),
            "models": {
                label: {"metrics": answers.metrics, "per_query": answers.per_query, "facts": answers.facts}
                for label, answers in by_model.items()
            },
        },
    )


def _answer(name: str, questions: list[Question], asking: Asking) -> tuple[dict[str, Answer], dict]:
    """Compute one model's answers, by question number, and facts about the model."""
    policy = load_lm(name, asking.precision)
    model = policy.model
    ids = [prompts.prompt_ids(model.tokenizer, row["prompt"], name) for row in questions]
    room = prompt_room(policy, asking.max_prompt_tokens, asking.decoding.max_new_tokens)
    fitting = [i for i, row in enumerate(ids) if 0 < len(row) <= room]
    if not fitting:
        raise UserError(
            f"no prompt fits: the shortest has {min(map(len, ids))} tokens and {name} has room for {room}; "
            "expected one or more. Raise --max-prompt-tokens, or lower --max-new-tokens."
        )
    if len(fitting) < len(ids):
        say(
            f"{name}: {len(ids) - len(fitting)} of {len(ids)} prompts have more than {room} tokens and are left out; they "
            "count as empty answers"
        )
    started = time.perf_counter()
    answers = generate(model, [ids[i] for i in fitting], asking.decoding, asking.batch_size)
    seconds = time.perf_counter() - started
    tokens = sum(answer.tokens for answer in answers)
    facts = {
        "model": name,
        "base": policy.base,
        "hash": hash_model(resolve(name)),
        "virtual_tokens": model.virtual_tokens,
        "precision": asking.precision,
        **asking.decoding._asdict(),
        "left_out": len(ids) - len(fitting),
        "tokens": tokens,
        "seconds": round(seconds, 3),
    }
    empty = sum(not answer.text for answer in answers)
    say(
        f"{name}: {len(answers):,} answers of {tokens / len(answers):.1f} tokens, {tokens / seconds:.1f} tokens/s"
        + (f"; {empty} are empty: it ends at once on these prompts" if empty else "")
    )
    return {str(i): answer for i, answer in zip(fitting, answers, strict=True)}, facts


def _label(name: str, taken: dict[str, Answers]) -> str:
    """Return a short name of a model that differs from those before."""
    path = Path(name.rstrip("/"))
    short = path.parent.name if path.name == "model" and path.parent.name else path.name
    return short if short not in taken else f"{short}#{len(taken) + 1}"

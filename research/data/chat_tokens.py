"""Rows in TRL's forms → token ids, as TRL's trainers make them: the chat template, where a completion begins, what is learned.

Without TRL and without a table: a row keeps its own keys. tests/parity compares with TRL's trainers.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from research.data.conversations import FLAGS
from research.errors import UserError
from research.progress import say
from research.types import IGNORE, Examples

if TYPE_CHECKING:  # rows are read where no model is, and transformers takes seconds
    from transformers import PreTrainedTokenizerBase


def row_ids(tokenizer: "PreTrainedTokenizerBase", value: str | list[dict], row: dict, **options: object) -> dict:
    """Tokenise a raw text, or messages by the chat template with the row's tools and options."""
    if isinstance(value, str):
        return tokenizer(text=value)
    return tokenizer.apply_chat_template(
        value, tokenize=True, return_dict=True, tools=row.get("tools"), **row.get("chat_template_kwargs", {}), **options
    )


def common_length(ids: list[int], others: list[int]) -> int:
    """Return the length of the common beginning of two token sequences.

    A completion begins there, and not always where the prompt ends: a template may write a prompt differently alone.
    """
    pairs = enumerate(zip(ids, others, strict=False))
    return next((at for at, (token, other) in pairs if token != other), min(len(ids), len(others)))


def ended(text: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Append the end token, which a model learns to write; nothing if the tokenizer has none."""
    end = tokenizer.eos_token or ""
    return text if text.endswith(end) else text + end


def extract_prompt(row: dict) -> dict:
    """Split a row whose sides begin with the prompt into prompt, chosen and rejected; texts by character, as TRL does."""
    if "prompt" in row:
        return row
    chosen, rejected = (row[side] for side in ("chosen", "rejected"))
    at = 0
    for at in range(min(len(chosen), len(rejected))):
        if chosen[at] != rejected[at]:
            if chosen[at - 1] == " ":  # the space belongs to the answers
                at -= 1
            break
    return {**row, "prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


def learned_ids(tokenizer: "PreTrainedTokenizerBase", row: dict, loss_on: str) -> tuple[list[int], list[int]]:
    """Compute token ids and labels of an instruction row.

    Raises:
        Exception: of the template (jinja's own); RuntimeError where it marks no token of the assistant.
    """
    options = {"return_assistant_tokens_mask": True} if loss_on == "assistant" else {}
    if "prompt" in row:
        prompt, completion = row["prompt"], row["completion"]
        whole = prompt + (completion if isinstance(prompt, list) else ended(completion, tokenizer))
    else:
        whole = row["messages"] if "messages" in row else ended(row["text"], tokenizer)
    tokens = row_ids(tokenizer, whole, row, **options)
    ids = list(tokens["input_ids"])
    mask = [1] * len(ids)
    if loss_on == "completion":
        start = common_length(row_ids(tokenizer, prompt, row, add_generation_prompt=True)["input_ids"], ids)
        mask[:start] = [0] * start
    if loss_on == "assistant":
        mask = list(tokens.get("assistant_masks") or [0])
        if 1 not in mask and not any(message["role"] == "assistant" for message in whole):
            raise RuntimeError("no message is the assistant's: there is nothing to learn of it")
        if 1 not in mask:
            mask = _answered(tokenizer, whole, row, ids)
        mask = _flagged(mask, whole)
    return ids, [token if learned else IGNORE for token, learned in zip(ids, mask, strict=True)]


def _answered(tokenizer: "PreTrainedTokenizerBase", messages: list[dict], row: dict, ids: list[int]) -> list[int]:
    """Find the assistant's tokens for a template that does not mark them: what each of its messages adds, up to its end token.

    Raises:
        RuntimeError: the template writes a message differently when others follow it; then its tokens are unknown.
    """
    mask, whole, special = [0] * len(ids), _rendered(tokenizer, messages, row), {*tokenizer.all_special_ids}
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = _rendered(tokenizer, messages[:i], row, add_generation_prompt=True) if i else ""
        answered = _rendered(tokenizer, messages[: i + 1], row)
        if not (i and whole.startswith(answered) and answered.startswith(asked)):
            raise RuntimeError(
                "the chat template marks no token as the assistant's: it lacks {% generation %} around what the "
                "assistant says, and writes the beginning of a conversation otherwise than alone (message "
                f"{i + 1})"
            )
        first = common_length(row_ids(tokenizer, messages[:i], row, add_generation_prompt=True)["input_ids"], ids)
        last = common_length(row_ids(tokenizer, messages[: i + 1], row)["input_ids"], ids)
        end = max((at + 1 for at in range(first, last) if ids[at] in special), default=last)
        if not tokenizer.decode(ids[end:last]).strip():
            last = end  # the end of a line after the end token is the template's
        mask[first:last] = [1] * (last - first)
    return mask


def _flagged(mask: list[int], messages: list[dict]) -> list[int]:
    """Remove from the mask the assistant's messages that are flagged as not to be learned."""
    flags = [flag_of(message) for message in messages if message["role"] == "assistant"]
    if all(flag in (None, 1) for flag in flags):
        return mask
    starts = {at for at, bit in enumerate(mask) if bit and not (at and mask[at - 1])}
    if len(starts) != len(flags):
        raise RuntimeError(
            f"the chat template marks {len(starts)} stretches of tokens for {len(flags)} messages of the "
            "assistant, and some of them have weight 0: which, cannot be told"
        )
    turn, learned = -1, []
    for at, bit in enumerate(mask):
        turn += at in starts
        learned.append(int(bit and flags[turn] != 0))
    return learned


def flag_of(message: dict) -> int | None:
    """Read a message's own flag whether it is learned: 1, 0, or None."""
    return next((int(message[flag]) for flag in FLAGS if message.get(flag) is not None), None)


def check_flags(examples: Examples, loss_on: str) -> None:
    """Refuse messages whose own weight contradicts what `loss_on` trains.

    Args:
        examples: rows.
        loss_on: as for SFT; "sides" for preferences.

    Raises:
        UserError: a message's own weight says otherwise than what is learned.
    """
    for number, row in enumerate(examples.rows):
        for name, messages in row.items():
            for message in messages if isinstance(messages, list) and name not in ("tools",) else ():
                if (flag := flag_of(message)) is None or (loss_on == "assistant" and message["role"] == "assistant"):
                    continue
                learned = {"completion": name == "completion", "assistant": False, "all": True, "sides": name != "prompt"}
                if flag != learned[loss_on] and not (flag and message["role"] != "assistant"):
                    key = next(key for key in FLAGS if message.get(key) is not None)
                    place = examples.places[number] if examples.places else examples.source
                    cure = (
                        "Take them out"
                        if loss_on == "sides"
                        else ("Set data.loss_on to assistant, which honours them, or take them out")
                    )
                    raise UserError(
                        f"{place}: {key} {message[key]} of a message ({message['role']}: "
                        f"{str(message.get('content'))[:40]!r}) is against what is learned ({loss_on}); expected "
                        f"weights that agree. {cure} of the rows."
                    )


def check_template(examples: Examples, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that the chat template writes what the rows hold, by rendering a row with and without it.

    Raises:
        UserError: tools or calls that the template does not write.
    """
    source, ignored = examples.source, set()
    for key, row, messages in _first_rows(examples.rows):
        try:
            text = _rendered(tokenizer, messages, row)
            without = _rendered(tokenizer, *_without(key, messages, row))
        except Exception:  # the rows themselves are tokenised next, and that refuses with the template's reason
            continue
        if text != without:
            if key == "tool_calls":
                _say_escaped(source, text, messages)
        elif key in ("tools", "tool_calls"):
            raise UserError(
                f"{source}: rows have {key}, and the model's chat template does not write them; expected one that "
                f"does. Name a model that is made for tools, or take {key} out of the rows."
            )
        else:
            ignored.add(key)
    if ignored:
        say(f"{source}: parts of messages that the chat template does not write: {', '.join(sorted(ignored))}")


def _first_rows(rows: list[dict]) -> Iterator[tuple[str, dict, list[dict]]]:
    """Yield (what, row, messages), the first row that has it: of tools, calls, a system text and other keys of messages."""
    seen = set()
    for row in rows:
        parts = [value for name, value in row.items() if isinstance(value, list) and name not in ("tools", "rejected")]
        messages = [message for part in parts for message in part]
        keys = {key for message in messages for key in message if message[key] is not None} - {"role", "content", *FLAGS}
        keys |= {"system"} if any(message["role"] == "system" for message in messages) else set()
        for key in sorted((keys | ({"tools"} if row.get("tools") else set())) - seen):
            seen.add(key)
            yield key, row, messages


def _without(key: str, messages: list[dict], row: dict) -> tuple[list[dict], dict]:
    if key == "tools":
        return messages, {name: value for name, value in row.items() if name != "tools"}
    if key == "system":
        return [message for message in messages if message["role"] != "system"], row
    return [{name: value for name, value in message.items() if name != key} for message in messages], row


def _rendered(tokenizer: "PreTrainedTokenizerBase", messages: list[dict], row: dict, **options: object) -> str:
    return tokenizer.apply_chat_template(
        messages, tokenize=False, tools=row.get("tools"), **row.get("chat_template_kwargs", {}), **options
    )


def _say_escaped(source: str, text: str, messages: list[dict]) -> None:
    calls = [call.get("function", call).get("arguments") for message in messages for call in message.get("tool_calls") or []]
    if any(isinstance(call, str) and '"' in call and json.dumps(call) in text for call in calls):
        say(
            f"warning: {source}: arguments of tool calls are texts, and the chat template writes them as such, with their "
            "quotes escaped; write them as objects to have them written as a call's arguments are"
        )


def refused(examples: Examples, number: int, error: Exception, cure: str) -> UserError:
    """Return the error that says why row `number` (from 0) cannot be tokenised, and what to do about it."""
    reason = " ".join(str(error).split())[:300]
    place = examples.places[number] if examples.places else f"row {number + 1}"
    return UserError(
        f"rows of {examples.source} cannot be tokenised ({place}: {type(error).__name__}: {reason}); "
        f"expected what the model's chat template takes. {cure}."
    )


def quiet(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Silence the tokenizer's warning of long texts: they are cut, and counted."""
    if isinstance(warnings := getattr(tokenizer, "deprecation_warnings", None), dict):
        warnings["sequence-length-is-longer-than-the-specified-maximum"] = True


def say_endless(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Warn that no token ends a text."""
    if not tokenizer.eos_token:
        say("the tokenizer has no end token: texts are learned without one, and an answer has no end but its length")

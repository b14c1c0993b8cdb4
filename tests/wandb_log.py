"""What an offline W&B run has written down; and logs made by hand."""

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32768


def exit_codes(log: Path) -> list[int]:
    """With which the run was finished, as W&B is told when the log is uploaded; its service writes a little behind."""
    limit = time.monotonic() + 20
    while not (found := [record.exit.exit_code for record in records(log) if record.HasField("exit")]):
        if time.monotonic() > limit:
            break
        time.sleep(0.1)
    return found


def records(log: Path) -> Iterator:
    """7 bytes, then blocks of (checksum, length, type, bytes); a record's parts are of type 2, 3, … 4, a whole one's 1."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = log.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := BLOCK - place % BLOCK) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


# ---- logs made by hand ----------------------------------------------------------------------------------------------


def write_log(path: Path, messages: list, header: bytes = b":W&B\xe1\xbe\x00") -> Path:
    """A log of these `Record`s, framed as W&B does it."""
    out = bytearray(header)
    for message in messages:
        left, first = message.SerializeToString(), True
        while True:
            room = BLOCK - len(out) % BLOCK
            if room < 7:
                out += bytes(room)
                continue
            part, left = left[: room - 7], left[room - 7 :]
            kind = (1 if first else 4) if not left else (2 if first else 3)
            checksum = zlib.crc32(bytes([kind]) + part)
            out += checksum.to_bytes(4, "little") + len(part).to_bytes(2, "little") + bytes([kind]) + part
            first = False
            if not left:
                break
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out)
    return path


def run_records(
    id: str,
    config: dict,
    history: list[dict],
    summary: dict | None = None,
    exit_code: int | None = 0,
    started: int = 1_700_000_000,
    **run,
) -> list:
    """What a program that logs `history` (each row with its _step) leaves; its summary is the last of each, then `summary`."""
    from wandb.proto.wandb_internal_pb2 import Record

    commit = run.pop("commit", "")
    first = Record()
    first.run.run_id, first.run.project = id, run.pop("project", "p")
    first.run.start_time.seconds = started
    first.run.git.commit = commit
    for name, value in run.items():
        setattr(first.run, name, value)
    for name, value in config.items():
        item = first.run.config.update.add()
        item.key, item.value_json = name, json.dumps(value)
    found = [first]
    for row in history:
        record, after = Record(), Record()
        for name, value in row.items():
            for items in (record.history.item, after.summary.update):
                item = items.add()
                item.nested_key.append(name)
                item.value_json = json.dumps(value)
        record.history.step.num = row["_step"]
        found += [after, record]
    if summary:
        last = Record()
        for name, value in summary.items():
            item = last.summary.update.add()
            item.nested_key.append(name)
            item.value_json = json.dumps(value)
        found.append(last)
    if exit_code is not None:
        end = Record()
        end.exit.exit_code = exit_code
        found.append(end)
    for number, record in enumerate(found, 1):
        record.num = number
    return found

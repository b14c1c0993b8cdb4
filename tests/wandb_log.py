"""What an offline W&B run has written down."""

import time
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

"""The bytes of W&B's `.wandb` logs → their records.

A log is 7 bytes, then blocks of 32 KiB that hold chunks (crc32, length, type, bytes) as LevelDB's log does; one to many
chunks are a record, a protobuf `Record`. A process that was killed leaves a log without its end, a disk one with damage:
what precedes either is read.
"""

import struct
import zlib
from pathlib import Path

from research.errors import UserError

HEADER = b":W&B\xe1\xbe\x00"  # the last byte is the version
BLOCK = 32768
CHUNK = struct.Struct("<IHB")  # crc32 of type and bytes, length of the bytes, type
WHOLE, FIRST, LAST = 1, 2, 4  # types of a chunk; 3 is neither the first nor the last of its record


def read_bytes(path: Path) -> bytes:
    """Read the whole file.

    Raises:
        UserError: it cannot be read, is empty, is no log of W&B's, or one of another version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"W&B log {path} cannot be read ({error.strerror}); expected a run-ID.wandb file. Check the path."
        ) from None
    if not data.startswith(HEADER[:4]):
        what = f"begins with {data[:7]!r}" if data else "is empty"
        raise UserError(f"W&B log {path} {what}; expected {HEADER[:4]!r}, as W&B's logs begin. Leave it out, or copy it again.")
    if not data.startswith(HEADER):
        raise UserError(
            f"W&B log {path} is of another version ({data[4:7].hex()}); expected {HEADER[4:].hex()}. Upload it "
            "with `wandb sync`, and name the project as wandb:ENTITY/PROJECT."
        )
    return data


def unframe(data: bytes) -> tuple[list[bytes], str]:
    """Read the records of a log up to the first damage.

    Args:
        data: the whole file.

    Returns:
        the records; what is damaged or cut off, in words ("" where nothing is).
    """
    records: list[bytes] = []
    bad: list[int] = []  # where damage is, once a block
    cut = 0
    parts: list[bytes] = []
    place = len(HEADER)
    while place < len(data):
        left = BLOCK - place % BLOCK
        if left < CHUNK.size:  # the rest of a block that no chunk fits into
            place += left
            continue
        if place + CHUNK.size > len(data):
            cut = place
            break
        crc, length, kind = CHUNK.unpack_from(data, place)
        end = place + CHUNK.size + length
        zeros = crc == length == kind == 0 and not any(data[place:])  # a machine that lost its power leaves them
        if zeros or (end > len(data) and CHUNK.size + length <= left):
            cut = place
            break
        opens = kind in (WHOLE, FIRST)
        if (
            CHUNK.size + length > left
            or not WHOLE <= kind <= LAST
            or zlib.crc32(data[place + 6 : end]) != crc
            or (not bad and opens == bool(parts))
        ):
            bad.append(place)
            place += left  # the next block begins with a chunk again
            continue
        if not bad:
            parts.append(data[place + CHUNK.size : end])
            if kind in (WHOLE, LAST):
                records.append(parts[0] if kind == WHOLE else b"".join(parts))
                parts = []
        place = end
    if bad:
        blocks = f"{len(bad)} damaged block{'s' if len(bad) > 1 else ''}"
        return records, f"{blocks}, the first at byte {bad[0]:,}: read up to there"
    if cut or parts:
        return records, f"cut off at byte {cut or len(data):,}: read up to there"
    return records, ""

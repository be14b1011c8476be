"""What the headers of sound files promise, so that it can be held against what is there."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

MP3_PACKET = 1152  # samples, of MPEG-1


@dataclass(frozen=True)
class Chunks:
    """A container that is a list of chunks: where it begins, how a chunk's head is packed, what its size counts and is
    padded to.
    """

    magic: bytes
    first: int
    head: str
    data: bytes
    counts_head: bool = False
    padding: int = 2


CONTAINERS = (
    Chunks(b"RIFF", 12, "<4sI", b"data"),
    Chunks(b"RIFX", 12, ">4sI", b"data"),
    Chunks(b"FORM", 12, ">4sI", b"SSND"),
    Chunks(b"caff", 8, ">4sQ", b"data", padding=1),
    Chunks(
        b"riff\x2e\x91\xcf\x11",
        40,
        "<16sQ",
        b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a",
        counts_head=True,
        padding=8,
    ),
)
OPEN_ENDED = 0x7FFFF000  # sizes from here on are what writers into pipes put where the size belongs


def missing_share(file: BinaryIO) -> float:
    """Of the bytes that the header of a chunked file promises, the share that is not there; 0 where it
    promises none.
    """
    promised, there = _sizes(file)
    return max(0.0, 1 - there / promised) if 0 < promised < OPEN_ENDED else 0.0


def length_lies(file: BinaryIO) -> bool:
    """Whether the header of a chunked file promises more than is there, or none of what is: of a writer into a pipe, of
    a recorder that died, or of one that counts wrong.
    """
    promised, there = _sizes(file)
    return promised > there or (promised == 0 < there)


def _sizes(file: BinaryIO) -> tuple[int, int]:
    """Bytes of sound that the header of a chunked file promises, and those that are there; (0, 0) of other files."""
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    head = file.read(16)
    if head[:4] == b".snd":
        start, size = struct.unpack(">II", head[4:12])
        return size, end - start
    kind = next((kind for kind in CONTAINERS if head.startswith(kind.magic)), None)
    if kind is None:
        return 0, 0
    length, at = struct.calcsize(kind.head), kind.first
    while at + length <= end:
        file.seek(at)
        name, size = struct.unpack(kind.head, file.read(length))
        size -= length if kind.counts_head else 0
        if name == kind.data:
            return size, end - at - length
        at += length + size + -size % kind.padding
    return 0, 0


def mp3_says(file: BinaryIO) -> int:
    """How many samples an MP3 says that its packets hold; 0 where it says nothing."""
    file.seek(0)
    head = file.read(10)
    tags = 0
    if head[:3] == b"ID3" and len(head) == 10:
        tags = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(tags)
    first = file.read(256)
    at = max(first.find(mark) for mark in (b"Xing", b"Info"))
    if at < 0 or len(first) < at + 12 or not first[at + 7] & 1:
        return 0
    full = first[max(0, first.find(b"\xff")) + 1] & 8  # MPEG-1; else packets are half as long
    return int.from_bytes(first[at + 8 : at + 12], "big") * (MP3_PACKET if full else MP3_PACKET // 2)


def ogg_ends(file: BinaryIO) -> bool:
    """Whether the last page of an OGG says that it is the last."""
    file.seek(0, 2)
    file.seek(max(0, file.tell() - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and len(tail) > at + 5 and bool(tail[at + 5] & 4)

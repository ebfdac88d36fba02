"""Checks whether the lengths in the headers of MP3, CAF, and OGG files can be trusted."""

import mmap
import re
import struct
from dataclasses import dataclass

MP3_BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by (MPEG version 1 or 2, layer); ISO/IEC 11172-3 and 13818-3."""

MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Hz by the version bits: MPEG 1, 2 and 2.5."""

TAG_BYTES = 1 << 16
"""Maximum size in bytes of the tags after the last frame of an MP3."""

SYNC = re.compile(rb"\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff]")
OGG_BEGIN = re.compile(rb"OggS\x00[\x02\x03\x06\x07]")


@dataclass(frozen=True)
class Mp3Frame:
    """Header of one MP3 frame: its size in bytes and samples, and the offset of a Xing header from
    its start.
    """

    size: int
    samples: int
    xing: int


def mp3_frame(data: bytes | mmap.mmap, at: int) -> Mp3Frame | None:
    """Read the frame header at a byte offset; return None if there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version = head[1] >> 3 & 3
    layer = 4 - (head[1] >> 1 & 3)
    bitrate = head[2] >> 4
    rate = head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    kilobits = MP3_BITRATES[1 if version == 3 else 2, layer][bitrate - 1]
    hertz = MP3_RATES[version][rate]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return Mp3Frame((12000 * kilobits // hertz + padding) * 4, 384, 0)
    samples = 576 if layer == 3 and version != 3 else 1152
    mono = head[3] >> 6 == 3
    if version == 3:
        side = 17 if mono else 32
    else:
        side = 9 if mono else 17
    return Mp3Frame(samples // 8 * 1000 * kilobits // hertz + padding, samples, 4 + side)


def mp3_samples(data: bytes | mmap.mmap) -> tuple[int, bool]:
    """Return the samples per channel of an MP3, and whether its own header states the length.

    If a Xing (Info) or VBRI header covers the whole file, libsndfile knows the length, and the
    result is (0, True). Otherwise all frames are counted by their headers, without decoding, and
    the result is (samples, False).
    """
    at = _after_tags(data, 0)
    first = mp3_frame(data, at)
    if first is not None:
        covered = _bytes_promised(data, at, first)
        if covered is not None and len(data) <= at + covered + TAG_BYTES:
            return 0, True
    total = 0
    while at < len(data):
        frame = mp3_frame(data, at)
        if frame is not None:
            if at + frame.size <= len(data):
                total += frame.samples
            at += max(frame.size, 4)
            continue
        after = _after_tags(data, at)
        found = SYNC.search(data, after)
        if found is None:
            break
        at = max(found.start(), at + 1)
    return total, False


def _after_tags(data: bytes | mmap.mmap, at: int) -> int:
    """Return the byte offset at which the ID3v2 tags that begin at ``at`` end."""
    while data[at : at + 3] == b"ID3" and len(data) > at + 10:
        one, two, three, four = (byte & 0x7F for byte in data[at + 6 : at + 10])
        at += 10 + (one << 21 | two << 14 | three << 7 | four)
    return at


def _bytes_promised(data: bytes | mmap.mmap, at: int, frame: Mp3Frame) -> int | None:
    """Return the number of bytes, counted from the first frame, that a Xing or VBRI header states;
    None without such a header.
    """
    xing = at + frame.xing
    if data[xing : xing + 4] in (b"Xing", b"Info"):
        flags = data[xing + 7] if len(data) > xing + 7 else 0
        if flags & 1 and flags & 2 and len(data) >= xing + 16:
            return int(struct.unpack(">I", data[xing + 12 : xing + 16])[0])
        return None
    vbri = at + 36
    if data[vbri : vbri + 4] == b"VBRI" and len(data) >= vbri + 14:
        return int(struct.unpack(">I", data[vbri + 10 : vbri + 14])[0])
    return None


def caf_bytes(data: bytes | mmap.mmap) -> tuple[int, int]:
    """Return how many bytes of audio the header of a CAF file states, and how many the file has.
    Both are 0 if the header states no size (-1 means until the end of the file).
    """
    at = 8
    while at + 12 <= len(data):
        kind, size = struct.unpack(">4sq", data[at : at + 12])
        at += 12
        if kind == b"data":
            return (size, min(size, len(data) - at)) if size > 0 else (0, 0)
        if size < 0:
            break
        at += size
    return 0, 0


def ogg_state(data: bytes | mmap.mmap) -> str:
    """Return "whole" (one complete OGG stream), "chained" (several streams in a row), or "cut" (the
    end is missing).
    """
    if any(found.start() > 0 for found in OGG_BEGIN.finditer(data)):
        return "chained"
    last = data.rfind(b"OggS\x00")
    if last < 0 or last + 27 > len(data):
        return "cut"
    ends = bool(data[last + 5] & 4)
    return "whole" if ends else "cut"

"""Audio formats: the list of file suffixes, and recognition by the first bytes of a file."""

LIBSNDFILE_SUFFIXES = frozenset(
    {
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".sph",
        ".nist",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".w64",
        ".rf64",
        ".caf",
    }
)
"""Common suffixes of formats that libsndfile reads."""

PYAV_SUFFIXES = frozenset(
    {
        ".m4a",
        ".m4b",
        ".mp4",
        ".m4v",
        ".mov",
        ".aac",
        ".adts",
        ".3gp",
        ".3g2",
        ".3gpp",
        ".amr",
        ".awb",
        ".webm",
        ".weba",
        ".mka",
        ".mkv",
        ".wma",
        ".wmv",
        ".asf",
        ".ac3",
        ".eac3",
        ".mp2",
        ".ape",
        ".tta",
        ".wv",
        ".spx",
        ".avi",
        ".flv",
    }
)
"""Common suffixes of formats that only PyAV (``sasv[m4a]``) reads."""

SUFFIXES = LIBSNDFILE_SUFFIXES | PYAV_SUFFIXES
"""Suffixes by which audio files are found in a folder. Readers are chosen by content, not by
suffix.
"""

MAGIC_BYTES = 16
"""Number of bytes at the start of a file that identify its container."""


def is_audio_name(name: str) -> bool:
    """Whether a file with this name counts as audio when a folder is searched."""
    return suffix_of(name) in SUFFIXES


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot; "" if there is none."""
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def pyav_container(head: bytes) -> str:
    """Return the container that the first ``MAGIC_BYTES`` bytes of a file identify if only PyAV
    reads it; otherwise "".
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "M4A/MP4"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "WebM/Matroska"
    if head.startswith(b"#!AMR"):
        return "AMR"
    if head.startswith(b"0&\xb2u\x8ef\xcf\x11"):
        return "WMA/ASF"
    if head.startswith(b"\x0bw"):
        return "AC-3"
    if head[:4] in (b"FLV\x01", b"MAC ", b"wvpk", b"TTA1"):
        return head[:4].decode("ascii", "replace").strip("\x01 ")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # MPEG sync with layer 0
        return "AAC"
    return ""

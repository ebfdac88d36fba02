"""Kaldi data folders: ``wav.scp`` and ``utt2spk``, and ``spk2gender`` if it exists."""

import shlex
from pathlib import Path

from sasv.core.errors import SasvError, listed
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.tree import found_above
from sasv.tables import NONE


def read(folder: Path) -> CorpusLists:
    """Read a data folder. A command that only decodes a file (``flac -c -d``, ``sph2pipe``,
    ``ffmpeg -i``) is replaced by that file.

    Raises:
        SasvError: wav.scp or utt2spk is missing, or the folder uses segments, archives, or other
            commands.
    """
    for name in ("wav.scp", "utt2spk"):
        if not (folder / name).exists():
            raise SasvError(
                f"{folder}: contains no {name}; give a Kaldi data folder with wav.scp and utt2spk"
            )
    if (folder / "segments").exists():
        raise SasvError(
            f"{folder}: has segments, but sasv reads whole files; cut them first (Kaldi: "
            "extract-segments scp:wav.scp segments ark,scp:..., then wav-copy to files), and give "
            "a wav.scp of the pieces"
        )
    recordings = _pairs(folder / "wav.scp")
    speakers = _pairs(folder / "utt2spk")
    unknown = [name for name in speakers if name not in recordings]
    if unknown:
        raise SasvError(f"{folder / 'utt2spk'}: {listed(unknown)} is not in wav.scp")
    lists = CorpusLists(folder, [], files=set())
    channels: dict[str, str] = {}
    for name, speaker in speakers.items():
        path, channel = _file(folder, name, recordings[name])
        lists.utterances.append(Utterance(name, path, speaker, "all"))
        if channel:
            channels[name] = channel
        if lists.files is not None and (folder / path).exists():
            lists.files.add(path)
    if channels:
        lists.extras["channel"] = channels
    genders = folder / "spk2gender"
    if genders.exists():
        of_speaker = _pairs(genders)
        lists.extras["gender"] = {
            name: of_speaker.get(speaker, NONE) for name, speaker in speakers.items()
        }
    left_out = len(recordings) - len(speakers)
    if left_out:
        lists.notes.append(f"left out {left_out} recordings of wav.scp that are not in utt2spk")
    return lists


def _pairs(path: Path) -> dict[str, str]:
    """Return first field -> rest of the line, for each line."""
    pairs = {}
    for number, line in enumerate(read_lines(path), 1):
        key, _, rest = (
            line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
        )
        if not rest.strip():
            raise SasvError(
                f"{path}, line {number}: expected a name and a value; found: {line[:60]}"
            )
        if key in pairs:
            raise SasvError(f"{path}, line {number}: {key} appears twice; keep one")
        pairs[key] = rest.strip()
    return pairs


def _file(folder: Path, name: str, recording: str) -> tuple[str, str]:
    """Return (path, channel or "") of an entry of wav.scp."""
    path, channel = _decoded(recording) if recording.endswith("|") else (recording, "")
    if not path:
        raise SasvError(
            f"{folder / 'wav.scp'}: {name} is the command '{recording[:60]}'; sasv runs no "
            "commands: write its output to files and list these"
        )
    if ".ark:" in path:
        raise SasvError(
            f"{folder / 'wav.scp'}: {name} is in an archive ({path}); copy it to files (wav-copy)"
        )
    if not Path(path).is_absolute():
        found = found_above(folder, path)
        if found is not None:
            return str(found.resolve()), channel
    return path, channel


def _decoded(command: str) -> tuple[str, str]:
    """Return (file, channel or "") for a command that only decodes a file, and ("", "") for any
    other command.
    """
    try:
        words = shlex.split(command.rstrip("|"))
    except ValueError:
        return "", ""
    if not words or "|" in words:
        return "", ""
    program = Path(words[0]).name
    if program == "flac" and any(word in ("-d", "-dc", "-cd", "--decode") for word in words):
        return words[-1], ""
    if program == "sph2pipe":
        channel = ""
        if "-c" in words[:-1]:
            number = words[words.index("-c") + 1]
            channel = str(int(number) - 1) if number in ("1", "2") else ""  # sph2pipe counts from 1
        files = [word for word in words[1:] if not word.startswith("-")]
        return (files[-1] if files else ""), channel
    if (
        program == "ffmpeg"
        and "-i" in words[:-1]
        and not any(word in ("-ss", "-t", "-to", "-af") for word in words)
    ):
        return words[words.index("-i") + 1], ""
    return "", ""

"""Copy-synthesised corpora in the form in which their authors distribute them: a folder of audio
and a list.

Three formats of the list are read: lines of five fields as in the countermeasure protocols of
ASVspoof (``LA_0079 hifigan_LA_T_1138215 - hifigan spoof``, the vocoded ASVspoof 2019 sets of Wang
and Yamagishi, ICASSP 2023); a table with a header (columns utterance or path, speaker, and
optionally attack, label, source); or one path per line in a tree ``VOCODER/SPEAKER/...``, the
structure of copies of VoxCeleb2.
"""

from pathlib import Path

from sasv.core.errors import SasvError, listed
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.lists import countermeasure_row, without_suffix
from sasv.corpora.tree import audio_below
from sasv.tables import NONE, Table
from sasv.tables.labels import SPOOF

LISTS = (".txt", ".tsv", ".lst", ".list")


def read(folder: Path, protocol: Path | None = None) -> CorpusLists:
    """Read a folder and its list.

    Args:
        folder: folder that contains the audio, at any depth.
        protocol: the list; None uses the only list at the top of the folder.

    Raises:
        SasvError: there is no list or more than one, its format is unknown, or two files have the
            same name and the list does not contain paths.
    """
    protocol = protocol or _only_list(folder)
    files = audio_below(folder)
    rows = _rows(protocol)
    by_stem: dict[str, list[str]] = {}
    for path in files:
        by_stem.setdefault(Path(path).stem, []).append(path)
    known = set(files)
    lists = CorpusLists(folder, [], files=known)
    sources: dict[str, str] = {}
    twice = []
    for name, speaker, label, attack, source in rows:
        path = name
        if name not in known:
            found = by_stem.get(Path(without_suffix(name)).name, [])
            if len(found) > 1:
                twice.append(name)
            path = found[0] if found else name
        utterance = without_suffix(name) if path == name else name
        lists.utterances.append(
            Utterance(utterance.replace(",", "_"), path, speaker, "all", label, attack)
        )
        sources[lists.utterances[-1].utterance] = source
    if twice:
        raise SasvError(
            f"{folder}: several files have the name {listed(twice, 3)}; write their paths into "
            f"{protocol.name}"
        )
    lists.extras = {"source": sources}
    return lists


def _only_list(folder: Path) -> Path:
    found = (
        sorted(path for path in folder.iterdir() if path.suffix in LISTS) if folder.is_dir() else []
    )
    if len(found) != 1:
        names = listed([path.name for path in found]) if found else "none"
        raise SasvError(
            f"{folder}: the folder must contain exactly one list, but contains {names}; choose one "
            "with --protocol"
        )
    return found[0]


def _rows(protocol: Path) -> list[tuple[str, str, str, str, str]]:
    """Return (name or path, speaker, label, attack, source) of each line."""
    lines = [line for line in read_lines(protocol) if line.strip()]
    if not lines:
        raise SasvError(f"{protocol}: contains no lines; give the list of the copies")
    if "\t" in lines[0] and "speaker" in lines[0].split("\t"):
        return _from_table(protocol)
    rows = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        row = countermeasure_row(fields)
        if row is not None:
            speaker, name, label, attack = row
            prefix = f"{attack}_"
            source = (
                name.removeprefix(prefix) if label == SPOOF and name.startswith(prefix) else NONE
            )
            rows.append((name, speaker, label, attack, source))
        elif len(fields) == 1 and len(Path(fields[0]).parts) > 2:
            attack, speaker, *rest = Path(fields[0]).parts
            rows.append(
                (fields[0], speaker, SPOOF, attack, without_suffix("/".join((speaker, *rest))))
            )
        else:
            raise SasvError(
                f"{protocol}, line {number}: expected 'SPEAKER NAME - VOCODER spoof', a path "
                f"VOCODER/SPEAKER/..., or a table with a header; found: {line[:60]}"
            )
    return rows


def _from_table(protocol: Path) -> list[tuple[str, str, str, str, str]]:
    table = Table.load(protocol)
    name = "path" if "path" in table.columns else "utterance"
    table.require(name, "speaker")
    defaults = {"label": SPOOF, "attack": "unknown", "source": NONE}
    optional = [
        table.texts(column) if column in table.columns else [default] * len(table)
        for column, default in defaults.items()
    ]
    return list(zip(table.texts(name), table.texts("speaker"), *optional))

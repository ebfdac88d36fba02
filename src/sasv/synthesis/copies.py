"""Spoofed copies of the utterances of a table, and the trials that use them."""

from sasv.core.files import digest_of_file
from sasv.core.progress import Progress
from sasv.storage import absolute
from sasv.synthesis.log import Made
from sasv.synthesis.plan import Plan
from sasv.tables import NONE, Table, Trials, Utterances
from sasv.vocoders import VOCODERS

COLUMNS = (
    "utterance",
    "path",
    "speaker",
    "split",
    "label",
    "attack",
    "seconds",
    "source",
    "sha256",
    "codec",
)


def copy_name(utterance: str, vocoder: str) -> str:
    """Return the name of the copy of an utterance."""
    return f"{utterance}~{vocoder}"


def table_of_copies(
    plan: Plan, made: dict[int, Made], utterances: Utterances, name: str
) -> Utterances:
    """Return the table of the copies, with the label spoof, the vocoder as attack, the original as
    source, and the digest of the file.

    Speech that was passed through a transmission condition remains bona fide; the column codec
    names the condition.
    """
    have = utterances.table.columns
    splits = utterances.table.texts("split") if "split" in have else ["all"] * len(utterances)
    speakers = utterances.table.texts("speaker")
    names = utterances.ids
    rows = []
    for number in sorted(made):
        unit = plan.units[number]
        copy = made[number]
        source = names[unit.row]
        start = (copy_name(source, unit.vocoder), unit.path, speakers[unit.row], splits[unit.row])
        label = "spoof"
        attack = unit.vocoder
        codec = NONE
        if VOCODERS.get(unit.vocoder).condition:
            label = "bonafide"
            attack = NONE
            codec = unit.vocoder
        rows.append((*start, label, attack, f"{copy.seconds:.3f}", source, copy.digest, codec))
    return Utterances(Table.build(dict(zip(COLUMNS, zip(*rows))), name))


def check_copies(copies: Utterances) -> list[str]:
    """Read every copy again; return a line for each that is missing or has changed."""
    faults = []
    with Progress("check", len(copies)) as progress:
        for path, digest in zip(copies.paths, copies.table.texts("sha256")):
            try:
                if digest_of_file(path) != digest:
                    faults.append(
                        f"{path}: changed since it was written; remove it and run the same command "
                        "again"
                    )
            except OSError as error:
                faults.append(f"{path}: cannot be read ({error.strerror or error})")
            progress.add()
    return faults


def spoofed_trials(trials: Trials, copies: Utterances) -> Table:
    """Return the trials, including those with copies.

    A copy of the utterance of a target trial gives a spoofed trial. Bona fide speech through a
    codec keeps its label.
    """
    sources: dict[str, list[tuple[str, str, bool]]] = {}
    for source, *copy in zip(
        copies.table.texts("source"), copies.ids, copies.attack_texts, copies.spoofed.tolist()
    ):
        sources.setdefault(source, []).append(tuple(copy))
    table = trials.table
    rows = list(
        zip(
            table.texts("speaker"),
            table.texts("utterance"),
            table.texts("label"),
            trials.attack_texts,
        )
    )
    added = [
        (speaker, name, "spoof" if spoofed else label, attack)
        for speaker, utterance, label, _ in rows
        for name, attack, spoofed in sources.get(utterance, [])
        if label == "target" or (label == "nontarget" and not spoofed)
    ]
    return Table.build(
        dict(zip(("speaker", "utterance", "label", "attack"), zip(*rows, *added))), "trials"
    )


def union(*tables: Utterances) -> Table:
    """Concatenate utterance tables. Missing columns are filled, and paths are made absolute."""
    columns = list(dict.fromkeys(column for table in tables for column in table.table.columns))
    if not all("seconds" in table.table.columns for table in tables):
        columns = [column for column in columns if column != "seconds"]
    defaults = {"label": "bonafide", "attack": NONE, "split": "all"}
    cells: dict[str, list[str]] = {column: [] for column in columns}
    for table in tables:
        for column in columns:
            if column == "path":
                cells[column] += [absolute(path) for path in table.paths]
            elif column in table.table.columns:
                cells[column] += table.table.texts(column)
            else:
                cells[column] += [defaults.get(column, NONE)] * len(table)
    return Table.build(cells, "utterances")

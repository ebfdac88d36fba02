"""Maps of the embeddings of the test utterances."""

from collections.abc import Sequence

import numpy as np

from sasv.embeddings.extract import Embeddings
from sasv.report.canvas import attempt
from sasv.report.figures import embedding_map
from sasv.report.page import Section
from sasv.report.sections.curves import drawn
from sasv.report.systems import System
from sasv.tables import NONE

FEWEST = 3
"""Utterances of which a map can be drawn."""


def maps(systems: Sequence[System]) -> list[Section]:
    """Return the maps of the systems whose embeddings lie beside their scores; nothing where none
    do.
    """
    images = drawn({f"embeddings-{number}": mapped(one) for number, one in enumerate(systems, 1)})
    if not images:
        return []
    note = "Test utterances on the two main axes of their normalised embeddings."
    return [Section("Embeddings", note, figures=images)]


def mapped(system: System) -> bytes | None:
    """Return the map of the test utterances' embeddings, None if the system has none."""
    folder = system.folder / "embeddings" if system.folder else None
    if folder is None or not (folder / "embeddings.npy").exists():
        return None
    embeddings = Embeddings.load(folder)
    place = {name: row for row, name in enumerate(embeddings.utterances)}
    codes, names = system.scores.utterances
    speaker_codes, speakers = system.scores.speakers
    known: dict[str, tuple[str, bool]] = {}
    for code, speaker, label in zip(
        codes.tolist(), speaker_codes.tolist(), system.scores.labels.tolist()
    ):
        if names[code] in place and (label != 1 or names[code] not in known):
            known[names[code]] = (speakers[speaker] if label != 1 else NONE, label == 2)
    if len(known) < FEWEST:
        return None
    vectors = embeddings.vectors[[place[name] for name in known]]
    owners, spoofed = zip(*known.values())
    return attempt(embedding_map, system.name, vectors, owners, np.array(spoofed))

"""A model as a countermeasure: every utterance scored as bona fide or spoofed, without a claim."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sasv.core.errors import SasvError, some
from sasv.embeddings.extract import Embeddings
from sasv.evaluation.protocol import CARRIED
from sasv.tables import Scores, Table, Utterances
from sasv.tables.labels import BONA_FIDE

Scorer = Callable[[np.ndarray], np.ndarray]


def score_utterances(
    utterances: Utterances, embeddings: Embeddings, score: Scorer, path: Path
) -> Scores:
    """Score every utterance as bona fide (high) or spoofed (low); write and return the score file.

    Args:
        utterances: with the labels bonafide and spoof.
        embeddings: of all of them.
        score: embeddings (utterances, dimension) to scores (utterances,), high for bona fide speech
            (see Model.bona_fide_scores).
        path: of the score file.

    Raises:
        SasvError: utterances could not be embedded.
    """
    if embeddings.failures:
        reasons = [f"{name}: {reason}" for name, reason in embeddings.failures.items()]
        raise SasvError(
            f"{utterances.table.name}: {len(reasons)} utterances could not be embedded "
            f"({some(reasons, 3)}); "
            "mend the files or drop their rows"
        )
    values = score(embeddings.vectors)
    cells = {
        "speaker": utterances.table.texts("speaker"),
        "utterance": utterances.ids,
        "label": ["spoof" if spoofed else BONA_FIDE for spoofed in utterances.spoofed],
        "attack": utterances.attack_texts,
        "score": [f"{value:.9g}" for value in values],
    }
    cells |= {
        name: utterances.table.texts(name) for name in CARRIED if name in utterances.table.columns
    }
    table = Table.build(cells, str(path))
    table.save(path)
    return Scores(table)

"""Evaluates a model as a countermeasure: every utterance is scored as bona fide or spoofed, without
a claim.
"""

from pathlib import Path

import numpy as np

from sasv.core.errors import SasvError, listed
from sasv.embeddings.extract import Embeddings
from sasv.embeddings.model import Model
from sasv.evaluation.embedding import embed_shared
from sasv.evaluation.protocol import CARRIED, Protocol
from sasv.parallel.processes import Processes
from sasv.tables import Scores, Table, Utterances
from sasv.tables.labels import BONA_FIDE


def countermeasure_scores(
    model: Model,
    protocol: Protocol,
    folder: Path,
    batch_seconds: float,
    processes: Processes,
) -> dict[str, float]:
    """Score the test utterances of a protocol with a countermeasure.

    Args:
        model: the countermeasure.
        protocol: the protocol, with trials.
        folder: folder for the embeddings; existing ones are not computed again.
        batch_seconds: padded audio per batch in seconds; 0 selects a default for the device.
        processes: the processes that share the work.

    Returns:
        utterance -> score, higher for bona fide speech; empty except in the main process.

    Raises:
        SasvError: the model is not a countermeasure, or utterances could not be embedded.
    """
    assert protocol.trials is not None
    tested = set(protocol.trials.utterances[1])
    rows = np.array([name in tested for name in protocol.utterances.ids])
    utterances = protocol.utterances.take(rows)
    embeddings = embed_shared(model, utterances, folder, batch_seconds, processes)
    if not processes.main:
        return {}
    values = bona_fide_scores(model, embeddings, utterances.table.name)
    return dict(zip(embeddings.utterances, values.tolist()))


def bona_fide_scores(model: Model, embeddings: Embeddings, name: str) -> np.ndarray:
    """Return the countermeasure score of each embedding, (utterances,), higher for bona fide
    speech.

    Args:
        model: the countermeasure.
        embeddings: embeddings of all utterances to be scored.
        name: name of their table, for errors.

    Raises:
        SasvError: the model is not a countermeasure, or utterances could not be embedded.
    """
    if embeddings.failures:
        reasons = [f"{one}: {reason}" for one, reason in embeddings.failures.items()]
        raise SasvError(
            f"{name}: {len(reasons)} utterances could not be embedded ({listed(reasons, 3)}); fix "
            "the files or remove their rows"
        )
    if embeddings.extraction.crops and model.scores_whole_utterances:
        raise SasvError(
            f"{model.name}: this countermeasure scores whole utterances, not crops; leave out "
            "--crops"
        )
    return model.bona_fide_scores(embeddings.vectors)


def score_utterances(
    model: Model, utterances: Utterances, embeddings: Embeddings, path: Path
) -> Scores:
    """Score every utterance as bona fide (high) or spoofed (low); write and return the score file.

    Args:
        model: the countermeasure.
        utterances: the utterances, with the labels bonafide and spoof.
        embeddings: embeddings of all of them.
        path: the score file.

    Raises:
        SasvError: the model is not a countermeasure, or utterances have no embedding.
    """
    name = utterances.table.name
    values = bona_fide_scores(model, embeddings, name)
    known = dict(zip(embeddings.utterances, values.tolist()))
    missing = [one for one in utterances.ids if one not in known]
    if missing:
        raise SasvError(
            f"{name}: {len(missing)} utterances have no embedding ({listed(missing, 3)}); run sasv "
            "embed on this table"
        )
    cells = {
        "speaker": utterances.table.texts("speaker"),
        "utterance": utterances.ids,
        "label": ["spoof" if spoofed else BONA_FIDE for spoofed in utterances.spoofed],
        "attack": utterances.attack_texts,
        "score": [f"{known[one]:.9g}" for one in utterances.ids],
    }
    columns = utterances.table.columns
    cells |= {column: utterances.table.texts(column) for column in CARRIED if column in columns}
    table = Table.build(cells, str(path))
    table.save(path)
    return Scores(table)

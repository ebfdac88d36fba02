"""Computes the embeddings for an evaluation, in one process or in all processes of torchrun."""

import logging
from pathlib import Path

from sasv.core.errors import SasvError, listed
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import Model
from sasv.parallel.processes import Processes
from sasv.scores import Cohort
from sasv.tables import Utterances, load_utterances

logger = logging.getLogger("sasv")

COHORT_BY = ("utterance", "speaker")


def embed_shared(
    model: Model, utterances: Utterances, folder: Path, batch_seconds: float, processes: Processes
) -> Embeddings:
    """Embed utterances into a folder, with each process doing its share, and return all embeddings.

    Args:
        model: the model.
        utterances: the utterances.
        folder: folder for the embeddings; existing ones are not computed again.
        batch_seconds: padded audio per batch in seconds; 0 selects a default for the device.
        processes: the processes that share the work.
    """
    shard = "1/1" if processes.world == 1 else ""
    found = extract(model, utterances, folder, batch_seconds, shard)
    processes.wait()
    return Embeddings.load(folder) if found is None else found


def embed_cohort(
    model: Model,
    table: str,
    where: str,
    by: str,
    folder: Path,
    batch_seconds: float,
    processes: Processes,
) -> Cohort:
    """Embed the cohort of s-norm and return it. Utterances that cannot be used are logged.

    Args:
        model: the model.
        table: path of the utterance table of other speakers.
        where: use only its utterances with this ``column=value``.
        by: one of COHORT_BY, what a member of the cohort represents.
        folder: folder for the embeddings.
        batch_seconds: padded audio per batch in seconds; 0 selects a default for the device.
        processes: the processes that share the work.
    """
    if by not in COHORT_BY:
        raise SasvError(f"'{by}' is not a kind of cohort; use utterance or speaker")
    people = load_utterances(table, where)
    found = embed_shared(model, people, folder, batch_seconds, processes)
    if found.failures and processes.main:
        reasons = [f"{name}: {reason}" for name, reason in found.failures.items()]
        logger.info(
            f"{table}: s-norm does not use {len(reasons)} of {len(people)} cohort utterances "
            f"({listed(reasons, 3)})"
        )
    return cohort_of(found, people, by, Path(table).name)


def cohort_of(embeddings: Embeddings, people: Utterances | None, by: str, source: str) -> Cohort:
    """Make a cohort from embeddings.

    Args:
        embeddings: embeddings of the members.
        people: their utterance table; needed if a member represents a speaker.
        by: one of COHORT_BY.
        source: origin of the embeddings, for records and errors.
    """
    speakers = None
    if by == "speaker":
        assert people is not None
        texts = people.table.texts("speaker")
        speakers = [texts[people.rows[name]] for name in embeddings.utterances]
    crops = embeddings.extraction.crops > 0
    return Cohort.build(embeddings.vectors, speakers, crops, source, embeddings.utterances)

"""Computes the embeddings for an evaluation, in one process or in all that torchrun started."""

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
    """Embed utterances into a folder, each process its share, and return all of them.

    Args:
        model: the model.
        utterances: what to embed.
        folder: where embeddings go; what is there already is not embedded again.
        batch_seconds: padded audio per batch; 0 takes what suits the device.
        processes: those that share the work.
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
    """Embed the cohort of s-norm and return it; utterances that could not be used are named.

    Args:
        model: the model.
        table: path of the utterance table of other people.
        where: only its utterances with this ``column=value``.
        by: one of COHORT_BY: what a member of the cohort is.
        folder: where the embeddings go.
        batch_seconds: padded audio per batch; 0 takes what suits the device.
        processes: those that share the work.
    """
    if by not in COHORT_BY:
        raise SasvError(f"'{by}': a cohort is taken by utterance or by speaker")
    people = load_utterances(table, where)
    found = embed_shared(model, people, folder, batch_seconds, processes)
    if found.failures and processes.main:
        reasons = [f"{name}: {reason}" for name, reason in found.failures.items()]
        logger.info(
            f"{table}: s-norm goes without {len(reasons)} of {len(people)} cohort utterances "
            f"({listed(reasons, 3)})"
        )
    return cohort_of(found, people, by, Path(table).name)


def cohort_of(embeddings: Embeddings, people: Utterances | None, by: str, source: str) -> Cohort:
    """Return the cohort of embeddings.

    Args:
        embeddings: of the members.
        people: their utterance table; needed if a member is a speaker.
        by: one of COHORT_BY.
        source: where they come from, for records and errors.
    """
    speakers = None
    if by == "speaker":
        assert people is not None
        texts = people.table.texts("speaker")
        speakers = [texts[people.rows[name]] for name in embeddings.utterances]
    crops = embeddings.extraction.crops > 0
    return Cohort.build(embeddings.vectors, speakers, crops, source, embeddings.utterances)

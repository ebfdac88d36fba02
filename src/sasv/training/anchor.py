"""The anchor of anchored training: a frozen copy of the encoder, and its voiceprints."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sasv.checkpoints import load_checkpoint
from sasv.core.errors import SasvError
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import Model
from sasv.parallel.processes import Processes
from sasv.tables import Utterances

MAX_VOICEPRINT_UTTERANCES = 10
"""Number of utterances of each speaker, the first in the table, from which the voiceprint is made.
"""


class Anchor:
    """A frozen copy of the encoder that is being trained. It is not part of the trained weights.

    Args:
        init: the checkpoint from which the training starts.
        utterances: the bona fide training utterances.
        speakers: (utterances,) number of the speaker of each.
        count: number of speakers.
        device: device of the copy.

    Attributes:
        model: the frozen copy.
        voiceprints: (speakers, dimension): the direction of each speaker's whole utterances; zeros
            before ``prepare`` is called.
    """

    def __init__(
        self,
        init: str,
        utterances: Utterances,
        speakers: np.ndarray,
        count: int,
        device: torch.device,
    ):
        self.model = Model(load_checkpoint(init), device)
        self.model.encoder.requires_grad_(False)
        rows = _first_of_each(speakers, MAX_VOICEPRINT_UTTERANCES)
        self.utterances = utterances.take(rows)
        self.speakers = speakers[rows]
        self.voiceprints = torch.zeros(count, self.model.dimension, device=device)

    def prepare(self, folder: Path, processes: Processes) -> None:
        """Embed the utterances, divided among the processes, and make voiceprints from their
        embeddings.

        Args:
            folder: folder for the embeddings; those of an earlier run are used again.
            processes: the processes that train together.

        Raises:
            SasvError: no utterance could be embedded.
        """
        shard = f"{processes.rank + 1}/{processes.world}"
        extract(self.model, self.utterances, folder, shard=shard, quiet=not processes.main)
        processes.wait()
        found = Embeddings.load(folder)
        if not len(found.vectors):
            raise SasvError(f"{folder}: no training utterance could be embedded; see failed.tsv")
        speakers = dict(zip(self.utterances.ids, self.speakers.tolist()))
        numbers = torch.tensor([speakers[name] for name in found.utterances])
        units = torch.nn.functional.normalize(torch.from_numpy(found.vectors), dim=1)
        sums = torch.zeros(self.voiceprints.shape).index_add(0, numbers, units)
        self.voiceprints = torch.nn.functional.normalize(sums, dim=1).to(self.voiceprints.device)

    @torch.no_grad()
    def embed(self, features: Tensor, frames: Tensor | None) -> Tensor:
        """Return the embeddings of the frozen copy, (batch, dimension), for features (see
        Encoder.features).
        """
        return self.model.encoder.embed_features(features, frames)

    def voiceprints_of(self, speakers: Tensor) -> Tensor:
        """Return the voiceprint of each speaker, (items, dimension); zeros for a speaker without
        one.
        """
        known = (speakers >= 0) & (speakers < len(self.voiceprints))
        return self.voiceprints[speakers.where(known, 0)] * known[:, None]


def _first_of_each(speakers: np.ndarray, most: int) -> np.ndarray:
    """Return the rows, in order, that belong to the first ``most`` rows of their speaker."""
    order = np.argsort(speakers, kind="stable")
    edges = np.flatnonzero(np.diff(speakers[order])) + 1
    return np.sort(np.concatenate([group[:most] for group in np.split(order, edges)]))

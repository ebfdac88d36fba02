"""A model ready to use: ``load_model(path).embed(path_or_waveform)``."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sasv.checkpoints import Checkpoint, load_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes
from sasv.encoders.base import lengths_tensor, parameters_of
from sasv.encoders.inference import prepare_for_inference
from sasv.losses import LOSSES
from sasv.losses.base import Loss
from sasv.parallel.devices import Precision, arithmetic, computes_bfloat16, pick_device
from sasv.runtime.embedder import Embedder, Extraction, Speech, padded_batch
from sasv.scores import SpoofHead, ThreeClass, TrialClasses, unit

logger = logging.getLogger("sasv")

SINGLY_FROM = 2_000_000
"""Number of parameters from which a CPU embeds the waveforms of a batch one after another.

With a large network, a batch does not fit into the cache, and its padding costs computing time. A
small network is limited by the number of calls, which a batch reduces.
"""


class Model(Embedder):
    """An encoder in evaluation mode with its specification.

    Attributes:
        specification: metadata of the checkpoint.
        encoder: the torch module.
        device: device on which the model runs.
        singly: whether the waveforms of a batch are embedded one after another.
        extraction: how an utterance becomes an embedding; by default, as the specification says for
            its scores.
        precision: float32, or bfloat16 for faster products and convolutions with 8 bits of
            mantissa; front-end and pooling are computed in float32 or float64 in any case.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device = "cpu",
        extraction: Extraction | None = None,
        precision: Precision = "float32",
    ):
        self.specification = checkpoint.specification
        self.name = checkpoint.name
        self.head = checkpoint.head
        self.extraction = extraction or Extraction.of(self.specification.scoring)
        self.device = torch.device(device)
        self.precision = precision
        self.encoder = spawn_encoder(checkpoint).to(self.device).eval()
        self.singly = False
        if self.device.type == "cpu":
            prepare_for_inference(self.encoder)
            self.singly = parameters_of(self.encoder) >= SINGLY_FROM

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the encoder in the specification and of all its weights."""
        parts = [
            value.detach().cpu().numpy().tobytes() for value in self.encoder.state_dict().values()
        ]
        return digest_of_bytes(self.specification.encoder, *parts)

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.encoder.dimension

    def _samples(self, speech: Speech) -> np.ndarray:
        return super()._samples(speech.detach().cpu() if isinstance(speech, Tensor) else speech)

    def embed_whole(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths in one batch: float32 (files, dimension), equal to
        single calls.
        """
        if self.singly and len(waves) > 1:
            return np.concatenate([self.embed_whole([wave]) for wave in waves])
        padded, lengths = padded_batch(waves)
        mixed = lengths.min() < lengths.max()
        low = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), arithmetic(), low:
            batch = torch.from_numpy(padded).to(self.device)
            unequal = lengths_tensor(lengths.tolist(), self.device) if mixed else None
            return self.encoder(batch, unequal).float().cpu().numpy()

    def bona_fide_scores(self, vectors: np.ndarray) -> np.ndarray:
        """Compute countermeasure scores for embeddings (files, dimension): float (files,), higher
        for bona fide speech.

        The scores come from the spoof head if the model was trained with one, or from a layer of a
        countermeasure (AASIST). For any other model, they are the negated cosine with the direction
        of spoofed speech.

        Raises:
            SasvError: see spoof_direction.
        """
        head = self.spoof_head()
        if head is not None:
            return head.scores(vectors)
        layer = getattr(self.encoder, "scores", None)
        if layer is None:
            found: np.ndarray = -(unit(vectors) @ self.spoof_direction())
            return found
        with torch.inference_mode(), arithmetic():
            scores: np.ndarray = (
                layer(torch.from_numpy(vectors).to(self.device)).float().cpu().numpy()
            )
        return scores

    def check_countermeasure(self) -> None:
        """Check that ``bona_fide_scores`` can be computed. Raises SasvError with the reason if
        not.
        """
        if self.spoof_head() is None and not self.scores_whole_utterances:
            self.spoof_direction()

    @property
    def scores_whole_utterances(self) -> bool:
        """Whether ``bona_fide_scores`` needs raw embeddings of whole utterances, not the mean over
        crops, because a layer of the encoder computes the scores.
        """
        return self.spoof_head() is None and hasattr(self.encoder, "scores")

    def spoof_direction(self) -> np.ndarray:
        """Return the unit vector (dimension,) of spoofed speech, which is the weight of the spoof
        class in the loss head.

        Raises:
            SasvError: the model was trained without spoofed speech, or its head is not in the
                checkpoint.
        """
        weight = self._loss.class_directions(self.head)
        index = self.specification.spoof_index
        if (
            index is None
            or weight is None
            or weight.shape[1:] != (self.dimension,)
            or index >= len(weight)
        ):
            raise SasvError(
                f"{self.name}: the model was trained without spoofed speech; only training with it "
                "(Stages 2 and 3) makes a countermeasure"
            )
        return unit(weight[index].float().numpy())

    def spoof_head(self) -> SpoofHead | None:
        """Return the spoof head that was trained with the speaker loss, or None if there is
        none.
        """
        found = self._loss.countermeasure(self.head)
        if found is None or found[0].shape != (self.dimension,):
            return None
        return SpoofHead(found[0].numpy(), found[1])

    def trial_classes(self) -> TrialClasses | None:
        """Return the three classes of trials of a model that was trained with the three-class loss,
        or None for another model.
        """
        find = getattr(self._loss, "trial_classifier", None)
        found = None if find is None else find(self.head)
        if found is None or self.spoof_head() is None:
            return None
        weight, bias = found
        return TrialClasses(weight.float().numpy(), bias.float().numpy())

    @property
    def _loss(self) -> type[Loss]:
        """Class of the loss with which the model was trained."""
        loss: type[Loss] = LOSSES.get(self.specification.loss) if self.specification.loss else Loss
        return loss

    def three_class(self) -> ThreeClass | None:
        """Return the classes by which a model with the three-class loss decides, or None for
        another model.
        """
        head = self.spoof_head()
        classes = self.trial_classes()
        return None if head is None or classes is None else ThreeClass(head, classes)


def load_model(
    path: str | os.PathLike[str],
    device: str | torch.device = "auto",
    extraction: Extraction | None = None,
    precision: Precision = "float32",
) -> Model:
    """Load a checkpoint (of sasv, or a published ``.model``) for inference.

    Args:
        path: checkpoint file.
        device: "cpu", "cuda", ..., or "auto" for a GPU if there is one.
        extraction: how utterances become embeddings; by default, as the specification says for its
            scores (usually whole utterances).
        precision: float32, or bfloat16, which is faster on devices with instructions for it and
            changes most scores by about 0.001.

    Raises:
        CheckpointError: see load_checkpoint.
    """
    picked = pick_device(device)
    if precision == "bfloat16" and not computes_bfloat16(picked):
        logger.warning(
            f"precision bfloat16: this {picked.type} has no instructions for bfloat16, so that "
            "float32, the default, would be faster"
        )
    return Model(load_checkpoint(path), picked, extraction, precision)

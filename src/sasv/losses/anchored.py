"""The anchored loss, which teaches an encoder to recognise copies without forgetting the speakers
(not published).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from sasv.core.options import NonNegativeFloat, PositiveFloat, Range
from sasv.losses.base import UTTERANCES, Loss, LossOutput, mean_where, precise

Cosine = Annotated[float, Range(-1, 1)]
"""A cosine."""


@dataclass(frozen=True, kw_only=True)
class AnchoredOptions:
    """Options of the anchored loss.

    Attributes:
        crop_weight: weight of keeping the embedding of a bona fide crop near that of the anchor for
            the same crop.
        voiceprint_weight: weight of keeping it near the anchor's voiceprint of its speaker.
        spoof_voiceprint_weight: weight of keeping spoofed speech away from the anchor's voiceprint
            of the speaker that it imitates.
        spoof_crop_weight: weight of keeping it away from the embedding of the anchor for the same
            crop.
        spoof_margin: cosine below which spoofed speech is far enough away, so that its loss
            vanishes.
        slope: sharpness of the margin: softplus(slope * (cosine - spoof_margin)) / slope, which
            approaches a hinge as the slope grows.
    """

    crop_weight: NonNegativeFloat = 1.0
    voiceprint_weight: NonNegativeFloat = 0.5
    spoof_voiceprint_weight: NonNegativeFloat = 0.5
    spoof_crop_weight: NonNegativeFloat = 0.5
    spoof_margin: Cosine = 0.1
    slope: PositiveFloat = 10.0


class Anchored(Loss):
    """Keeps the embeddings of bona fide speech near those of a frozen copy of the encoder, and
    moves those of spoofed speech away.

    The frozen copy, the anchor, has the weights from which the training started. Speakers are not
    classified, so speaker labels are not needed; every utterance, together with its copies, may be
    treated as a separate speaker.
    """

    Options = AnchoredOptions
    spoof_aware = True
    anchored = True

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """Compute the loss.

        Args:
            embeddings: (items, 5, dimension): embeddings of two utterances by the encoder, of the
                same two by the anchor, and the anchor's voiceprint of the speaker, or zeros if it
                is unknown.
            labels: (items,) class of each item.
        """
        options = self.options
        unit = F.normalize(precise(embeddings), dim=-1)
        own = unit[:, :UTTERANCES]
        voiceprints = unit[:, 2 * UTTERANCES :]
        to_crop = (own * unit[:, UTTERANCES : 2 * UTTERANCES]).sum(dim=-1)
        to_voiceprint = (own * voiceprints).sum(dim=-1)
        spoofed = (labels == self.classes - 1)[:, None].expand_as(to_crop)
        known = voiceprints.any(dim=-1).expand_as(to_crop)
        value = (
            options.crop_weight * mean_where(1 - to_crop, ~spoofed)
            + options.voiceprint_weight * mean_where(1 - to_voiceprint, ~spoofed & known)
            + options.spoof_crop_weight * mean_where(self.pressure(to_crop), spoofed)
            + options.spoof_voiceprint_weight
            * mean_where(self.pressure(to_voiceprint), spoofed & known)
        )
        with torch.no_grad():
            nearness = torch.where(known, to_voiceprint, to_crop)
            right = (nearness < (1 + options.spoof_margin) / 2) == spoofed
            accuracy = 100.0 * right.float().mean()
            anchor_cosine = mean_where(to_crop, ~spoofed)
        return LossOutput(value, accuracy, anchor_cosine)

    def pressure(self, cosines: Tensor) -> Tensor:
        """Return the loss of spoofed speech for cosines of any shape, about 0 below the margin."""
        slope = self.options.slope
        return F.softplus(slope * (cosines - self.options.spoof_margin)) / slope

"""What a run is made of: its classes, its encoder and its loss head."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sasv.checkpoints import load_checkpoint, restore_head, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS
from sasv.encoders.base import Encoder
from sasv.losses import LOSSES
from sasv.losses.base import Loss, LossOutput
from sasv.parallel.processes import Processes, total_with_gradient
from sasv.tables import Utterances
from sasv.training.options import TrainOptions

SPOOF_CLASS = "spoof"


LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class System(nn.Module):
    """Encoder and loss head as one module.

    Args:
        encoder: waveforms to embeddings.
        head: embeddings and classes to the loss.
        precision: float32, or what autocast computes in.
        gather: whether the loss is that of the items of all processes.
        processes: those.
    """

    def __init__(self, encoder: Encoder, head: Loss, precision: str, gather: bool, processes: Processes):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.low, self.gather, self.processes = LOW_PRECISION.get(precision), gather, processes

    def forward(self, waves: Tensor, labels: Tensor, wanted: int) -> LossOutput:
        """Return the loss of (items, 2, samples); ``wanted`` is how many items a batch has whose files all exist."""
        items = waves.shape[0]
        with torch.autocast(waves.device.type, self.low, enabled=self.low is not None):
            embeddings = self.encoder(flat_pairs(waves)).reshape(2, items, -1).transpose(0, 1).float()
        if self.gather:
            embeddings, labels = self.gathered(embeddings, labels, wanted)
        return self.head(embeddings, labels)

    def gathered(self, embeddings: Tensor, labels: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        """Return the items of all processes; gradients flow back to each."""
        room = self.processes.world * wanted
        rows = torch.arange(len(labels), device=labels.device) + self.processes.rank * wanted
        everything = embeddings.new_zeros(room, *embeddings.shape[1:]).index_copy(0, rows, embeddings)
        classes = labels.new_zeros(room).index_copy(0, rows, labels + 1)
        found = self.processes.total(classes) - 1
        return total_with_gradient(everything)[found >= 0], found[found >= 0]


def flat_pairs(waves: Tensor) -> Tensor:
    """Return (items, 2, samples) as (2 * items, samples): first all utterances 0, then all utterances 1."""
    return waves.transpose(0, 1).reshape(2 * len(waves), -1)


def class_list(utterances: Utterances) -> tuple[list[str], np.ndarray]:
    """Return (speakers with bona fide speech sorted, the spoof class last where there is any; class of each row).

    A spoofed row belongs to the spoof class whoever is imitated; its entry here is the number of its speaker among
    all speakers of the table, by which spoofed pairs are grouped.
    """
    codes, names = utterances.speakers
    order = np.argsort(np.array(names))
    rank = np.empty(len(names), np.int64)
    bona_fide = np.zeros(len(names), bool)
    bona_fide[codes[~utterances.spoofed]] = True
    # Speakers with bona fide speech come first, so that their numbers are classes.
    order = np.concatenate((order[bona_fide[order]], order[~bona_fide[order]]))
    rank[order] = np.arange(len(names))
    classes = [names[index] for index in order if bona_fide[index]]
    if utterances.spoofed.any():
        classes.append(SPOOF_CLASS)
    return classes, rank[codes]


def make_modules(options: TrainOptions, classes: Sequence[str]) -> tuple[Encoder, Loss, list[str]]:
    """Make encoder and loss head, from a checkpoint where one is named; return notes of what was kept and dropped."""
    kind: type[Encoder] = ENCODERS.get(options.encoder)
    notes: list[str] = []
    if options.init:
        checkpoint = load_checkpoint(options.init)
        if checkpoint.specification.encoder != options.encoder:
            raise SasvError(
                f"{options.init}: a {checkpoint.specification.encoder}, not the wanted {options.encoder}; "
                f"set --encoder {checkpoint.specification.encoder}"
            )
        wanted = kind.parse_sizes(options.sizes or checkpoint.specification.encoder_options)
        encoder = spawn_encoder(checkpoint)
        if encoder.sizes != wanted:
            raise SasvError(f"{options.init}: sizes {encoder.sizes} differ from the wanted {wanted}; leave out --sizes")
        notes.append(f"kept all {len(checkpoint.encoder)} encoder entries of {options.init}")
    else:
        encoder = kind(kind.parse_sizes(options.sizes))
    head: Loss = LOSSES.get(options.loss)(encoder.sizes.embedding, len(classes), options.margin, options.scale)
    if options.init:
        notes += restore_head(head, checkpoint, classes if options.keep_classes else ())
    return encoder, head, notes


def set_margin(head: Loss, margin: float) -> None:
    """Set the margin of a loss and of the losses inside it."""
    for part in head.modules():
        if isinstance(part, Loss):
            part.margin = margin


def detached(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the entries of a module on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}

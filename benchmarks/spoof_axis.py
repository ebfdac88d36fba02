"""CAM++ with a spoof axis: spoof_axis.py TABLE OUT.safetensors [--init NAME] [--crops 576].

The encoder is left as it is. A linear spoof head is fitted to its embeddings of crops of 2 s of
the training utterances in TABLE, bona fide and spoofed, and becomes a dimension of the embedding.
"""

import argparse

import numpy as np
import torch

from sasv.audio import read_audio
from sasv.calibration import fit_spoof_head
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sasv.embeddings.model import Model
from sasv.scores import SpoofHead
from sasv.tables import load_utterances

SAMPLES = 200 * 160 + 240
SLOPE = 0.3
OFFSET = 0.5
"""The axis is SLOPE * max(0, OFFSET - score of the head): chosen on development trials."""


def with_axis(checkpoint: Checkpoint, head: SpoofHead) -> Checkpoint:
    """Return a CAM++ with this head as its spoof axis; its cm_score is the axis, negated."""
    size = len(head.weight)
    weight = torch.from_numpy(-SLOPE * head.weight).float()
    checkpoint.encoder["spoof_axis.weight"] = weight
    checkpoint.encoder["spoof_axis.bias"] = torch.tensor(SLOPE * (OFFSET - head.bias))
    last = torch.zeros(size + 1)
    last[-1] = -1.0
    checkpoint.head = {"spoof_head.weight": last, "spoof_head.bias": torch.zeros(())}
    checkpoint.specification.encoder_options["spoof_axis"] = True
    checkpoint.specification.decision = None
    checkpoint.specification.licence = "Apache-2.0"
    return checkpoint


def main() -> None:
    """Embed the crops, fit the head, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("out")
    parser.add_argument("--init", default="campplus-zh-en")
    parser.add_argument("--crops", type=int, default=576)
    options = parser.parse_args()
    utterances = load_utterances(options.table, "split=train")
    rows = np.random.default_rng(5).permutation(len(utterances))[: options.crops]
    model = Model(load_checkpoint(options.init))
    vectors = []
    for row in rows:
        place = np.random.default_rng([int(row), 0]).random()
        wave = read_audio(utterances.path(row), samples=SAMPLES, place=place)
        vectors.append(model.embed_many([wave])[0])
    head = fit_spoof_head(np.stack(vectors), utterances.spoofed[rows])
    checkpoint = with_axis(load_checkpoint(options.init), head)
    checkpoint.specification.training["spoof_axis"] = (
        f"fitted to {len(rows)} crops of 2 s, {int(utterances.spoofed[rows].sum())} of them spoofed"
    )
    save_checkpoint(options.out, checkpoint)


if __name__ == "__main__":
    main()

"""Batched against one-by-one embedding of 24 utterances of 2 to 12 seconds (the same vectors either
way).
"""

from collections.abc import Sequence

import numpy as np
import torch

from common import header, is_quick, measure, row
from sasv.checkpoints import Checkpoint, Specification
from sasv.core.memory import keep_memory
from sasv.embeddings.extract import plan_batches
from sasv.embeddings.model import Model
from sasv.encoders import make_encoder

CASES = [
    ("ecapa-tdnn", {"channels": 128, "pooled": 256, "attention": 64, "bottleneck": 64}),
    ("ecapa-tdnn", {}),
    ("mfa-conformer", {}),
]


def main(words: Sequence[str] | None = None) -> None:
    quick = is_quick(words, __doc__)
    keep_memory()
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.3, 0.6, 3) if quick else rng.uniform(2, 12, 24)
    waves = [
        rng.standard_normal(int(16000 * length)).astype(np.float32) * 0.1 for length in seconds
    ]
    for name, sizes in CASES[:1] if quick else CASES:
        encoder = make_encoder(name, sizes)
        model = Model(Checkpoint(Specification(name, sizes), encoder.state_dict()))
        total = sum(seconds)
        header(
            f"embedding, {name} {sizes or 'published size'}, {total:.0f} s of audio, "
            f"{torch.get_num_threads()} threads"
        )
        single = measure(lambda model=model: [model.embed(wave) for wave in waves], 3)
        row("one by one (baseline)", single, note=f"{total / single:.0f} x real time")
        for budget in (15, 30, 60):
            batches = plan_batches(seconds, budget)
            took = measure(
                lambda model=model, batches=batches: [
                    model.embed_many([waves[i] for i in b]) for b in batches
                ],
                3,
            )
            row(f"batches of {budget} s", took, single, f"{total / took:.0f} x real time")


if __name__ == "__main__":
    main()

"""Makes the directions in which codecs and noise change the embeddings of a CAM++ count less:
whiten.py TABLE OUT.safetensors --noises FOLDER --init MODEL [--where ROWS].

A crop of 3 s of each bona fide utterance in TABLE passes through every codec, with and without
noise, and with noise alone. The last linear layer then divides each direction of the embedding by
how much these conditions change it (see last_layer). The spoof axis stays as it is; a calibration
has to be made anew and is removed.
"""

import numpy as np
import torch

from last_layer import whitened
from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.batches.augment import Augmenter
from sasv.checkpoints import load_checkpoint, save_checkpoint, spawn_encoder
from sasv.encoders.campplus import Campplus
from sasv.tables import load_utterances
from spoof_axis import CODECS, NOISE_SHARE, training_parser

SAMPLES = 300 * 160 + 240
"""Of a crop of 3 s; 300 frames."""


def conditioned(path: str, number: int, noise: Augmenter) -> np.ndarray:
    """Return a crop of the utterance with this number, and the same with noise and through each
    codec, (crops, samples).
    """
    rng = np.random.default_rng([number, 41])
    clean = np.resize(read_audio(path, samples=SAMPLES, place=rng.random()), SAMPLES)
    crops = [clean, noise(clean, rng)]
    for codec in CODECS:
        given = noise(clean, rng) if rng.random() < NOISE_SHARE else clean
        crops.append(transmit(given.astype(np.float32), codec, rng))
    return np.stack([np.resize(crop, SAMPLES) for crop in crops]).astype(np.float32)


@torch.inference_mode()
def last_inputs(encoder: Campplus, crops: np.ndarray) -> np.ndarray:
    """Return what the last linear layer is fed for crops, (crops, inputs)."""
    features, _ = encoder.features(torch.from_numpy(crops))
    x, _ = encoder.above_but_last(*encoder.below(features, None))
    return encoder.last_statistics(x, None).numpy()


def main() -> None:
    """Make the crops, change the last layer, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--init", required=True)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.init)
    encoder = spawn_encoder(checkpoint).eval()
    assert isinstance(encoder, Campplus)
    table = load_utterances(options.table, options.where)
    noise = Augmenter(options.noises, "", snr_offset=10.0, level_range=10.0)
    inputs: list[np.ndarray] = []
    before: list[int] = []
    for row in range(len(table)):
        crops = conditioned(table.path(row), row, noise)
        before += [len(before)] * len(crops)
        inputs.append(last_inputs(encoder, crops))
        if row % 50 == 49:
            print(f"crops of {row + 1}/{len(table)} utterances", flush=True)
    checkpoint.encoder |= whitened(encoder, np.concatenate(inputs), np.array(before))
    checkpoint.specification.decision = None
    checkpoint.specification.training["whitened"] = (
        f"by what codecs and noise change, {len(before) - len(table)} crops of 3 s of "
        f"{len(table)} utterances"
    )
    save_checkpoint(options.out, checkpoint)


if __name__ == "__main__":
    main()

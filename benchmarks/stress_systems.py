"""Speaker encoders of other toolkits as functions of one recording, float32 samples at 16 kHz, for
``sasv stress``: ``pip install Resemblyzer speechbrain``.
"""

import importlib.machinery
import importlib.util
import sys
import types
from functools import cache

import torch

torch.set_num_threads(1)


@cache
def _resemblyzer():
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def resemblyzer(wave):
    """Return the embedding of Resemblyzer, with its own preprocessing."""
    from resemblyzer import preprocess_wav

    heard = preprocess_wav(wave)
    return _resemblyzer().embed_utterance(heard if len(heard) else wave)


@cache
def _ecapa():
    if importlib.util.find_spec("torchaudio") is None:  # imported, but not used here
        stand_in = types.ModuleType("torchaudio")
        stand_in.__version__ = "2.11.0"
        stand_in.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = stand_in
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    torch.manual_seed(0)
    model = ECAPA_TDNN(
        80,
        channels=[512, 512, 512, 512, 1536],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=128,
        lin_neurons=192,
    )
    return Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False), model.eval()


@torch.inference_mode()
def ecapa(wave):
    """Return the embedding of SpeechBrain's ECAPA-TDNN (512 channels) with random weights."""
    features, normalise, model = _ecapa()
    heard = torch.from_numpy(wave)[None]
    return model(normalise(features(heard), torch.ones(1)))[0, 0]

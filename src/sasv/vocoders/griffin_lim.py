"""Griffin-Lim (1984; fast variant of Perraudin et al. 2013): keeps the magnitudes of the
spectrogram and estimates new phases.
"""

import numpy as np
import torch

from sasv.vocoders.base import Vocoder

N_FFT = 1024
HOP = 256
ROUNDS = 32
MOMENTUM = 0.99


class GriffinLim(Vocoder):
    """Griffin-Lim with 32 iterations from random phases; needs no weights."""

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        signal = torch.from_numpy(np.ascontiguousarray(wave))
        window = torch.hann_window(N_FFT)
        short = max(0, N_FFT - len(signal))  # reflection needs more samples than half a window
        signal = torch.nn.functional.pad(signal, (0, short))

        def analyse(x: torch.Tensor) -> torch.Tensor:
            return torch.stft(x, N_FFT, HOP, window=window, return_complex=True)

        magnitude = analyse(signal).abs()
        generator = torch.Generator().manual_seed(seed)
        angles = torch.exp(2j * torch.pi * torch.rand(magnitude.shape, generator=generator))
        previous = torch.zeros_like(angles)
        for _ in range(ROUNDS):
            copy = torch.istft(magnitude * angles, N_FFT, HOP, window=window, length=len(signal))
            rebuilt = analyse(copy)
            angles = rebuilt - previous * (MOMENTUM / (1 + MOMENTUM))
            angles = angles / angles.abs().clamp(min=1e-9)
            previous = rebuilt
        return torch.istft(
            magnitude * angles, N_FFT, HOP, window=window, length=len(signal)
        ).numpy()

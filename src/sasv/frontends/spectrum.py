"""The power spectrum of frames in single precision, without complex numbers when a model is
exported.
"""

import math

import torch
from torch import Tensor, nn


def fourier_basis(length: int, n_fft: int) -> Tensor:
    """Return the cosines, then the sines, of each frequency over a frame: (length, 2 * (n_fft // 2
    + 1)).
    """
    # The product of sample and frequency is reduced as an integer, so that its cosine is exact to
    # single precision.
    turns = torch.outer(torch.arange(length), torch.arange(n_fft // 2 + 1)) % n_fft
    angles = turns * (2 * math.pi / n_fft)
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=1)


class PowerSpectrum(nn.Module):
    """Computes the power spectrum (batch, frames, n_fft // 2 + 1) of frames (batch, frames,
    length).

    It uses a fast Fourier transform or, while the module is exported or compiled, a product with
    cosines and sines, because few runtimes support complex tensors.

    Args:
        length: samples per frame.
        n_fft: length of the transform; shorter frames are extended by zeros.
    """

    basis: Tensor

    def __init__(self, length: int, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("basis", fourier_basis(length, n_fft), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return torch.matmul(frames, self.basis).square().unflatten(-1, (2, -1)).sum(dim=-2)
        spectrum = torch.fft.rfft(frames, self.n_fft)
        return spectrum.real.square() + spectrum.imag.square()

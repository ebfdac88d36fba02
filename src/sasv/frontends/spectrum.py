"""The power spectrum of frames, without complex numbers when a model is exported."""

import math

import torch
from torch import Tensor, nn


def fourier_basis(length: int, n_fft: int) -> Tensor:
    """Return the cosines and the sines of each frequency over the second half of a frame, in double
    precision: (2, (length + 1) // 2, n_fft // 2 + 1).

    Time is counted from the middle of the frame. If there is a sample in the middle, its cosines
    are halved, because it belongs to both halves.
    """
    # Twice the time and the number of the frequency are integers, so that their product is reduced
    # without rounding.
    twice = torch.arange((length + 1) % 2, length, 2)
    turns = torch.outer(twice, torch.arange(n_fft // 2 + 1)) % (2 * n_fft)
    angles = turns.double() * (math.pi / n_fft)
    basis = torch.stack((torch.cos(angles), torch.sin(angles)))
    if length % 2:
        basis[0, 0] /= 2
    return basis


class PowerSpectrum(nn.Module):
    """Computes the power spectrum (batch, frames, n_fft // 2 + 1) of frames (batch, frames,
    length).

    It uses a fast Fourier transform or, while the module is exported or compiled, products with
    cosines and sines, because few runtimes support complex tensors. The two halves of a frame are
    added for the cosines and subtracted for the sines, which needs half as many multiplications.

    Where a spectrum is almost empty, such as above 4 kHz for telephone speech, the rounding of its
    loudest frequencies is not small, and the logarithm that follows makes it visible. Frames in
    double precision have the same spectrum by both methods (see ``Frontend.precise``).

    Args:
        length: samples per frame.
        n_fft: length of the transform; shorter frames are extended by zeros.
    """

    basis: Tensor
    remainder: Tensor

    def __init__(self, length: int, n_fft: int) -> None:
        super().__init__()
        self.length = length
        self.n_fft = n_fft
        # Not one buffer in double precision, which some devices do not have.
        exact = fourier_basis(length, n_fft)
        self.register_buffer("basis", exact.float(), persistent=False)
        self.register_buffer("remainder", (exact - exact.float()).float(), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self._by_products(frames)
        spectrum = torch.fft.rfft(frames, self.n_fft)
        return spectrum.real.square() + spectrum.imag.square()

    def _by_products(self, frames: Tensor) -> Tensor:
        basis = self.basis
        if frames.dtype == torch.float64:
            basis = basis.double() + self.remainder.double()
        size = basis.shape[1]
        early = frames[..., :size].flip(-1)
        late = frames[..., self.length - size :]
        cosine = torch.matmul(late + early, basis[0])
        sine = torch.matmul(late - early, basis[1])
        return cosine.square() + sine.square()

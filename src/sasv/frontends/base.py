"""The base class of front-ends."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from sasv.core.options import values_of

Samples = TypeVar("Samples", int, Tensor)


@dataclass(frozen=True)
class FrontendOptions:
    """Base class of the options of a front-end. Option types are JSON types. The defaults are part
    of the definition of a front-end and never change.
    """


class Frontend(nn.Module):
    """Computes features from waveforms.

    A subclass sets the attributes, implements ``frames`` and ``forward``, and lists its options in
    ``Options``. Tensors that can be computed from the options are buffers with
    ``persistent=False``, so that checkpoints do not store them.

    Attributes:
        name: registry name.
        options: the options of this front-end.
        sample_rate: sample rate of the input in Hz.
        feature_size: number of features (bands) per frame.
        min_samples: length of the shortest input in samples.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]] = FrontendOptions
    sample_rate: int
    feature_size: int
    min_samples: int

    def __init__(self, options: Any = None) -> None:
        super().__init__()
        self.options = self.Options() if options is None else options

    def frames(self, samples: Samples) -> Samples:
        """Return the number of frames of a waveform.

        Args:
            samples: number of samples: one integer, or an integer tensor (batch,).

        Returns:
            An integer or an integer tensor of the same shape.
        """
        raise NotImplementedError

    def samples_of(self, frames: int) -> int:
        """Return the number of samples of the shortest waveform that it takes and that has so many
        frames.
        """
        short = self.min_samples
        if self.frames(short) >= frames:
            return short
        enough = 2 * short
        while self.frames(enough) < frames:
            enough *= 2
        while enough - short > 1:
            middle = (short + enough) // 2
            if self.frames(middle) < frames:
                short = middle
            else:
                enough = middle
        return enough

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute features.

        Args:
            waves: (batch, samples) in [-1, 1], padded at the end if the lengths differ.
            lengths: number of samples of each waveform, integers (batch,); None if no row is
                padded.

        Returns:
            (batch, feature_size, frames). The features of each waveform equal those of the waveform
            on its own, and are 0 past its end.
        """
        raise NotImplementedError

    def precise(self, waves: Tensor) -> Tensor:
        """Return waveforms in the precision in which features are computed.

        In evaluation mode it is double, so that PyTorch and ONNX Runtime, a CPU and a GPU give the
        same features of any speech. It is single in training, which has to be fast, and on a device
        without double precision.
        """
        single = self.training or waves.device.type == "mps"
        return waves.to(torch.float32 if single else torch.float64)

    def option_values(self) -> dict[str, Any]:
        """Return the options as JSON values, from which ``make_frontend`` makes an equal
        front-end.
        """
        return values_of(self.options)

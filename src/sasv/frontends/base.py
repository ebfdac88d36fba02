"""The base class of front-ends."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from sasv.core.options import values_of

Samples = TypeVar("Samples", int, Tensor)


@dataclass(frozen=True)
class FrontendOptions:
    """Options of a front-end, of any JSON types; the default of each is part of the definition."""


class Frontend(nn.Module):
    """Waveforms to features.

    A subclass sets the attributes, implements ``frames`` and ``forward``, and lists its options in
    ``Options``. Tensors that can be computed from the options are buffers with
    ``persistent=False``, so that a checkpoint need not hold them.

    Attributes:
        name: registry name.
        options: what this front-end was made with.
        sample_rate: samples per second of the audio that it takes.
        feature_size: features (bands) of a frame.
        min_samples: samples of the shortest waveform that it takes.
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
        """Return the number of frames for a number of waveform samples: an integer, or integers
        (batch,).
        """
        raise NotImplementedError

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute features.

        Args:
            waves: (batch, samples) in [-1, 1], padded at the end if the waveforms are unequal in
                length.
            lengths: samples of each waveform, integers (batch,); None where all rows are full.

        Returns:
            (batch, feature_size, frames), the features of each waveform equal to those of the
            waveform alone, and 0 past its end.
        """
        raise NotImplementedError

    def option_values(self) -> dict[str, Any]:
        """Return the options as a mapping from which ``make_frontend`` makes the same front-end."""
        return values_of(self.options)

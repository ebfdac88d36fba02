"""What every encoder is: a front-end, a network, and sizes that can be read back from its entries."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sasv.core.errors import SasvError
from sasv.frontends.logmel import LogMel, frames_of, spec_augment
from sasv.frontends.masks import frame_mask


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes common to all encoders."""

    mels: int = 80
    embedding: int = 192


class Encoder(nn.Module):
    """Waveforms to embeddings. A family gives ``Sizes``, ``network`` and ``sizes_of``.

    Attributes:
        sizes: the sizes this encoder was made with.
        augment: whether SpecAugment is applied in training mode.
        min_samples: shortest waveform that gives an embedding (0.1 s).
    """

    Sizes: ClassVar[type[Any]] = EncoderSizes
    min_samples: ClassVar[int] = 1600

    def __init__(self, sizes: Any = None) -> None:
        super().__init__()
        self.sizes = sizes or self.Sizes()
        self.augment = True

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms.

        Args:
            waves: (batch, samples) in [-1, 1] at 16 kHz, padded at the end where files are unequal.
            lengths: samples of each file, (batch,) integers; None where all rows are full.

        Returns:
            (batch, embedding) raw embeddings, each equal to that of the file alone.
        """
        if lengths is not None and bool((lengths == waves.shape[1]).all()):
            lengths = None
        features = self.torchfbank(waves, lengths)
        if self.training and self.augment:
            features = spec_augment(features)
        frames = None if lengths is None else frames_of(lengths)
        mask = None if frames is None else frame_mask(frames, features.shape[2], features.dtype)
        return self.network(features, mask, frames)

    def network(self, features: Tensor, mask: Tensor | None, frames: Tensor | None) -> Tensor:
        """Turn (batch, mels, frames) into (batch, embedding)."""
        raise NotImplementedError

    @classmethod
    def recognises(cls, names: Collection[str]) -> bool:
        """Whether state-dict entries with these names are of this family."""
        raise NotImplementedError

    @classmethod
    def sizes_of(cls, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """Read the sizes back from the shapes of the state-dict entries."""
        raise NotImplementedError

    def add_frontend(self) -> None:
        """Make the front-end, under its published name."""
        self.torchfbank = LogMel(self.sizes.mels)

    @classmethod
    def parse_sizes(cls, values: Mapping[str, Any]) -> Any:
        """Make sizes from a mapping. SasvError names an unknown size or a wrong value."""
        known = {field.name: field for field in fields(cls.Sizes)}
        for name, value in values.items():
            if name not in known:
                raise SasvError(f"unknown size '{name}' of {cls.__name__}; known: {', '.join(known)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SasvError(f"size {name} of {cls.__name__} must be a positive whole number, not {value!r}")
        return cls.Sizes(**values)

    def size_values(self) -> dict[str, int]:
        """Return the sizes as a mapping that ``parse_sizes`` takes."""
        return asdict(self.sizes)


def parameters_of(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def lengths_tensor(lengths: list[int], device: torch.device | str = "cpu") -> Tensor:
    """Make the ``lengths`` argument of an encoder."""
    return torch.tensor(lengths, dtype=torch.long, device=device)

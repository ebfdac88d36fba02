"""The base class of encoders: a front-end, a backbone, pooling over time, and a head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sasv.core.options import values_of
from sasv.frontends.base import Frontend
from sasv.frontends.masks import frame_mask


@dataclass(frozen=True)
class EncoderOptions:
    """Options common to all encoders.

    Attributes:
        embedding: dimension of the embeddings.
    """

    embedding: int = 192


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate: ``lr_scale`` times that of the schedule; with 0 they
    are frozen.
    """

    name: str
    parameters: list[nn.Parameter]
    lr_scale: float = 1.0


class Encoder(nn.Module):
    """Waveforms to embeddings.

    A subclass is one file and one line in ``sasv.encoders``. It lists its options, makes its layers
    in ``__init__`` from ``self.options`` and ``frontend.feature_size``, and implements ``network``.
    ``sasv.encoders.make_encoder`` makes an encoder with its front-end from names and plain values.

    Attributes:
        name: registry name.
        Options: frozen dataclass of the options, of any JSON types (see
            ``sasv.core.part_options``).
        presets: options by name. "published" is that of the publication, "tiny" trains on two CPU
            cores, and "test" takes well under a second a step; all three must be there.
        default_frontend: registry name of the front-end of the publication.
        default_frontend_options: its options, if they are not its defaults.
        frontend_attribute: name of the front-end among the parts of the module, and so in the state
            dict.
        options: what this encoder was made with.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]] = EncoderOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    default_frontend: ClassVar[str] = "log-mel"
    default_frontend_options: ClassVar[Mapping[str, Any]] = {}
    frontend_attribute: ClassVar[str] = "frontend"

    def __init__(self, options: Any, frontend: Frontend) -> None:
        super().__init__()
        self.options = options
        setattr(self, self.frontend_attribute, frontend)

    @property
    def frontend(self) -> Frontend:
        """The front-end."""
        part = self._modules[self.frontend_attribute]
        assert isinstance(part, Frontend)
        return part

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return int(self.options.embedding)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform that gives an embedding."""
        return self.frontend.min_samples

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms.

        Nothing here depends on the values of its inputs, so that ``torch.export`` can trace it and
        no GPU waits.

        Args:
            waves: (batch, samples) in [-1, 1] at ``frontend.sample_rate``, padded at the end if
                the waveforms are unequal in length; what stands in the padding does not matter.
            lengths: samples of each waveform, integers (batch,); None where all rows are full,
                which is faster.

        Returns:
            (batch, dimension) embeddings, not normalised, each equal to that of the waveform alone.
        """
        return self.embed_features(*self.features(waves, lengths))

    def features(
        self, waves: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features (batch, feature_size, frames), and the frames of each waveform (None:
        all are real).
        """
        frontend = self.frontend
        return frontend(waves, lengths), None if lengths is None else frontend.frames(lengths)

    def embed_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Embed what ``features`` returned: (batch, feature_size, frames) to (batch, dimension)."""
        return self.network(
            features, None if frames is None else frame_mask(frames, features.shape[2])
        )

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Turn (batch, feature_size, frames) into (batch, dimension); ``mask`` is that of
        sasv.frontends.masks.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters by learning rate: here one group of all.

        An encoder overrides this where a part of it, such as a pretrained backbone, is frozen or
        learns more slowly. Every parameter belongs to one group.
        """
        return [ParameterGroup("encoder", list(self.parameters()))]

    @classmethod
    def retrained(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the wanted options that may differ from those of a checkpoint that a training
        starts from: here none. They say how an encoder is trained, and change none of its entries.

        Args:
            saved: options of the checkpoint.
            wanted: options of the training.
        """
        return {}

    def option_values(self) -> dict[str, Any]:
        """Return the options as a mapping of JSON values."""
        return values_of(self.options)

    def description(self) -> dict[str, Any]:
        """Return the part of a model's specification that says how to make this encoder again."""
        frontend = self.frontend
        return {
            "encoder": self.name,
            "encoder_options": self.option_values(),
            "frontend": frontend.name,
            "frontend_options": frontend.option_values(),
            "sample_rate": frontend.sample_rate,
            "min_samples": self.min_samples,
        }


def parameters_of(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def lengths_tensor(lengths: list[int], device: torch.device | str = "cpu") -> Tensor:
    """Make the ``lengths`` argument of an encoder."""
    return torch.tensor(lengths, dtype=torch.long, device=device)

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
    """Parameters with the same learning rate: ``lr_scale`` times that of the schedule; 0 freezes
    them.
    """

    name: str
    parameters: list[nn.Parameter]
    lr_scale: float = 1.0


class Encoder(nn.Module):
    """Computes embeddings from waveforms.

    A subclass needs one file, and one line in ``sasv.encoders``. It lists its options, makes its
    layers in ``__init__`` from ``self.options`` and ``frontend.feature_size``, and implements
    ``network``. ``sasv.encoders.make_encoder`` makes an encoder and its front-end from names and
    JSON values.

    Attributes:
        name: registry name.
        Options: frozen dataclass of the options, which have JSON types (see
            ``sasv.core.part_options``).
        presets: options by preset name. All three of these are required: "published" has the
            options of the publication, "tiny" can be trained on two CPU cores, and "test" takes
            well under a second per training step.
        default_frontend: registry name of the front-end of the publication.
        default_frontend_options: options of that front-end, if they differ from its defaults.
        frontend_attribute: name of the front-end as a submodule, and so in the state-dict keys.
        min_frames: number of frames of the front-end that the network needs. Statistics over time
            need two.
        options: the options of this encoder.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]] = EncoderOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    default_frontend: ClassVar[str] = "log-mel"
    default_frontend_options: ClassVar[Mapping[str, Any]] = {}
    frontend_attribute: ClassVar[str] = "frontend"
    min_frames: ClassVar[int] = 2

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
        """Length in samples of the shortest waveform that can be embedded."""
        return self.frontend.samples_of(self.min_frames)

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed waveforms.

        No branch depends on the values of the inputs, so that ``torch.export`` can trace the method
        and a GPU does not have to synchronise.

        Args:
            waves: (batch, samples) in [-1, 1] at ``frontend.sample_rate``, padded at the end if
                the lengths differ; the values in the padding do not matter.
            lengths: number of samples of each waveform, integers (batch,); None if no row is
                padded, which is faster.

        Returns:
            Embeddings (batch, dimension), not length-normalised. Each one equals the embedding of
            the waveform on its own.
        """
        return self.embed_features(*self.features(waves, lengths))

    def features(
        self, waves: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the features.

        Args:
            waves: as in ``forward``.
            lengths: as in ``forward``.

        Returns:
            The features (batch, feature_size, frames), and the number of frames of each waveform,
            integers (batch,); None if no row is padded.
        """
        frontend = self.frontend
        return frontend(waves, lengths), None if lengths is None else frontend.frames(lengths)

    def embed_features(self, features: Tensor, frames: Tensor | None = None) -> Tensor:
        """Embed features, the result of ``features``: (batch, feature_size, frames) to (batch,
        dimension).
        """
        return self.network(
            features, None if frames is None else frame_mask(frames, features.shape[2])
        )

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        """Compute embeddings from features.

        Args:
            features: (batch, feature_size, frames).
            mask: (batch, 1, frames), True for real frames; None if no frame is padding (see
                sasv.frontends.masks).

        Returns:
            (batch, dimension).
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the parameters grouped by learning rate; by default, one group of all parameters.

        An encoder overrides this method if a part of it, such as a pretrained backbone, is frozen
        or has a lower learning rate. Every parameter belongs to exactly one group.
        """
        return [ParameterGroup("encoder", list(self.parameters()))]

    @classmethod
    def retrained(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the requested options that may differ from those of the checkpoint from which a
        training starts; by default none. Such options tell how an encoder is trained and do not
        change its state-dict entries.

        Args:
            saved: options of the checkpoint.
            wanted: options of the training.
        """
        return {}

    @classmethod
    def sized(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options that make an encoder of the same size without reading weights."""
        return dict(options)

    def option_values(self) -> dict[str, Any]:
        """Return the options as a mapping of JSON values."""
        return values_of(self.options)

    def description(self) -> dict[str, Any]:
        """Return the part of a model's specification from which this encoder can be made again."""
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
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def lengths_tensor(lengths: list[int], device: torch.device | str = "cpu") -> Tensor:
    """Return the ``lengths`` argument of an encoder, integers (batch,), for numbers of samples."""
    return torch.tensor(lengths, dtype=torch.long, device=device)

"""Base class of encoders with a self-supervised backbone from ``transformers``: loading, heads,
fine-tuning, and learning rates.

The backbone is loaded from a folder or a hub id whose files are on this machine, or is made from a
configuration. The configuration is an option, so that a checkpoint contains all that is needed to
make its encoder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import read_json
from sasv.core.options import Count, NonNegativeFloat, Range
from sasv.encoders.base import Encoder, EncoderOptions, ParameterGroup
from sasv.encoders.layer_heads import AdapterMfaHead, MhfaHead, StatisticsHead
from sasv.frontends.base import Frontend


@dataclass(frozen=True)
class BackboneOptions(EncoderOptions):
    """Options of an encoder on a self-supervised backbone.

    Attributes:
        backbone: folder or hub id of the pretrained backbone; empty for a backbone with random
            weights.
        config: configuration of the backbone in the format of ``transformers``; empty uses that of
            ``backbone``. If it is given, nothing is loaded from ``backbone``, because a checkpoint
            contains the weights.
        head: how the embedding is computed from the outputs of all layers: weighted layers and
            statistics pooling (``statistics``), multi-head factorised attention (``mhfa``), or
            adapters and attentive pooling (``adapter-mfa``).
        heads: number of heads of ``mhfa``.
        compression: width of keys and values of ``mhfa``.
        adapter: width of the adapters of ``adapter-mfa``.
        training: which part of the backbone is trained: none (``frozen``), its last layers
            (``partial``), low-rank adapters (``lora``), or all of it (``whole``).
        last_layers: number of layers that ``partial`` trains.
        lora_rank: rank of the adapters of ``lora``.
        lora_alpha: scale of the adapters of ``lora``.
        lr_scale: ratio of the learning rate of the backbone to that of the head.
        layer_decay: factor by which the learning rate decreases from each layer of the backbone to
            the layer below.
    """

    embedding: int = 192
    backbone: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    head: Literal["statistics", "mhfa", "adapter-mfa"] = "statistics"
    heads: int = 8
    compression: int = 128
    adapter: int = 128
    training: Literal["frozen", "partial", "lora", "whole"] = "whole"
    last_layers: Count = 4
    lora_rank: int = 8
    lora_alpha: int = 16
    lr_scale: NonNegativeFloat = 0.1
    layer_decay: Annotated[float, Range(maximum=1, above=0)] = 1.0


FINE_TUNING = ("training", "last_layers", "lr_scale", "layer_decay")
"""Options that determine what is trained at which learning rate, and that do not change the
state-dict entries.
"""


def transformers() -> Any:
    """Return the package ``transformers``.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        import transformers as package
    except ImportError as error:
        raise MissingExtra("transformers", "neural", "a self-supervised backbone") from error
    return package


class BackboneEncoder(Encoder):
    """Encoder with a self-supervised backbone. A subclass implements ``hidden_states`` and lists
    its model types.

    Attributes:
        model_types: ``model_type`` of the accepted configurations; the first is the default of a
            configuration that has none.
        layers_attribute: attribute path of the layers in the backbone, from the lowest.
        export_extra_row: whether an exported program runs the backbone with one additional
            waveform. The attention of ``transformers`` merges batch and frames, so that
            ``torch.export`` would otherwise refuse a batch of one.
    """

    Options = BackboneOptions
    options: BackboneOptions
    model_types: ClassVar[tuple[str, ...]]
    layers_attribute: ClassVar[str] = "encoder.layers"
    export_extra_row: ClassVar[bool] = True

    def __init__(self, options: BackboneOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        if options.backbone and not options.config:
            backbone = self._pretrained(options.backbone)
        else:
            backbone = self._made(options.config)
        backbone.config.layerdrop = 0.0  # the head needs the outputs of all layers
        self.options = replace(options, config=_plain(backbone.config))
        unused = getattr(backbone, "masked_spec_embed", None)
        if unused is not None:
            unused.requires_grad_(False)  # SpecAugment is part of the training
        if options.training == "lora":
            _add_lora(backbone, options, self.adapted_layers(backbone.config.model_type))
        self.backbone: Any = backbone
        layers = len(self.layers()) + 1
        units = int(backbone.config.hidden_size)
        size = options.embedding
        self.head: nn.Module
        if options.head == "statistics":
            self.head = StatisticsHead(layers, units, size)
        elif options.head == "mhfa":
            self.head = MhfaHead(layers, units, size, options.heads, options.compression)
        else:
            self.head = AdapterMfaHead(layers, units, size, options.adapter)

    def adapted_layers(self, model_type: str) -> tuple[str, ...]:
        """Return the names of the linear layers that ``lora`` adapts: the query and value
        projections.
        """
        return ("q_proj", "v_proj")

    @classmethod
    def retrained(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the requested options of the fine-tuning, since a later stage may train more of
        the backbone. ``lora`` cannot be switched on or off, because its adapters are state-dict
        entries.
        """
        changed = {name: value for name, value in wanted.items() if name in FINE_TUNING}
        if "lora" in (saved.get("training"), changed.get("training")):
            changed.pop("training", None)
        return changed

    def layers(self) -> Sequence[nn.Module]:
        """Return the layers of the backbone, from the lowest."""
        found: Any = self.backbone.get_submodule(self.layers_attribute)
        return list(found)

    def hidden_states(
        self, features: Tensor, mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the input of the first layer of the backbone, the outputs of all layers, and their
        mask.

        Args:
            features: (batch, feature_size, frames).
            mask: mask of the features.

        Returns:
            A list of tensors (batch, frames, units), one more than there are layers, and their mask
            (batch, 1, frames), or None if no frame is padding.
        """
        raise NotImplementedError

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        extra_row = self.export_extra_row and torch.compiler.is_exporting()
        if extra_row:
            features = torch.cat((features, features[:1]))
            mask = None if mask is None else torch.cat((mask, mask[:1]))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.options.training != "frozen"):
            hidden, mask = self.hidden_states(features, mask)
        if extra_row:
            hidden = [x[:-1] for x in hidden]
            mask = None if mask is None else mask[:-1]
        embedding: Tensor = self.head(hidden, mask)
        return embedding

    def train(self, mode: bool = True) -> "BackboneEncoder":
        """Set training mode; a frozen backbone stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.options.training == "frozen":
            self.backbone.eval()
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the head and each layer of the backbone as groups with their own learning rates,
        which are 0 for frozen parts.
        """
        o = self.options
        inside = {id(parameter) for parameter in self.backbone.parameters()}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        groups = [ParameterGroup("head", rest)]
        layers = self.layers()
        taken: set[int] = set()
        for number, layer in enumerate(layers):
            parameters = list(layer.parameters())
            taken |= {id(parameter) for parameter in parameters}
            above = len(layers) - 1 - number
            trained = o.training == "whole" or (o.training == "partial" and above < o.last_layers)
            scale = o.lr_scale * o.layer_decay**above
            groups += self._split(f"backbone layer {number + 1}", parameters, scale, trained)
        below = [
            parameter for parameter in self.backbone.parameters() if id(parameter) not in taken
        ]
        scale = o.lr_scale * o.layer_decay ** len(layers)
        groups += self._split("backbone below its layers", below, scale, o.training == "whole")
        return [group for group in groups if group.parameters]

    def _split(
        self, name: str, parameters: list[nn.Parameter], scale: float, trained: bool
    ) -> list[ParameterGroup]:
        """Separate the low-rank adapters, which have the learning rate of the head, from the
        weights that they adapt.
        """
        if self.options.training != "lora":
            return [ParameterGroup(name, parameters, scale if trained else 0.0)]
        adapters = {id(value) for key, value in self.backbone.named_parameters() if ".lora_" in key}
        return [
            ParameterGroup(f"{name}, adapters", [p for p in parameters if id(p) in adapters]),
            ParameterGroup(name, [p for p in parameters if id(p) not in adapters], 0.0),
        ]

    @classmethod
    def sized(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options with the configuration of the backbone; its weights are not read then."""
        name = options.get("backbone")
        if not name or options.get("config"):
            return dict(options)
        return {**options, "config": _plain(_configuration(str(name)))}

    def _made(self, config: dict[str, Any]) -> Any:
        """Make a backbone with random weights."""
        package = transformers()
        values = dict(config)
        kind = values.pop("model_type", self.model_types[0])
        self._check_type(kind, "its configuration")
        try:
            parsed = package.AutoConfig.for_model(kind, **values)
            return self.part_of(package.AutoModel.from_config(parsed, dtype=torch.float32))
        except (ValueError, TypeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise SasvError(
                f"encoder {self.name}: the config of the backbone is not possible: {reason}"
            ) from error

    def _pretrained(self, name: str) -> Any:
        """Read a backbone from a folder or from the local cache of the hub."""
        package = transformers()
        parsed = _configuration(name)
        self._check_type(parsed.model_type, name)
        self.check_features(name, _features_of(package, name))
        try:
            model = package.AutoModel.from_pretrained(
                name, local_files_only=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise SasvError(
                f"{name}: contains a configuration, but no weights that fit it ({reason})"
            ) from error
        return self.part_of(model)

    def _check_type(self, kind: str, place: str) -> None:
        if kind not in self.model_types:
            raise SasvError(
                f"{place}: this backbone has the type {kind}, but the encoder {self.name} needs "
                f"one of: {', '.join(self.model_types)}"
            )

    def check_features(self, name: str, settings: dict[str, Any]) -> None:
        """Check that a pretrained backbone was trained on features like those of the front-end.

        Args:
            name: folder or hub id of the backbone.
            settings: settings of its feature extractor; empty if it has none.

        Raises:
            SasvError: the backbone was trained at another sample rate.
        """
        rate = settings.get("sampling_rate", self.frontend.sample_rate)
        if rate != self.frontend.sample_rate:
            raise SasvError(
                f"{name}: this backbone is for {rate} Hz, but only those for "
                f"{self.frontend.sample_rate} Hz can be used"
            )

    def part_of(self, model: Any) -> Any:
        """Return the part of a loaded model that is the backbone."""
        return model


def _features_of(package: Any, name: str) -> dict[str, Any]:
    """Return the settings of the feature extractor of a backbone; empty if it has none."""
    path = package.utils.cached_file(
        name,
        "preprocessor_config.json",
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        return {}
    settings: dict[str, Any] = read_json(path, remedy="download it again")
    return settings


def _configuration(name: str) -> Any:
    """Read the configuration of a backbone from a folder or from the local cache of the hub."""
    try:
        return transformers().AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SasvError(
            f"{name}: there is no such backbone on this machine; give a folder with config.json "
            f"and weights, or download it from the hub with hf download {name}"
        ) from error


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON values, without entries that depend on this machine."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    for name in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"):
        values.pop(name, None)
    values["model_type"] = config.model_type
    return values


def _add_lora(backbone: Any, options: BackboneOptions, layers: tuple[str, ...]) -> None:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", "peft", "training low-rank adapters") from error
    settings = peft.LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(layers),
    )
    peft.inject_adapter_in_model(settings, backbone)


class LayerOutputs:
    """Context manager that collects the input of the first layer and the outputs of all layers
    while they run.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = layers
        self.found: list[Tensor] = []

    def __enter__(self) -> list[Tensor]:
        self.handles = [self.layers[0].register_forward_pre_hook(self._before, with_kwargs=True)]
        self.handles += [layer.register_forward_hook(self._after) for layer in self.layers]
        return self.found

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _before(
        self, layer: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.found.append(arguments[0] if arguments else options["hidden_states"])

    def _after(self, layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        self.found.append(output[0] if isinstance(output, tuple) else output)

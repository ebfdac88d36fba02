"""Losses on embeddings of shape (items, 2 utterances, dimension); each family has one file, and one
line here.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sasv.core.errors import SasvError
from sasv.core.part_options import parse_options
from sasv.core.registry import Registry
from sasv.losses.base import Loss

LOSSES = Registry(
    "loss",
    {
        "softmax": "sasv.losses.classification:Softmax",
        "amsoftmax": "sasv.losses.classification:AmSoftmax",
        "aamsoftmax": "sasv.losses.classification:AamSoftmax",
        "prototypical": "sasv.losses.metric:Prototypical",
        "proto": "sasv.losses.metric:ReleasedPrototypical",
        "angleproto": "sasv.losses.metric:AngularPrototypical",
        "triplet": "sasv.losses.metric:Triplet",
        "ge2e": "sasv.losses.metric:Ge2e",
        "softmaxproto": "sasv.losses.combined:SoftmaxPrototypical",
        "aamsoftmaxproto": "sasv.losses.combined:AamPrototypical",
        "sasv": "sasv.losses.combined:Sasv",
        "sasv-symmetric": "sasv.losses.combined:SasvSymmetric",
        "subcentre-aamsoftmax": "sasv.losses.subcentre:SubcentreAamSoftmax",
        "sphereface2": "sasv.losses.sphereface2:SphereFace2",
        "ocsoftmax": "sasv.losses.ocsoftmax:OcSoftmax",
        "three-class": "sasv.losses.three_class:ThreeClass",
        "adcf": "sasv.losses.adcf:ADcf",
        "anchored": "sasv.losses.anchored:Anchored",
    },
    group="sasv.losses",
)


def make_loss(
    name: str,
    dimension: int,
    classes: int,
    common: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
) -> Loss:
    """Make a loss head.

    Args:
        name: registry name of the loss.
        dimension: dimension of the embeddings.
        classes: number of training classes.
        common: options that most losses have (margin, scale); those that this loss does not have
            are ignored.
        own: further options of this loss.

    Raises:
        SasvError: the loss or an option is unknown, or a value is impossible.
    """
    kind: type[Loss] = LOSSES.get(name)
    known = [field.name for field in fields(kind.Options)]
    unknown = [key for key in own or {} if key not in known]
    if unknown:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise SasvError(f"the loss {name} has no option '{unknown[0]}'; {has}")
    values = {key: value for key, value in (common or {}).items() if key in known}
    options = parse_options(kind.Options, values | dict(own or {}), f"the loss {name}")
    return kind(dimension, classes, options)


__all__ = ["LOSSES", "make_loss"]

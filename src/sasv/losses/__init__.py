"""Losses on embeddings of shape (items, 2 utterances, dimension). One family a file, one line here."""

from sasv.core.registry import Registry

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
    },
    group="sasv.losses",
)

__all__ = ["LOSSES"]

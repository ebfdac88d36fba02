"""Fits the last linear layer of CAM++: so that speech through a codec or with noise gets nearly the
embedding of the same speech before it, and clean speech keeps its own; or so that the directions
in which codecs and noise change embeddings count less.
"""

import numpy as np
import torch
from torch import Tensor

from sasv.encoders.campplus import Campplus

UNCHANGED_WEIGHT = 20.0
"""Weight of a crop that is to keep its embedding; that of a crop in a condition is 1."""
STRENGTH = 0.4
"""Weight of the squared change of the layer, for standardised inputs. Like UNCHANGED_WEIGHT it was
chosen on development trials, and on training utterances and codecs that were left out.
"""


@torch.no_grad()
def refitted(encoder: Campplus, inputs: np.ndarray, before: np.ndarray) -> dict[str, Tensor]:
    """Return the entries of the state dict that change.

    Args:
        encoder: without a spoof axis.
        inputs: (crops, inputs) what the last layer is fed.
        before: (crops,) number of the crop whose embedding each crop is to have: that before the
            codec or noise, or the crop itself. Those with a negative number are left out.
    """
    dense = encoder.xvector["dense"]
    norm = dense.nonlinear.batchnorm
    embeddings = dense(torch.from_numpy(inputs)[:, :, None])[:, :, 0].double().numpy()
    rows = np.flatnonzero(before >= 0)
    wanted = embeddings[before[rows]] - embeddings[rows]
    weight = np.where(before[rows] == rows, UNCHANGED_WEIGHT, 1.0)
    weight /= weight.sum()
    x = inputs[rows].astype(np.float64)
    centre = weight @ x
    scale = np.sqrt(weight @ np.square(x - centre)) + 1e-5
    x = (x - centre) / scale
    mean = weight @ wanted
    gram = (x * weight[:, None]).T @ x + STRENGTH * np.eye(x.shape[1])
    slopes = np.linalg.solve(gram, (x * weight[:, None]).T @ (wanted - mean)) / scale[:, None]
    # The embedding changes by (inputs - centre) @ slopes + mean, before which the norm divides.
    divisor = torch.sqrt(norm.running_var + norm.eps).double()
    change = torch.from_numpy(slopes.T) * divisor[:, None]
    offset = torch.from_numpy(mean - centre @ slopes) * divisor
    return {
        "xvector.dense.linear.weight": (dense.linear.weight[:, :, 0] + change).float()[:, :, None],
        "xvector.dense.nonlinear.batchnorm.running_mean": (norm.running_mean - offset).float(),
    }


FLOOR = 2.0
"""Variance that is added to that of each direction, as a multiple of the mean over all directions.
It was chosen on development trials, and on training speech of another corpus.
"""


@torch.no_grad()
def whitened(encoder: Campplus, inputs: np.ndarray, before: np.ndarray) -> dict[str, Tensor]:
    """Return the entries of the state dict that change if each direction of the embedding is
    divided by the standard deviation, FLOOR included, of what a codec or noise adds along it.

    The embeddings of clean speech change too, so that a calibration for them is no longer valid.

    Args:
        encoder: with or without a spoof axis, which stays as it is.
        inputs, before: see ``refitted``; crops without a codec or noise are used only as what the
            others are compared with.
    """
    dense = encoder.xvector["dense"]
    norm = dense.nonlinear.batchnorm
    divisor = torch.sqrt(norm.running_var + norm.eps).double()
    weight = dense.linear.weight[:, :, 0].double()
    rows = np.flatnonzero((before >= 0) & (before != np.arange(len(before))))
    differences = torch.from_numpy(inputs[rows] - inputs[before[rows]]).double()
    added = differences @ (weight / divisor[:, None]).T
    variances, directions = torch.linalg.eigh(added.T @ added / len(added))
    factors = (variances / variances.mean() + FLOOR) ** -0.5
    change = directions @ torch.diag(factors) @ directions.T
    change = divisor[:, None] * change / divisor
    return {
        "xvector.dense.linear.weight": (change @ weight).float()[:, :, None],
        "xvector.dense.nonlinear.batchnorm.running_mean": (
            change @ norm.running_mean.double()
        ).float(),
    }

"""The recurrent layer of the speech detector: an LSTM that goes through the frames of a recording.

Where ONNX Runtime is installed, as in every service, it computes the layer in one call, which takes
less than half the time of the loop in NumPy, and during which other threads can use Python. The
graph is in a file without weights, which are inputs: ``tests/audio/test_recurrent.py`` makes it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import MissingExtra
from sasv.core.onnx import new_session

Weights = dict[str, np.ndarray]
State = tuple[np.ndarray, np.ndarray]
"""The hidden state and the cell after a frame, each (size,)."""

ONNX_GATES = (0, 3, 1, 2)
"""The gates of ONNX (input, output, forget, cell) in the order of PyTorch (input, forget, cell,
output).
"""


class Recurrence:
    """An LSTM with given weights.

    Args:
        weights: ``weight_ih`` (4 * size, inputs), ``weight_hh`` (4 * size, size), ``bias_ih`` and
            ``bias_hh`` (4 * size,), with the gates in the order of PyTorch.
        native: compute with ONNX Runtime if it is installed, rather than with NumPy.
    """

    def __init__(self, weights: Weights, native: bool = True) -> None:
        self.size = weights["weight_hh"].shape[1]
        self._session = _session() if native else None
        if self._session is None:
            self._numpy = _scaled(weights)
        else:
            self._onnx = _reordered(weights)

    @property
    def native(self) -> bool:
        """Whether ONNX Runtime computes the layer."""
        return self._session is not None

    def start(self) -> State:
        """Return the state before the first frame."""
        return np.zeros(self.size, np.float32), np.zeros(self.size, np.float32)

    def __call__(self, inputs: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return the hidden states, (frames, size), and the state after the last frame.

        Args:
            inputs: (frames, inputs), float32; at least one frame.
            state: the state before the first of them.
        """
        if self._session is None:
            return _loop(inputs, state, *self._numpy)
        hidden, cell = (part.reshape(1, 1, -1) for part in state)
        feed = {"inputs": inputs[:, np.newaxis], "hidden": hidden, "cell": cell, **self._onnx}
        states, hidden, cell = self._session.run(None, feed)
        return states.reshape(len(inputs), -1), (hidden.ravel(), cell.ravel())


@cache
def _session() -> Any:
    """Return the session of ONNX Runtime, or None if it is not installed."""
    try:
        graph = Path(__file__).with_name("silero_vad_lstm.onnx").read_bytes()
        return new_session(graph, threads=1)
    except MissingExtra:
        return None


def _reordered(weights: Weights) -> Weights:
    """Return the weights as inputs of the graph."""

    def gates(name: str) -> np.ndarray:
        parts = np.split(weights[name], 4)
        return np.concatenate([parts[gate] for gate in ONNX_GATES])[np.newaxis]

    biases = [gates("bias_ih"), gates("bias_hh")]
    return {
        "weight_ih": gates("weight_ih"),
        "weight_hh": gates("weight_hh"),
        "bias": np.concatenate(biases, axis=1),
    }


def _scaled(weights: Weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights for ``_loop``: those of inputs, their biases, and those of the states.

    1 / (1 + exp(-x)) is computed as (1 + tanh(x / 2)) / 2. The products with a half are exact, so
    those before the tangent are made in the weights.
    """
    size = weights["weight_hh"].shape[1]
    scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), size)
    bias = (weights["bias_ih"] + weights["bias_hh"]) * scale
    column = scale[:, np.newaxis]
    return weights["weight_ih"] * column, bias, weights["weight_hh"] * column


def _loop(
    inputs: np.ndarray,
    state: State,
    weight_ih: np.ndarray,
    bias: np.ndarray,
    weight_hh: np.ndarray,
) -> tuple[np.ndarray, State]:
    """Compute the layer frame by frame. Arrays are reused."""
    gates = inputs @ weight_ih.T + bias
    size = gates.shape[1] // 4
    states = np.empty((1 + len(inputs), size), np.float32)
    states[0] = state[0]
    cell = state[1].copy()
    product = np.empty(4 * size, np.float32)
    opened, forgotten, candidate, shown = product.reshape(4, size)
    sigmoids = product[: 2 * size]
    for frame, before, hidden in zip(gates, states[:-1], states[1:]):
        np.dot(weight_hh, before, product)
        np.tanh(np.add(product, frame, product), product)
        for gate in (sigmoids, shown):
            np.multiply(np.add(gate, 1, gate), 0.5, gate)
        np.multiply(cell, forgotten, cell)
        np.add(cell, np.multiply(candidate, opened, candidate), cell)
        np.multiply(np.tanh(cell, hidden), shown, hidden)
    return states[1:], (states[-1], cell)

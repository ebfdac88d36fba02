"""The network of the Silero voice activity detector: probabilities of speech in frames.

Source: the network and its weights are those of the package ``silero-vad``
(https://github.com/snakers4/silero-vad, MIT licence, in ``silero_vad_LICENSE.txt``). The package
itself is not used, because it needs PyTorch, sets the number of threads of the whole process to
one, and processes a recording frame by frame (half a second for 30 s of audio). Here the
convolutions process many frames at once. A test compares the probabilities with those of the
package.

Where ONNX Runtime is installed, as in every service, it computes the network in one call, which
takes less time than NumPy, with one thread, and during which other threads can use Python. The
graph is in a file without weights, which are inputs: ``tests/audio/test_silero.py`` makes it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from sasv.core.errors import MissingExtra
from sasv.core.onnx import new_session

Weights = dict[str, np.ndarray]
State = tuple[np.ndarray, np.ndarray]
"""The hidden state and the cell of the recurrent layer after a frame, each (size,)."""

FRAME = 512
"""Samples of a frame (32 ms), for which the detector computes one probability."""

CONTEXT = 64
"""Samples of the previous frame that are also input to the network."""

WINDOW = 256
HOP = 128
"""Of the short-time Fourier transform, in samples."""

STRIDES = (1, 2, 2, 1)
"""Of the convolutions."""

GATES = (0, 3, 1, 2)
"""The gates of ONNX (input, output, forget, cell) in the order of PyTorch (input, forget, cell,
output).
"""


class Detector:
    """The network, computed by ONNX Runtime or NumPy.

    Args:
        native: compute with ONNX Runtime if it is installed, rather than with NumPy.
    """

    def __init__(self, native: bool = True) -> None:
        weights = load_file(Path(__file__).with_name("silero_vad_16k.safetensors"))
        self.size = weights["decoder.rnn.weight_hh"].shape[1]
        self._session = _session() if native else None
        self._weights = as_inputs(weights) if self.native else _for_numpy(weights)

    @property
    def native(self) -> bool:
        """Whether ONNX Runtime computes the network."""
        return self._session is not None

    def start(self) -> State:
        """Return the state before the first frame."""
        return np.zeros(self.size, np.float32), np.zeros(self.size, np.float32)

    def __call__(self, frames: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return the probability of speech in each frame, (frames,), and the state after the last.

        Args:
            frames: (frames, CONTEXT + FRAME), float32, each with the end of the frame before; at
                least one.
            state: the state before the first of them.
        """
        if self._session is None:
            return _computed(frames, state, self._weights)
        hidden, cell = (part.reshape(1, 1, -1) for part in state)
        feed = {"frames": frames, "hidden": hidden, "cell": cell, **self._weights}
        probabilities, hidden, cell = self._session.run(None, feed)
        return probabilities.reshape(-1), (hidden.ravel(), cell.ravel())


@cache
def _session() -> Any:
    """Return the session of ONNX Runtime, or None if it is not installed."""
    try:
        graph = Path(__file__).with_name("silero_vad.onnx").read_bytes()
        return new_session(graph, threads=1)
    except MissingExtra:
        return None


def as_inputs(weights: Weights) -> Weights:
    """Return the weights as inputs of the graph: of each layer a matrix (inputs, outputs), where
    the inputs of a convolution are its first steps, its second steps, and its third steps.
    """
    inputs = {"stft": weights["stft.forward_basis_buffer"][:, 0].T}
    for layer in range(len(STRIDES)):
        weight = weights[f"encoder.{layer}.reparam_conv.weight"]
        inputs[f"weight{layer}"] = weight.transpose(2, 1, 0).reshape(-1, len(weight))
        inputs[f"bias{layer}"] = weights[f"encoder.{layer}.reparam_conv.bias"]

    def gates(name: str) -> np.ndarray:
        parts = np.split(weights[f"decoder.rnn.{name}"], len(GATES))
        return np.concatenate([parts[gate] for gate in GATES])[np.newaxis]

    inputs["weight_ih"] = gates("weight_ih")
    inputs["weight_hh"] = gates("weight_hh")
    inputs["bias"] = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    inputs["last_weight"] = weights["decoder.decoder.2.weight"][0]
    inputs["last_bias"] = weights["decoder.decoder.2.bias"]
    return {name: np.ascontiguousarray(value) for name, value in inputs.items()}


def _for_numpy(weights: Weights) -> Weights:
    """Return the weights with those of the recurrent layer changed for ``_recur``.

    1 / (1 + exp(-x)) is computed as (1 + tanh(x / 2)) / 2. The products with a half are exact, so
    those before the tangent are made in the weights.
    """
    rnn = "decoder.rnn."
    size = weights[f"{rnn}weight_hh"].shape[1]
    scale = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), size)
    column = scale[:, np.newaxis]
    return weights | {
        "weight_ih": weights[f"{rnn}weight_ih"] * column,
        "weight_hh": weights[f"{rnn}weight_hh"] * column,
        "bias": (weights[f"{rnn}bias_ih"] + weights[f"{rnn}bias_hh"]) * scale,
    }


def _computed(frames: np.ndarray, state: State, weights: Weights) -> tuple[np.ndarray, State]:
    """Compute the network with NumPy."""
    padded = np.pad(frames, ((0, 0), (0, CONTEXT)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::HOP]
    parts = windows @ weights["stft.forward_basis_buffer"][:, 0].T
    half = parts.shape[2] // 2
    values = np.sqrt(parts[..., :half] ** 2 + parts[..., half:] ** 2)
    for layer, stride in enumerate(STRIDES):
        name = f"encoder.{layer}.reparam_conv"
        values = _convolve(values, weights[f"{name}.weight"], weights[f"{name}.bias"], stride)
    hidden, state = _recur(values[:, 0], state, weights)
    logits = np.maximum(hidden, 0) @ weights["decoder.decoder.2.weight"][0, :, 0]
    return _sigmoid(logits + weights["decoder.decoder.2.bias"][0]), state


def _convolve(values: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Apply a convolution of width 3 with one zero of padding on each side, then a ReLU.

    Args:
        values: (frames, steps, inputs).
        weight: (outputs, inputs, 3).
        bias: (outputs,).
        stride: steps between two outputs.

    Returns:
        (frames, steps / stride, outputs).
    """
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
    frames, steps = windows.shape[:2]
    flat = windows.reshape(frames * steps, -1) @ weight.reshape(len(weight), -1).T
    return np.asarray(np.maximum(flat.reshape(frames, steps, -1) + bias, 0))


def _recur(inputs: np.ndarray, state: State, weights: Weights) -> tuple[np.ndarray, State]:
    """Compute the recurrent layer, an LSTM, frame by frame. Arrays are reused."""
    gates = inputs @ weights["weight_ih"].T + weights["bias"]
    weight_hh = weights["weight_hh"]
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


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))

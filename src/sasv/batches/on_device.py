"""The augmentations of ``augment``, applied to a whole batch on the device used for training.

The same code draws the augmentation from the same random numbers and reads the files as on the CPU;
only the arithmetic is done later. The results are equal up to float32 rounding.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from sasv.batches.augment import SPEEDS, Change

REACH = 12
"""Number of blocks, of 19 or 21 samples each, that are used on each side of a resampling filter;
the filter of soxr extends over six.
"""


class Changes(NamedTuple):
    """The augmentations of the crops of a batch. The rows are numbers of crops (2 for each item).

    Attributes:
        noises: noise of the first round for a crop of unit power, (n, samples).
        noise_rows: the crops to which it is added, (n,).
        second_noises: noise of the second round.
        second_rows: the crops of the second round.
        rirs: room impulse responses, (r, taps), padded with zeros.
        rir_rows: the crops that are convolved with them, (r,).
        slow_rows: the crops that are played at the first speed of SPEEDS.
        fast_rows: the crops that are played at the second.
        gains: factor of every crop, (crops,); crops with a factor other than 1 are clipped at full
            scale.
    """

    noises: Tensor
    noise_rows: Tensor
    second_noises: Tensor
    second_rows: Tensor
    rirs: Tensor
    rir_rows: Tensor
    slow_rows: Tensor
    fast_rows: Tensor
    gains: Tensor


def pack_changes(changes: Sequence[tuple[Change, np.float32]], samples: int) -> Changes:
    """Return the augmentations of the crops of a batch as tensors.

    Args:
        changes: change and gain of each crop.
        samples: length of a crop, in samples.
    """
    rounds: list[list[tuple[int, np.ndarray]]] = [[], []]
    rirs: list[tuple[int, np.ndarray]] = []
    speeds: list[list[int]] = [[], []]
    for row, (change, _) in enumerate(changes):
        for number, drawn in enumerate(change.noises):
            rounds[number].append((row, _for_unit_power(drawn)))
        if change.rir is not None:
            rirs.append((row, change.rir))
        if change.speed is not None:
            speeds[change.speed].append(row)
    taps = max((len(rir) for _, rir in rirs), default=1)
    padded = [(row, np.pad(rir, (0, taps - len(rir)))) for row, rir in rirs]
    noises, noise_rows = _stacked(rounds[0], samples)
    second_noises, second_rows = _stacked(rounds[1], samples)
    responses, rir_rows = _stacked(padded, taps)
    slow, fast = (torch.tensor(rows, dtype=torch.long) for rows in speeds)
    gains = torch.tensor([float(gain) for _, gain in changes])
    return Changes(
        noises, noise_rows, second_noises, second_rows, responses, rir_rows, slow, fast, gains
    )


def _for_unit_power(drawn: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """Return the sum of noises, scaled to their ratios for a crop of power 1; silent noise stays
    silent.
    """
    total = np.zeros(len(drawn[0][0]), np.float32)
    for noise, snr in drawn:
        power = float(np.square(noise).mean())
        if power > 0:
            total += noise * np.float32(np.sqrt(1 / (power * 10 ** (snr / 10))))
    return total


def _stacked(found: Sequence[tuple[int, np.ndarray]], width: int) -> tuple[Tensor, Tensor]:
    rows = torch.tensor([row for row, _ in found], dtype=torch.long)
    if not found:
        return torch.zeros(0, width), rows
    arrays = [torch.from_numpy(array.astype(np.float32, copy=False)) for _, array in found]
    return stacked(arrays), rows


def stacked(tensors: list[Tensor]) -> Tensor:
    """Stack tensors; in a worker of a DataLoader, in the memory that it shares, so that they are
    copied only once.
    """
    found: Tensor = default_collate(tensors)
    return found


def apply_changes(waves: Tensor, changes: Changes) -> Tensor:
    """Return the changed crops.

    Args:
        waves: (items, 2, samples), float32, on the device.
        changes: on the same device.
    """
    crops = waves.reshape(-1, waves.shape[-1]).clone()
    for noises, rows in (
        (changes.noises, changes.noise_rows),
        (changes.second_noises, changes.second_rows),
    ):
        if len(rows):
            levels = crops[rows].square().mean(1, keepdim=True).sqrt()
            crops[rows] = crops[rows] + levels * noises
    if len(changes.rir_rows):
        crops[changes.rir_rows] = _convolved(crops[changes.rir_rows], changes.rirs)
    for speed, rows in enumerate((changes.slow_rows, changes.fast_rows)):
        if len(rows):
            crops[rows] = resampled(crops[rows], *SPEEDS[speed])
    gains = changes.gains[:, None]
    crops = torch.where(gains == 1, crops, (gains * crops).clamp(-1.0, 1.0))
    return crops.reshape(waves.shape)


def _convolved(crops: Tensor, rirs: Tensor) -> Tensor:
    samples = crops.shape[1]
    size = 1 << (samples + rirs.shape[1] - 2).bit_length()
    spectra = torch.fft.rfft(crops, size) * torch.fft.rfft(rirs, size)
    convolved: Tensor = torch.fft.irfft(spectra, size)
    return convolved[:, :samples]


class Filter(NamedTuple):
    """A resampling filter of soxr, as a convolution with a stride.

    Attributes:
        taps: (inputs of some blocks, outputs), one column for each output of a block.
        before: number of input samples before a block that the filter uses.
        start: (outputs of the first block, inputs); soxr computes the first few outputs
            differently.
    """

    taps: Tensor
    before: int
    start: Tensor


@lru_cache
def soxr_filter(outputs: int, inputs: int, device: torch.device) -> Filter:
    """Return the filter of soxr for a ratio, on a device, measured with impulses. This is possible
    because it is linear and its response repeats with every block of ``inputs`` samples.
    """
    blocks = 2 * REACH + 1
    impulses = np.zeros((blocks * inputs, inputs), np.float32)
    impulses[REACH * inputs + np.arange(inputs), np.arange(inputs)] = 1
    # (output block, output, input): the contribution of an input of block REACH to an output.
    responses = soxr.resample(impulses, inputs, outputs)[: blocks * outputs]
    responses = responses.reshape(blocks, outputs, inputs)
    # Tap j of an output belongs to input j - before of its block: the response REACH - j blocks
    # away.
    taps = np.concatenate(list(responses[::-1]), axis=1)
    first = np.eye(blocks * inputs, dtype=np.float32)
    start = soxr.resample(first, inputs, outputs)[:outputs]
    return Filter(
        torch.from_numpy(np.ascontiguousarray(taps.T)).to(device),
        REACH * inputs,
        torch.from_numpy(np.ascontiguousarray(start)).to(device),
    )


def resampled(crops: Tensor, outputs: int, inputs: int) -> Tensor:
    """Return crops (n, samples) resampled as soxr does, then cut or repeated to their length."""
    samples = crops.shape[1]
    found = soxr_filter(outputs, inputs, crops.device)
    blocks = -(-samples // inputs)
    right = (blocks + REACH) * inputs - samples
    padded = F.pad(crops, (found.before, right))
    # A product and not conv1d: cuDNN would look for its fastest algorithm anew for each number of
    # crops.
    windows = padded.unfold(1, len(found.taps), inputs)
    changed = (windows @ found.taps).reshape(len(crops), -1)
    head = padded[:, found.before : found.before + found.start.shape[1]]
    first = head @ found.start[:, : head.shape[1]].T
    length = resampled_length(samples, outputs, inputs)
    changed = torch.cat([first, changed[:, outputs:]], 1)[:, :length]
    repeats = -(-samples // length)
    return changed.repeat(1, repeats)[:, :samples]


@lru_cache
def resampled_length(samples: int, outputs: int, inputs: int) -> int:
    """Return the number of output samples of soxr for a number of input samples."""
    return len(soxr.resample(np.zeros(samples, np.float32), inputs, outputs))

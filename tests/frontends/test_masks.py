"""Masks follow the frames through any layer: the output of a layer for a batch equals its output
for each item alone.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sasv.frontends.masks import Segments, convolve, frame_mask, keep, masked_mean, masked_variance

LAYERS = [nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d]


@given(
    kind=st.sampled_from(LAYERS),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 3),
    ceil=st.booleans(),
    lengths=st.lists(st.integers(13, 60), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_masked_layer_equals_the_layer_on_each_item_alone(
    kind, kernel, stride, padding, dilation, ceil, lengths
):
    padding = min(padding, kernel // 2)
    if kind is nn.Conv1d:
        layer = nn.Conv1d(3, 3, kernel, stride, padding, dilation)
    elif kind is nn.MaxPool1d:
        layer = nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil)
    else:
        layer = nn.AvgPool1d(kernel, stride, 0)
    x = torch.randn(len(lengths), 3, max(lengths))
    with torch.no_grad():
        together, mask = convolve(layer, x, frame_mask(torch.tensor(lengths), x.shape[2]))
        assert mask.shape == (len(lengths), 1, together.shape[2])
        for row, own, real, length in zip(together, mask[:, 0], x, lengths):
            alone = layer(real[None, :, :length])[0]
            assert int(own.sum()) == alone.shape[1]
            torch.testing.assert_close(row[:, own], alone)


@pytest.mark.parametrize("axis, stride", [(0, (2, 1)), (1, (1, 2))])
def test_time_may_be_either_axis_of_a_two_dimensional_layer(axis, stride):
    layer = nn.Conv2d(1, 2, 3, stride=stride, padding=1)
    mask = frame_mask(torch.tensor([9, 4]), 9)
    if axis == 1:
        result, after = convolve(layer, torch.randn(2, 1, 5, 9), mask)
        assert result.shape[3] == after.shape[2]
    else:
        _, after = convolve(layer, torch.randn(2, 1, 9, 9), mask, axis=0)
    assert after[:, 0].sum(dim=1).tolist() == [5, 2]


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_statistics_and_segments(size):
    lengths = [23, 9, 2]
    x = torch.randn(3, 4, 23)
    mask = frame_mask(torch.tensor(lengths), 23)
    for index, length in enumerate(lengths):
        own = x[index : index + 1, :, :length]
        torch.testing.assert_close(masked_mean(x, mask)[index], masked_mean(own, None)[0])
        torch.testing.assert_close(masked_variance(x, mask)[index], masked_variance(own, None)[0])
        pooled = F.avg_pool1d(own, size, size, ceil_mode=True).repeat_interleave(size, dim=2)[
            ..., :length
        ]
        for batch, real in ((own, None), (x, mask)):
            segments = Segments.of(batch, real, size)
            whole, means = segments.means(keep(batch, real))
            row = 0 if real is None else index
            torch.testing.assert_close(whole[row], masked_mean(own, None)[0])
            torch.testing.assert_close(segments.spread(means)[row, :, :length], pooled[0])
    flat = x[:, :, None].expand(-1, -1, 5, -1)
    torch.testing.assert_close(masked_mean(flat, mask, (2, -1))[:, :, 0], masked_mean(x, mask))

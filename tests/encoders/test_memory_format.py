"""The channels-last memory format changes neither embeddings nor gradients."""

import copy

import pytest
import torch
from torch import nn

from sasv.encoders import make_encoder, preset
from sasv.encoders.memory_format import (
    ChannelsLastBatchNorm1d,
    ChannelsLastConv1d,
    concatenated,
    same_convolution,
    same_norm,
    use_channels_last,
)


@pytest.mark.parametrize("name", ["ecapa-tdnn", "mfa-conformer", "ska-tdnn", "campplus"])
def test_channels_last_keeps_embeddings_and_gradients(name):
    torch.manual_seed(0)
    usual = make_encoder(name, preset(name, "test")).eval()
    last = copy.deepcopy(usual)
    use_channels_last(last)
    waves = 0.1 * torch.randn(4, 8000)
    outputs = [encoder(waves) for encoder in (usual, last)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    if name == "campplus":
        return  # its backward pass in this format corrupts memory on a CPU (PyTorch 2.13)
    for output in outputs:
        output.square().sum().backward()
    for own, other in zip(usual.parameters(), last.parameters(), strict=True):
        if own.grad is not None:
            assert other.grad is not None
            assert (own.grad - other.grad).norm() <= 1e-3 * own.grad.norm() + 1e-4


def test_channels_last_keeps_the_state_dict_and_parameter_order():
    usual = make_encoder("ecapa-tdnn", preset("ecapa-tdnn", "test"))
    last = copy.deepcopy(usual)
    use_channels_last(last)
    assert list(usual.state_dict()) == list(last.state_dict())
    names = [name for name, _ in usual.named_parameters()]
    assert names == [name for name, _ in last.named_parameters()]


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 5, "padding": "same", "bias": False},
        {"kernel_size": 3, "stride": 2, "groups": 4},
    ],
)
def test_a_convolution_is_the_same(options):
    layer = nn.Conv1d(8, 12, **options)
    x = torch.randn(2, 8, 31)
    output = same_convolution(ChannelsLastConv1d, layer)(x)
    torch.testing.assert_close(output, layer(x))
    assert output.unsqueeze(2).is_contiguous(memory_format=torch.channels_last)


def test_batch_norm_in_training_is_the_same_and_shares_its_statistics():
    layer = nn.BatchNorm1d(6).train()
    twin = same_norm(ChannelsLastBatchNorm1d, copy.deepcopy(layer))
    for shape in ((5, 6, 7), (5, 6)):
        x = torch.randn(shape)
        torch.testing.assert_close(twin(x), layer(x))
    torch.testing.assert_close(twin.state_dict(), layer.state_dict())


def test_concatenating_keeps_the_format():
    parts = [torch.randn(2, 9, 4).transpose(1, 2), torch.randn(2, 9, 3).transpose(1, 2)]
    whole = concatenated(parts)
    assert torch.equal(whole, torch.cat(parts, dim=1))
    assert whole.unsqueeze(2).is_contiguous(memory_format=torch.channels_last)

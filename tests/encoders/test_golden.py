"""The numbers of the published system (tests/data/golden.npz)."""

import json

import numpy as np
import pytest
import torch

from conftest import PUBLISHED_NAMES
from sasv.encoders import make_encoder
from sasv.encoders.base import parameters_of
from sasv.losses import LOSSES
from sasv.training.schedules import CosineRestarts

PARAMETERS = {"ecapa-tdnn": 15_444_544, "ska-tdnn": 30_835_104, "mfa-conformer": 21_924_288}


def relative(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def filled(module, prefix, fill):
    """Fill a module according to the rules of fill.py under the published names."""
    entries = {prefix + key: value for key, value in module.state_dict().items()}
    values = fill.fill_state_dict(entries, 0)
    module.load_state_dict({key.removeprefix(prefix): value for key, value in values.items()})
    return module


@pytest.fixture(scope="module", params=list(PUBLISHED_NAMES))
def encoder(request, fill):
    return request.param, filled(make_encoder(request.param), "__S__.", fill)


@pytest.mark.slow
def test_names_shapes_and_parameters_are_published(encoder, published_keys):
    name, module = encoder
    published = {
        k[6:]: s for k, s in published_keys[PUBLISHED_NAMES[name]].items() if k.startswith("__S__.")
    }
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == published
    assert parameters_of(module) == PARAMETERS[name]


def test_frontend_buffers(encoder, golden):
    _, module = encoder
    for key, value in module.torchfbank.state_dict().items():
        np.testing.assert_allclose(value, golden[f"torchfbank/{key}"], atol=2e-6)


@pytest.mark.slow
def test_embeddings_and_logmel(encoder, golden, fill):
    name, module = encoder
    published = PUBLISHED_NAMES[name]
    module.eval()
    with torch.no_grad():
        features = module.torchfbank(torch.from_numpy(fill.waveform(32000, 0))[None])[0]
        expected = golden[f"{published}/logmel/32000"]
        assert features.shape == expected.shape
        assert relative(features, expected) < 1e-4
        for index, samples in enumerate((32000, 48123, 64000)):
            embedding = module(torch.from_numpy(fill.waveform(samples, index))[None])[0]
            assert relative(embedding, golden[f"{published}/embedding/{samples}"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [
        pytest.param(name, marks=pytest.mark.long) if name == "ska-tdnn" else name
        for name in PUBLISHED_NAMES
    ],
    indirect=True,
)
def test_train_step(encoder, golden, fill):
    name, module = encoder
    published = PUBLISHED_NAMES[name]
    head = filled(LOSSES.get("sasv")(192, 41), "__L__.", fill)
    module = filled(make_encoder(name), "__S__.", fill).train()
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    waves = np.stack([fill.waveform(16000, 50 + index) for index in range(12)])
    embeddings = module(torch.from_numpy(waves)).reshape(2, 6, 192).transpose(0, 1)
    output = head(embeddings, torch.tensor([0, 1, 2, 3, 40, 40]))
    output.value.backward()
    named = {f"__S__.{key}": value for key, value in module.named_parameters()}
    named |= {f"__L__.{key}": value for key, value in head.named_parameters()}
    norm = torch.stack([p.grad.norm() for p in named.values() if p.grad is not None]).norm()
    assert output.value.item() == pytest.approx(float(golden[f"{published}/train/loss"]), rel=1e-3)
    assert output.accuracy.item() == pytest.approx(float(golden[f"{published}/train/acc"]))
    assert norm.item() == pytest.approx(float(golden[f"{published}/train/grad_norm"]), rel=1e-3)
    singles = [key for key in golden.files if key.startswith(f"{published}/train/grad_norm/")]
    assert len(singles) == 2
    for key in singles:
        assert named[key.rpartition("/")[2]].grad.norm().item() == pytest.approx(
            float(golden[key]), rel=1e-3
        )
    weight = "__L__.aamsoftmax.weight"
    assert relative(named[weight].grad, golden[f"{published}/train/grad/{weight}"]) < 1e-3


def stage1_losses():
    return [
        "softmax",
        "amsoftmax",
        "aamsoftmax",
        "proto",
        "angleproto",
        "ge2e",
        "softmaxproto",
        "aamsoftmaxproto",
    ]


@pytest.mark.parametrize("name", [*stage1_losses(), "sasv"])
def test_loss_values_and_gradients(name, golden, fill):
    published = "loss/stage3/sasv_e2e_v1" if name == "sasv" else f"loss/stage1/{name}"
    labels = [3, 1, 0, 2, 10, 10, 10, 10] if name == "sasv" else [3, 1, 0, 2, 5, 4, 9, 7]
    head = LOSSES.get(name)(192, 11)
    filled(head, f"loss.{published.rpartition('/')[2]}.", fill)
    shapes = {key: list(value.shape) for key, value in head.state_dict().items()}
    assert shapes == json.loads(str(golden[f"{published}/params"]))
    embeddings = torch.from_numpy(fill.fill_array("embeddings", (8, 2, 192), 0)) * 384**0.5
    embeddings.requires_grad_()
    value = head(embeddings, torch.tensor(labels)).value
    value.backward()
    assert value.item() == pytest.approx(float(golden[f"{published}/value"]), rel=1e-5)
    assert relative(embeddings.grad, golden[f"{published}/grad"]) < 1e-5


def test_schedules(golden):
    stage1 = golden["schedule/stage1_lr_by_epoch"]
    np.testing.assert_allclose([CosineRestarts()(epoch) for epoch in range(80)], stage1, rtol=1e-5)
    stage3 = golden["schedule/stage3_lr_by_epoch"]
    schedule = CosineRestarts(
        max_lr=1e-4, min_lr=0.0, cycle_epochs=8, warmup_epochs=0, lr_decay=0.8
    )
    found = [schedule(epoch) for epoch in range(40)]
    np.testing.assert_allclose(found, stage3, rtol=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_class_directions_are_those_that_the_loss_compares_with(name):
    """An embedding along the direction of a class is classified as that class."""
    torch.manual_seed(0)
    head = LOSSES.get(name)(6, 5)
    directions = head.class_directions(head.state_dict())
    assert LOSSES.get(name).class_directions({}) is None
    if directions is None:
        assert not any(5 in value.shape for value in head.state_dict().values())
        return
    assert directions.shape == (5, 6)
    embeddings = (10 * torch.nn.functional.normalize(directions))[:, None].expand(-1, 2, -1)
    assert head(embeddings, torch.arange(5)).accuracy == 100

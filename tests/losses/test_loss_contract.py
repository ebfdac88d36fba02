"""Properties of every registered loss."""

import copy
import json
import math

import pytest
import torch

from conftest import tiny_options
from sasv.checkpoints import load_checkpoint
from sasv.cli.parser import parse
from sasv.core.errors import SasvError
from sasv.losses import LOSSES, make_loss
from sasv.training.build import build_trainer

CLASSES = 5
SPOOF = CLASSES - 1
WITH_SPOOFS = torch.tensor([0, 1, 2, SPOOF, SPOOF])
WITHOUT_SPOOFS = torch.tensor([0, 1, 2, 3, 1])


def head_of(name):
    torch.manual_seed(0)
    return make_loss(name, 8, CLASSES)


def batch(items, name="sasv"):
    generator = torch.Generator().manual_seed(1)
    vectors = 5 if LOSSES.get(name).anchored else 2
    return torch.randn(items, vectors, 8, generator=generator)


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("labels", [WITH_SPOOFS, WITHOUT_SPOOFS], ids=["spoofs", "no spoofs"])
def test_value_and_gradient_are_finite(name, labels):
    head = head_of(name)
    embeddings = batch(len(labels), name).requires_grad_()
    found = head.total(embeddings, labels)
    found.value.backward()
    assert found.value.shape == found.accuracy.shape == ()
    assert found.value.isfinite() and 0 <= found.accuracy <= 100
    assert embeddings.grad.isfinite().all() and embeddings.grad.any()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", list(LOSSES))
def test_finite_where_embeddings_are_equal_or_opposite(name):
    """Cosines of 1 and -1, both between embeddings and with the directions of the classes."""
    head = head_of(name)
    directions = head.class_directions(head.state_dict())
    line = torch.ones(8) if directions is None else directions[0]
    pattern = torch.stack((line, -line, line, -line, line))
    if not LOSSES.get(name).anchored:
        pattern = pattern[:2]
    embeddings = pattern.repeat(len(WITH_SPOOFS), 1, 1).requires_grad_()
    value = head.total(embeddings, WITH_SPOOFS).value
    value.backward()
    assert value.isfinite() and embeddings.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("name", list(LOSSES))
def test_low_precision(name):
    """Embeddings in half precision, or autocast around the loss, give a finite float32 value close
    to the exact one.
    """
    head = head_of(name)
    embeddings = batch(len(WITH_SPOOFS), name).bfloat16()
    exact = head.total(embeddings.float(), WITH_SPOOFS).value
    if name != "softmax" and not name.startswith(
        "softmaxproto"
    ):  # a plain layer takes what it is given
        value = head.total(embeddings, WITH_SPOOFS).value
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact, rtol=2e-2, atol=2e-2)
    with torch.autocast("cpu", torch.bfloat16):
        value = head.total(embeddings.float(), WITH_SPOOFS).value
    assert value.isfinite()
    torch.testing.assert_close(value.float(), exact, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("name", list(LOSSES))
def test_state_dict_restores_the_same_loss(name):
    head = head_of(name)
    again = make_loss(name, 8, CLASSES)
    again.load_state_dict(copy.deepcopy(head.state_dict()))
    embeddings = batch(len(WITH_SPOOFS), name)
    assert torch.equal(head(embeddings, WITH_SPOOFS).value, again(embeddings, WITH_SPOOFS).value)


@pytest.mark.parametrize("name", list(LOSSES))
def test_class_directions_and_countermeasure_are_read_from_the_state_dict(name):
    kind = LOSSES.get(name)
    head = head_of(name)
    directions = kind.class_directions(head.state_dict())
    assert directions is None or directions.shape == (CLASSES, 8)
    found = kind.countermeasure(head.state_dict())
    assert (found is None) == (head.spoof_head is None)
    assert kind.class_directions({}) is None and kind.countermeasure({}) is None
    if found is not None:
        embeddings = batch(3)
        expected = head.spoof_head.score(embeddings)
        values = torch.nn.functional.normalize(embeddings, dim=-1) @ found[0] + found[1]
        torch.testing.assert_close(values, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_trains(name, corpus, trained, tmp_path):
    """One step with the trainer changes the weights, and the checkpoint contains the head."""
    changes = {"where": "", "spoof_pairs": 2} if LOSSES.get(name).spoof_aware else {}
    changes |= {"dev_enrolments": "", "dev_trials": ""}
    if LOSSES.get(name).anchored:
        changes |= {"init": str(trained / "model.safetensors"), "encoder_options": {}}
    trainer = build_trainer(
        tiny_options(corpus, tmp_path, loss=name, epochs=1, batches_per_epoch=1, **changes)
    )
    before = copy.deepcopy(trainer.engine.system.encoder.state_dict())
    checkpoint = load_checkpoint(trainer.run())
    assert any(not torch.equal(before[key], checkpoint.encoder[key]) for key in before)
    assert checkpoint.specification.loss == name
    head = make_loss(name, 8, len(checkpoint.specification.classes))
    assert set(checkpoint.head) == set(head.state_dict())
    assert math.isfinite(trainer.history[0]["loss"])


def test_spoof_aware_loss_requires_spoofs(corpus, tmp_path):
    for name in LOSSES:
        if LOSSES.get(name).spoof_aware:
            with pytest.raises(
                SasvError, match=f"the loss {name} treats the last class .* set --spoof-pairs"
            ):
                build_trainer(tiny_options(corpus, tmp_path / name, loss=name))
    with pytest.raises(SasvError, match="--spoof-head learns from spoofed speech"):
        build_trainer(tiny_options(corpus, tmp_path / "head", spoof_head="linear"))


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("subcentre-aamsoftmax", {"subcentres": 0}, "option subcentres .* at least 1, not 0"),
        ("subcentre-aamsoftmax", {"top_k": 1.5}, "option top_k"),
        ("sphereface2", {"balance": 1.0}, "option balance"),
        ("ocsoftmax", {"alpha": "much"}, "option alpha"),
        ("ocsoftmax", {"margin": 0.2}, "has no option 'margin'; it has alpha"),
        ("three-class", {"classification_weight": -1.0}, "option classification_weight"),
        ("adcf", {"spoof_prior": 0.5}, "must add up to 1"),
        ("adcf", {"slope": float("nan")}, "option slope"),
    ],
)
def test_impossible_options_are_errors(name, own, message):
    with pytest.raises(SasvError, match=message):
        make_loss(name, 8, CLASSES, own=own)


def test_options_as_yaml_and_as_flags(tmp_path):
    own = {"subcentres": 2, "top_k": 0}
    path = tmp_path / "run.yaml"
    path.write_text(
        "utterances: u.tsv\nout: run\nloss: subcentre-aamsoftmax\nspoof_head: ocsoftmax\n"
        f"loss_options: {json.dumps(own)}\n"
    )
    words = [
        "--loss",
        "subcentre-aamsoftmax",
        "--loss-options",
        json.dumps(own),
        "--spoof-head",
        "ocsoftmax",
    ]
    flags = parse("train", ["--utterances", "u.tsv", "--out", "run", *words])
    assert parse("train", [str(path)]) == flags
    assert (flags.loss_options, flags.spoof_head) == (own, "ocsoftmax")

"""The anchored loss, compared with values computed by hand."""

import math

import pytest
import torch

from sasv.losses import make_loss

CLASSES = 3
SPOOF = CLASSES - 1

EAST = (1.0, 0.0)
NORTH = (0.0, 1.0)
WEST = (-1.0, 0.0)
NORTH_EAST = (math.sqrt(0.5), math.sqrt(0.5))
UNKNOWN = (0.0, 0.0)


def loss_of(items, labels, **own):
    """Return the loss of items of (two utterances, two of the anchor, voiceprint)."""
    head = make_loss("anchored", 2, CLASSES, own=own)
    return head(torch.tensor(items), torch.tensor(labels))


def hinge(cosine, margin=0.0, slope=10.0):
    return math.log1p(math.exp(slope * (cosine - margin))) / slope


def test_bona_fide_speech_that_stays_costs_nothing():
    found = loss_of([[EAST, NORTH, EAST, NORTH, UNKNOWN]], [0])
    assert found.value.item() == pytest.approx(0.0, abs=1e-6)
    assert found.anchor_cosine.item() == pytest.approx(1.0)
    assert found.accuracy.item() == 100.0


def test_bona_fide_speech_that_moves():
    """The cosines are 1 and 0 with the anchor, and sqrt(1/2) twice with the voiceprint, so the loss
    is a half for the crops and 1 - sqrt(1/2) for the voiceprint. Norms do not matter.
    """
    item = [(3.0, 0.0), NORTH, EAST, (5.0, 0.0), NORTH_EAST]
    found = loss_of([item], [1], crop_weight=2.0, voiceprint_weight=3.0)
    assert found.value.item() == pytest.approx(2.0 * 0.5 + 3.0 * (1 - math.sqrt(0.5)))
    assert found.anchor_cosine.item() == pytest.approx(0.5)


def test_spoofed_speech_is_pushed_from_its_source_and_from_the_anchor():
    """The cosines are 1 and -1 with the anchor, and 0 and 0 with the voiceprint."""
    item = [EAST, WEST, EAST, EAST, NORTH]
    weights = {"spoof_crop_weight": 0.25, "spoof_voiceprint_weight": 4.0}
    found = loss_of([item], [SPOOF], spoof_margin=0.2, slope=7.0, **weights)
    crops = (hinge(1.0, 0.2, 7.0) + hinge(-1.0, 0.2, 7.0)) / 2
    assert found.value.item() == pytest.approx(0.25 * crops + 4.0 * hinge(0.0, 0.2, 7.0), rel=1e-5)
    assert found.anchor_cosine.item() == 0.0  # no bona fide speech in the batch


def test_a_spoof_of_an_unknown_speaker_leaves_the_anchor_alone():
    found = loss_of([[EAST, EAST, EAST, NORTH, UNKNOWN]], [SPOOF], spoof_margin=0.0)
    crops = (hinge(1.0) + hinge(0.0)) / 2
    assert found.value.item() == pytest.approx(0.5 * crops, rel=1e-5)


def test_bona_fide_and_spoofed_speech_weigh_the_same_however_many_there_are():
    stays = [EAST, EAST, NORTH, NORTH, UNKNOWN]
    spoof = [EAST, EAST, EAST, EAST, EAST]
    one = loss_of([stays, spoof], [0, SPOOF])
    three = loss_of([stays, spoof, spoof, spoof], [0, SPOOF, SPOOF, SPOOF])
    assert one.value.item() == pytest.approx(three.value.item())


def test_gradient_vanishes_below_the_margin():
    """The gradient of a spoof at cosine -1 is small; with a steeper slope it is 0."""

    def gradient(slope):
        own = torch.tensor([[-0.8, 0.6]], requires_grad=True)
        rest = torch.tensor([[EAST, EAST, EAST]])
        embeddings = torch.cat((own[None].expand(1, 2, 2), rest), dim=1)
        head = make_loss("anchored", 2, CLASSES, own={"spoof_margin": 0.2, "slope": slope})
        head(embeddings, torch.tensor([SPOOF])).value.backward()
        return own.grad.norm().item()

    assert gradient(1000.0) == 0.0
    assert gradient(10.0) < 1e-3 < gradient(1.0)

"""Compares values with loops written from the formulas in the papers, and gradients with finite
differences; limits.
"""

import math

import numpy as np
import pytest
import torch

from sasv.losses import make_loss
from sasv.losses.spoof_head import LinearSpoofHead
from sasv.metrics import CostModel
from sasv.metrics.curve import Points
from sasv.scores import SpoofHead, TrialClasses

CLASSES = 6
DIMENSION = 4
SPOOF = CLASSES - 1
LABELS = torch.tensor([0, 3, 1, SPOOF, SPOOF])


def drawn(name, **own):
    """Return a loss in double precision, embeddings, and the unit vectors of both in numpy."""
    torch.manual_seed(3)
    head = make_loss(name, DIMENSION, CLASSES, own=own).double()
    embeddings = torch.randn(len(LABELS), 2, DIMENSION, dtype=torch.float64)
    return head, embeddings, unit(embeddings.numpy())


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def utterances(directions):
    """Yield (unit embedding, class) of each utterance of the batch."""
    for item, label in enumerate(LABELS.tolist()):
        for utterance in range(2):
            yield directions[item, utterance], label


def trials(directions):
    """Yield (cosine, kind, unit embedding of the test); the kinds are 0 target, 1 nontarget, 2
    spoof.
    """
    labels = LABELS.tolist()
    for enrolled, label in enumerate(labels):
        if label == SPOOF:
            continue
        for tested, other in enumerate(labels):
            kind = 2 if other == SPOOF else int(other != label)
            test = directions[tested, 1]
            yield directions[enrolled, 0] @ test, kind, test


def softplus(value):
    return math.log1p(math.exp(value))


def array(parameter):
    return parameter.detach().numpy()


def subcentre_loops(head, directions, margin, scale, top_k, penalty):
    weight = unit(array(head.weight))
    total = []
    for x, label in utterances(directions):
        angles = [math.acos(max(w @ x for w in centres)) for centres in weight]
        others = sorted((angle, c) for c, angle in enumerate(angles) if c != label)
        near = [c for _, c in others[:top_k]]
        logits = []
        for c, angle in enumerate(angles):
            shift = margin if c == label else -penalty if c in near else 0.0
            logits.append(scale * math.cos(angle + shift))
        total.append(math.log(sum(math.exp(z) for z in logits)) - logits[label])
    return np.mean(total)


def test_subcentre_aamsoftmax():
    head, embeddings, directions = drawn(
        "subcentre-aamsoftmax", subcentres=3, top_k=2, penalty=0.1, margin=0.3
    )
    expected = subcentre_loops(head, directions, 0.3, 30.0, 2, 0.1)
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, rel=1e-9)


def test_more_top_classes_than_there_are_penalise_all_others():
    head, embeddings, directions = drawn("subcentre-aamsoftmax", top_k=50, penalty=0.1)
    expected = subcentre_loops(head, directions, 0.2, 30.0, CLASSES - 1, 0.1)
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, rel=1e-9)


def test_one_subcentre_without_penalty_is_aamsoftmax():
    for off in ({"top_k": 0}, {"penalty": 0.0}):
        head, embeddings, _ = drawn("subcentre-aamsoftmax", subcentres=1, **off)
        plain = make_loss("aamsoftmax", DIMENSION, CLASSES).double()
        plain.weight.data = head.weight.data[:, 0]
        assert torch.equal(head(embeddings, LABELS).value, plain(embeddings, LABELS).value)


def test_without_margin_aamsoftmax_is_softmax_of_scaled_cosines():
    head, embeddings, directions = drawn(
        "subcentre-aamsoftmax", subcentres=1, top_k=0, margin=0.0, scale=7.0
    )
    logits = torch.tensor(
        7.0 * directions.reshape(-1, DIMENSION) @ unit(array(head.weight)[:, 0]).T
    )
    expected = torch.nn.functional.cross_entropy(logits, LABELS.repeat_interleave(2))
    torch.testing.assert_close(head(embeddings, LABELS).value, expected)


def test_the_dominant_subcentre_is_the_longest():
    head, _, _ = drawn("subcentre-aamsoftmax", subcentres=2)
    head.weight.data[:, 1] *= 10
    assert torch.equal(head.class_directions(head.state_dict()), head.weight[:, 1])


def sphereface2_loops(head, directions, margin, scale, balance, exponent):
    weight, bias = unit(array(head.weight)), float(head.bias.detach())
    total = []
    for x, label in utterances(directions):
        cost = 0.0
        for c, w in enumerate(weight):
            adjusted = 2 * ((w @ x + 1) / 2) ** exponent - 1
            if c == label:
                cost += balance / scale * softplus(-scale * (adjusted - margin) - bias)
            else:
                cost += (1 - balance) / scale * softplus(scale * (adjusted + margin) + bias)
        total.append(cost)
    return np.mean(total)


def test_sphereface2():
    head, embeddings, directions = drawn(
        "sphereface2", margin=0.1, scale=20.0, balance=0.6, exponent=2.5
    )
    expected = sphereface2_loops(head, directions, 0.1, 20.0, 0.6, 2.5)
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 4, 100, 100_000])
def test_the_bias_of_sphereface2_starts_where_the_loss_of_orthogonal_embeddings_is_least(classes):
    head = make_loss("sphereface2", 2, classes)
    head.weight.data = torch.tensor([[0.0, 1.0]]).repeat(classes, 1)
    head(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]), torch.tensor([0])).value.backward()
    assert head.bias.grad.item() == pytest.approx(0.0, abs=1e-5)


def test_ocsoftmax():
    head, embeddings, directions = drawn(
        "ocsoftmax", alpha=10.0, bona_fide_margin=0.8, spoof_margin=0.3
    )
    w = unit(array(head.spoof_head.weight))
    costs = [
        softplus(10.0 * ((0.8 - w @ x) if label != SPOOF else (w @ x - 0.3)))
        for x, label in utterances(directions)
    ]
    assert head(embeddings, LABELS).value.item() == pytest.approx(np.mean(costs), rel=1e-9)


def test_linear_spoof_head():
    _, embeddings, directions = drawn("softmax")
    head = LinearSpoofHead(DIMENSION).double()
    head.bias.data.fill_(0.3)
    of = {True: [], False: []}
    for x, label in utterances(directions):
        score = array(head.weight) @ x + 0.3
        of[label == SPOOF].append(softplus(score if label == SPOOF else -score))
    expected = (np.mean(of[True]) + np.mean(of[False])) / 2
    assert head(embeddings, LABELS == SPOOF).item() == pytest.approx(expected, rel=1e-9)
    only = head(embeddings[:3], torch.zeros(3, dtype=torch.bool)).item()
    assert only == pytest.approx(np.mean(of[False]) / 2, rel=1e-9)


def test_three_classes():
    head, embeddings, directions = drawn("three-class", classification_weight=0.0)
    w, a, b = (
        array(value)
        for value in (head.spoof_head.weight, head.trial_classes.weight, head.trial_classes.bias)
    )
    of = {0: [], 1: [], 2: []}
    for cosine, kind, test in trials(directions):
        logits = a @ [cosine, w @ test] + b
        of[kind].append(math.log(sum(np.exp(logits))) - logits[kind])
    assert [len(of[kind]) for kind in range(3)] == [3, 6, 6]
    expected = sum(np.mean(of[kind]) for kind in range(3)) / 3
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["three-class", "adcf"])
def test_classification_loss_is_added_to_the_trial_loss(name):
    head, embeddings, _ = drawn(name, classification_weight=0.5, margin=0.3)
    alone, _, _ = drawn(name, classification_weight=0.0)
    alone.load_state_dict(
        {k: v for k, v in head.state_dict().items() if not k.startswith("aamsoftmax")}
    )
    classified = head.aamsoftmax(embeddings, LABELS)
    assert head.aamsoftmax.margin == 0.3
    expected = 0.5 * classified.value + alone(embeddings, LABELS).value
    torch.testing.assert_close(head(embeddings, LABELS).value, expected)


def test_llr_of_three_classes_equals_that_of_the_posteriors():
    head, embeddings, directions = drawn("three-class", classification_weight=0.0)
    weight, bias = head.trial_classifier(head.state_dict())
    classes = TrialClasses(array(weight), array(bias))
    direction, offset = head.countermeasure(head.state_dict())
    cm_scores = SpoofHead(direction.numpy(), offset).scores(embeddings[:, 1].numpy())
    cosines = np.array([directions[0, 0] @ directions[tested, 1] for tested in range(len(LABELS))])
    for share in (0.0, 0.2, 1.0):
        for cosine, score, found in zip(cosines, cm_scores, classes.llr(cosines, cm_scores, share)):
            target, nontarget, spoof = np.exp(array(weight) @ [cosine, score] + array(bias))
            expected = math.log(target / ((1 - share) * nontarget + share * spoof))
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_the_llr_is_calibrated():
    """If the features of all classes are normally distributed with the same covariance, the trained
    logits give the true ratio.
    """
    rng = np.random.default_rng(0)
    means = np.array([[0.6, 1.0], [0.0, 1.0], [0.5, -1.0]])
    deviation = np.array([0.2, 1.0])
    features = means[:, None] + deviation * rng.standard_normal((3, 4000, 2))
    head, _, _ = drawn("three-class")
    classifier = head.trial_classes
    tensor = torch.tensor(features)
    kinds = torch.arange(3).repeat_interleave(4000)
    optimiser = torch.optim.LBFGS(
        classifier.parameters(), max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        logits = classifier(tensor[..., 0], tensor[..., 1]).flatten(0, 1)
        value = torch.nn.functional.cross_entropy(logits, kinds)
        value.backward()
        return value

    optimiser.step(closure)
    classes = TrialClasses(array(classifier.weight), array(classifier.bias))
    points = features.reshape(-1, 2)[::500]
    likelihood = [np.exp(-(((points - mean) / deviation) ** 2).sum(axis=1) / 2) for mean in means]
    expected = np.log(likelihood[0] / (0.5 * likelihood[1] + 0.5 * likelihood[2]))
    np.testing.assert_allclose(classes.llr(points[:, 0], points[:, 1]), expected, atol=0.5)


def test_adcf():
    own = {"slope": 8.0, "target_prior": 0.8, "nontarget_prior": 0.15, "miss_cost": 2.0}
    head, embeddings, directions = drawn("adcf", classification_weight=0.0, **own)
    head.threshold.data.fill_(0.2)
    of = {0: [], 1: [], 2: []}
    for cosine, kind, _ in trials(directions):
        accepted = 1 / (1 + math.exp(-8.0 * (cosine - 0.2)))
        of[kind].append(1 - accepted if kind == 0 else accepted)
    cost = 2.0 * 0.8 * np.mean(of[0]) + 10 * 0.15 * np.mean(of[1]) + 20 * 0.05 * np.mean(of[2])
    expected = cost / min(2.0 * 0.8, 10 * 0.15 + 20 * 0.05)
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, rel=1e-9)


def test_soft_adcf_with_a_steep_slope_equals_the_adcf():
    head, embeddings, directions = drawn("adcf", classification_weight=0.0, slope=1e5)
    head.threshold.data.fill_(0.1)
    cosines, kinds, _ = zip(*trials(directions))
    model = CostModel("a-dcf-paper", 0.9, 0.05, 0.05, 1, 10, 20)
    expected = model.actual(Points(np.array(cosines), np.array(kinds)).curve(), 0.1).value
    assert head(embeddings, LABELS).value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("aamsoftmax", {}),
        ("subcentre-aamsoftmax", {"scale": 5.0, "top_k": 2}),
        ("sphereface2", {"scale": 5.0}),
        ("ocsoftmax", {"alpha": 3.0}),
        ("three-class", {"scale": 5.0}),
        ("adcf", {"slope": 3.0, "scale": 5.0}),
    ],
)
def test_gradients_equal_finite_differences(name, own):
    head, embeddings, _ = drawn(name, **own)
    names = [key for key, _ in head.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in head.parameters()]

    def value(x, *parameters):
        return torch.func.functional_call(head, dict(zip(names, parameters)), (x, LABELS)).value

    assert torch.autograd.gradcheck(value, (embeddings.requires_grad_(), *values))


@pytest.mark.parametrize("name", ["three-class", "adcf"])
def test_a_batch_without_bona_fide_pairs_has_no_trials(name):
    head, embeddings, _ = drawn(name, classification_weight=0.0)
    value = head(embeddings.requires_grad_(), torch.full((5,), SPOOF)).value
    value.backward()
    assert value.item() == 0.0 and not embeddings.grad.any()

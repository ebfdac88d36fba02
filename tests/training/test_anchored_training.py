"""Training with an anchor: the frozen copy and its voiceprints, what does not change, and when the
training ends.
"""

import csv

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import tiny_options, train_until
from sasv.checkpoints import load_checkpoint
from sasv.commands import train
from sasv.core.errors import SasvError
from sasv.embeddings.model import Model, load_model
from sasv.parallel.processes import Processes
from sasv.training.build import build_trainer
from sasv.training.modules import as_pairs, flat_pairs

PUSH = {"spoof_crop_weight": 2.0, "spoof_voiceprint_weight": 2.0}


def anchored(corpus, trained, out, **changes):
    """Options of an anchored training from the tiny trained model."""
    values = {
        "where": "",
        "loss": "anchored",
        "spoof_pairs": 2,
        "init": str(trained / "model.safetensors"),
        "encoder_options": {},
        "freeze_batch_norm": True,
        "augment": False,
        "epochs": 2,
        "cycle_epochs": 2,
        "max_lr": 1e-4,
    }
    return tiny_options(corpus, out, **(values | changes))


def log(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def same(one, two):
    return all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder)


@pytest.fixture(scope="module")
def run(corpus, trained, tmp_path_factory):
    """Folder of an anchored run."""
    out = tmp_path_factory.mktemp("anchored")
    train(anchored(corpus, trained, out))
    return out


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(corpus, trained, run, tmp_path, monkeypatch):
    train_until(monkeypatch, anchored(corpus, trained, tmp_path), 1)
    resumed = train(anchored(corpus, trained, tmp_path))
    assert same(load_checkpoint(resumed), load_checkpoint(run / "model.safetensors"))


@pytest.mark.slow
def test_batch_norm_statistics_are_those_of_the_checkpoint(trained, run):
    before = load_checkpoint(trained / "model.safetensors").encoder
    after = load_checkpoint(run / "model.safetensors").encoder
    statistics = [key for key in before if "running_" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
def test_averaged_weights_keep_the_statistics_too(corpus, trained, tmp_path):
    options = anchored(corpus, trained, tmp_path, weight_average="ema", epochs=1)
    before = load_checkpoint(trained / "model.safetensors").encoder
    after = load_checkpoint(train(options)).encoder
    assert all(torch.equal(before[key], after[key]) for key in before if "running_" in key)


@pytest.mark.slow
def test_drift_is_logged(corpus, trained, run, tmp_path, capsys):
    train(anchored(corpus, trained, tmp_path, epochs=1))
    assert "bona fide at cosine" in capsys.readouterr().err
    cosines = [float(row["anchor_cosine"]) for row in log(run)]
    assert all(0.5 < cosine <= 1 for cosine in cosines)


def test_loss_receives_frozen_embeddings_and_voiceprints_of_imitated_speakers(
    corpus, trained, tmp_path
):
    trainer = build_trainer(anchored(corpus, trained, tmp_path))
    system = trainer.engine.system
    system.anchor.prepare(tmp_path / "voiceprints", Processes())
    twin = load_model(trained / "model.safetensors", "cpu")
    data = trainer.data
    seen = {}

    def total(embeddings, labels):
        seen.update(embeddings=embeddings, labels=labels)
        return system.head(embeddings, labels)

    system.head.total = total
    plan = data.plan(0)
    with data.batches(plan, 0) as batches:
        waves, labels = next(batches)
    system.train()(waves, labels, len(labels))
    with torch.no_grad():
        expected = as_pairs(twin.encoder(flat_pairs(waves)))
    torch.testing.assert_close(seen["embeddings"][:, 2:4], expected)
    assert seen["labels"].max() == data.spoof_index
    names = [data.utterances.table.texts("speaker")[row] for row in plan.rows[0, :, 0]]
    assert any(label == data.spoof_index for label in seen["labels"].tolist())
    for item, name in enumerate(names):
        bona_fide = (np.array(data.utterances.table.texts("speaker")) == name) & (
            ~data.utterances.spoofed
        )
        units = [
            F.normalize(torch.from_numpy(twin.embed(data.utterances.path(row))), dim=0)
            for row in np.flatnonzero(bona_fide)
        ]
        voiceprint = F.normalize(torch.stack(units).sum(dim=0), dim=0)
        torch.testing.assert_close(seen["embeddings"][item, 4], voiceprint, rtol=1e-3, atol=1e-4)


def test_a_speaker_without_bona_fide_speech_has_no_voiceprint(corpus, trained, tmp_path):
    anchor = build_trainer(anchored(corpus, trained, tmp_path)).engine.system.anchor
    anchor.prepare(tmp_path / "voiceprints", Processes())
    found = anchor.voiceprints_of(torch.tensor([0, len(anchor.voiceprints), -1]))
    assert found[0].norm() == pytest.approx(1.0) and not found[1:].any()


def test_frozen_copy_is_unchanged_and_not_saved(trained, run):
    state = torch.load(run / "state.pt", weights_only=True)
    assert all(key.startswith(("encoder.", "head.")) for key in state["system"])
    own = Model(load_checkpoint(run / "model.safetensors")).fingerprint
    assert own != load_model(trained / "model.safetensors", "cpu").fingerprint


@pytest.mark.slow
def test_training_ends_where_bona_fide_speech_has_drifted_too_far(
    corpus, trained, tmp_path, capsys
):
    """The learning rate rises from epoch to epoch, and so does the drift."""
    changes = {
        "epochs": 4,
        "cycle_epochs": 9,
        "warmup_epochs": 8,
        "max_lr": 1e-2,
        "loss_options": PUSH,
        "dev_enrolments": "",
        "dev_trials": "",
    }
    train(anchored(corpus, trained, tmp_path / "free", **changes))
    cosines = [float(row["anchor_cosine"]) for row in log(tmp_path / "free")]
    assert cosines[0] > cosines[1] > cosines[2]
    bound = (cosines[1] + cosines[2]) / 2
    options = anchored(corpus, trained, tmp_path / "bound", min_anchor_cosine=bound, **changes)
    model = train(options)
    assert "the model is that of epoch 2" in capsys.readouterr().err
    assert len(log(tmp_path / "bound")) == 3
    assert load_checkpoint(model).specification.training["epoch"] == 2
    again = train(options)  # nothing is left to do
    assert len(log(tmp_path / "bound")) == 3
    assert same(load_checkpoint(again), load_checkpoint(model))


def test_drift_in_the_first_epoch_is_an_error(corpus, trained, tmp_path):
    options = anchored(corpus, trained, tmp_path, min_anchor_cosine=1.0)
    with pytest.raises(SasvError, match="no model of an earlier epoch; lower --max-lr"):
        train(options)


def test_anchor_options_are_checked(corpus, trained, tmp_path):
    with pytest.raises(SasvError, match="give its checkpoint with --init"):
        build_trainer(anchored(corpus, trained, tmp_path, init=""))
    with pytest.raises(SasvError, match="--min-anchor-cosine bounds the drift"):
        build_trainer(tiny_options(corpus, tmp_path, min_anchor_cosine=0.9))

"""Training options beyond the published recipe."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import SMALL, make_corpus, tiny_options, train_until
from sasv import cli
from sasv.audio import codecs, write_audio
from sasv.batches.augment import Augmenter
from sasv.checkpoints import load_checkpoint
from sasv.commands import TrainOptions, train
from sasv.core.errors import SasvError
from sasv.embeddings.model import Model
from sasv.encoders.memory_format import use_channels_last
from sasv.parallel.processes import Processes
from sasv.training.averages import Averages
from sasv.training.build import build_trainer
from sasv.training.modules import flat_pairs
from sasv.training.run_folder import RunFolder


def log(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def same(one, two):
    return all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder)


def stepped(engine, seed):
    torch.manual_seed(seed)
    engine.backward(0.1 * torch.randn(4, 2, 8000), torch.tensor([0, 1, 2, 3]), 4)
    engine.step(0)
    return [parameter.detach().clone() for parameter in engine.system.parameters()]


def test_ema_is_the_hand_computed_average(corpus, tmp_path):
    engine = build_trainer(
        tiny_options(corpus, tmp_path, weight_average="ema", ema_decay=0.75)
    ).engine
    seen = [stepped(engine, seed) for seed in range(3)]
    for index, parameter in enumerate(engine.averages.model.module.parameters()):
        one, two, three = (weights[index] for weights in seen)
        torch.testing.assert_close(parameter, 0.75 * (0.75 * one + 0.25 * two) + 0.25 * three)


def test_swa_is_the_mean_over_epochs_from_the_first_that_counts(corpus, tmp_path):
    engine = build_trainer(
        tiny_options(corpus, tmp_path, weight_average="swa", average_start_epoch=1)
    ).engine
    seen = []
    for epoch in range(3):
        seen.append(stepped(engine, epoch))
        engine.averages.after_epoch(engine.system, epoch)
    for index, parameter in enumerate(engine.averages.model.module.parameters()):
        torch.testing.assert_close(
            parameter, (seen[1][index] + seen[2][index]) / 2, rtol=1e-5, atol=1e-7
        )


def test_averaged_weights_get_batch_norm_statistics_of_their_own(corpus, tmp_path):
    engine = build_trainer(tiny_options(corpus, tmp_path, augment=False)).engine
    averages = Averages(engine.system, "ema", 0.9, 0)
    averages.after_step(engine.system, 0)
    waves = 0.1 * torch.randn(6, 2, 8000)
    batches = [(waves[:3], torch.tensor([0, 1, 2])), (waves[3:], torch.tensor([3, 4, 5]))]
    encoder = averages.system(batches, torch.device("cpu"), Processes()).encoder
    # the first batch norm sees the convolution of the features of all batches, whose means count
    # alike
    seen = []
    for part, _ in batches:
        features = encoder.torchfbank(flat_pairs(part))
        seen.append(F.relu(encoder.conv1(features)).mean(dim=(0, 2)))
    torch.testing.assert_close(
        encoder.bn1.running_mean, (seen[0] + seen[1]) / 2, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.slow
def test_the_averaged_weights_are_evaluated_and_saved_and_survive_a_stop(
    corpus, tmp_path, monkeypatch, kind
):
    changes = {
        "weight_average": kind,
        "ema_decay": 0.8,
        "average_start_epoch": 1,
        "batch_norm_batches": 2,
    }
    model = train(tiny_options(corpus, tmp_path / "whole", **changes))
    rows, saved = log(tmp_path / "whole"), load_checkpoint(model)
    trainer = build_trainer(tiny_options(corpus, tmp_path / "whole", **changes))
    found = trainer.development.evaluate(Model(saved, "cpu"), Processes())["sasv_eer"]
    epoch = saved.specification.training["epoch"]
    assert found == pytest.approx(float(rows[epoch - 1]["sasv_eer"]))
    assert saved.specification.training["average"] == (kind if epoch > 1 else "none")
    train_until(monkeypatch, tiny_options(corpus, tmp_path / "cut", **changes), 2)
    assert same(saved, load_checkpoint(train(tiny_options(corpus, tmp_path / "cut", **changes))))
    states = [
        torch.load(tmp_path / run / "state.pt", weights_only=True)["averages"]
        for run in ("whole", "cut")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.long
@pytest.mark.slow
def test_a_compiled_encoder_trains_to_the_same_losses(corpus, trained, tmp_path):
    train(tiny_options(corpus, tmp_path, compile=True, epochs=1, augment=False))
    train(tiny_options(corpus, tmp_path / "eager", epochs=1, augment=False))
    compiled, eager = (float(log(run)[0]["loss"]) for run in (tmp_path, tmp_path / "eager"))
    assert compiled == pytest.approx(eager, rel=1e-3)


def test_missing_compiler_is_reported(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SasvError, match="--compile needs a C.. compiler"):
        build_trainer(tiny_options(corpus, tmp_path, compile=True))


@pytest.mark.slow
def test_a_model_trained_in_the_channels_last_format_is_saved_as_usual(corpus, tmp_path):
    changes = {"encoder": "ska-tdnn", "encoder_options": SMALL["ska-tdnn"]}
    trainer = build_trainer(tiny_options(corpus, tmp_path / "run", epochs=1, **changes))
    encoder = trainer.engine.system.encoder
    use_channels_last(encoder)
    assert encoder.frt_conv2.weight.is_contiguous(memory_format=torch.channels_last)
    saved = load_checkpoint(trainer.run()).encoder
    assert saved["frt_conv2.weight"].is_contiguous()


@pytest.mark.slow
def test_tensorboard_holds_the_curves(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny_options(corpus, tmp_path, tensorboard=True, batches_per_epoch=12, epochs=2))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert {"step/loss", "step/accuracy", "step/lr", "epoch/loss", "epoch/sasv_eer"} <= set(
        board.Tags()["scalars"]
    )
    losses = [event.value for event in board.Scalars("epoch/loss")]
    assert losses == pytest.approx([float(row["loss"]) for row in log(tmp_path)], rel=1e-5)
    assert [event.step for event in board.Scalars("step/loss")] == [10, 22]


def test_missing_tensorboard_is_reported(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SasvError, match=r"--tensorboard needs tensorboard.*sasv\[tensorboard\]"):
        train(tiny_options(corpus, tmp_path, tensorboard=True))


@pytest.mark.slow
def test_resuming_with_changed_options_if_allowed(corpus, trained, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    changed = {"epochs": 4, "max_lr": 1e-4, "optimiser": "sgd"}
    with pytest.raises(
        SasvError, match=r"max_lr was 0.002, now 0.0001; optimiser was 'adamw'.*--allow-changed"
    ):
        train(tiny_options(corpus, run, **changed))
    train(tiny_options(corpus, run, **changed, allow_changed=True))
    said = capsys.readouterr().err
    assert "going on with changed options: max_lr was 0.002, now 0.0001" in said
    assert "the optimiser starts again without its previous state" in said
    assert [row["epoch"] for row in log(run)] == ["1", "2", "3", "4"]
    assert json.loads((run / "options.json").read_text())["max_lr"] == 1e-4
    with pytest.raises(SasvError, match="belongs to another model, or is damaged"):
        train(
            tiny_options(
                corpus,
                run,
                encoder_options=SMALL["ecapa-tdnn"] | {"channels": 64},
                allow_changed=True,
            )
        )


def test_the_saved_options_are_a_configuration(corpus, trained):
    assert cli.parse("train", [str(trained / "options.json")]) == tiny_options(corpus, trained)


@pytest.mark.slow
def test_margin_grows_from_the_start_value(corpus, tmp_path):
    margins = {"margin_start": 0.2, "margin": 0.5, "margin_warmup_epochs": 2, "epochs": 1}
    trainer = build_trainer(tiny_options(corpus, tmp_path, **margins))
    trainer.run()
    assert trainer.engine.system.head.aamsoftmax.margin == pytest.approx(0.3)


@pytest.mark.slow
def test_a_full_disk_does_not_end_the_run(corpus, tmp_path, monkeypatch, capsys):
    """The state of the second epoch cannot be written, so the first one remains, and the run
    continues.
    """
    original = RunFolder.save

    def full(self, state, history):
        if state["epoch"] == 2:
            raise SasvError(f"{self.state}: cannot write: the disk is full")
        original(self, state, history)

    monkeypatch.setattr(RunFolder, "save", full)
    model = train(tiny_options(corpus, tmp_path))
    assert "not saved, going on: " in capsys.readouterr().err
    assert len(log(tmp_path)) == 3
    assert load_checkpoint(model).specification.threshold is not None


@pytest.mark.slow
def test_files_deleted_during_training_are_reported_and_skipped(tmp_path, capsys):
    """Speech and noise files; the run continues with the remaining ones."""
    own = make_corpus(tmp_path / "corpus")
    write_audio(own / "noise" / "n.wav", 0.1 * np.ones(16000, np.float32))
    options = tiny_options(own, tmp_path / "run", noises=str(own / "noise"), epochs=2)
    trainer = build_trainer(options)
    (own / "noise" / "n.wav").unlink()
    for number in range(6):
        (own / "audio" / f"s0-{number}.wav").unlink()
    model = trainer.run()
    said = capsys.readouterr().err
    assert "left out: " in said and "n.wav" in said and "s0-" in said
    assert all(torch.isfinite(value).all() for value in load_checkpoint(model).encoder.values())


def test_a_share_of_the_crops_is_augmented_and_noise_can_be_milder(tmp_path):
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "noise.wav", 0.1 * rng.standard_normal(32000).astype(np.float32))
    wave = rng.standard_normal(8000).astype(np.float32)
    mild = Augmenter(str(tmp_path), augment_share=0.25, snr_offset=20.0)
    mild.choices = ["noise"]
    changed = []
    for _ in range(200):
        noise = mild(wave, rng) - wave
        if noise.any():
            changed.append(10 * np.log10(np.square(wave).mean() / np.square(noise).mean()))
    assert 30 <= len(changed) <= 70
    assert 19.9 < min(changed) < 24 and 31 < max(changed) < 35.1


@pytest.mark.slow
def test_training_with_augmentation_on_the_device_is_that_of_the_cpu(corpus, tmp_path):
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(32000).astype(np.float32)
    write_audio(tmp_path / "noise" / "noise.wav", noise)
    losses = []
    for where, num_workers in (("cpu", 0), ("device", 1)):
        options = tiny_options(
            corpus,
            tmp_path / where,
            epochs=1,
            noises=str(tmp_path / "noise"),
            augment_on=where,
            num_workers=num_workers,
        )
        train(options)
        with open(tmp_path / where / "metrics.csv") as stream:
            losses.append(float(next(csv.DictReader(stream))["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_level_is_drawn_within_its_range_and_clipped():
    rng = np.random.default_rng(0)
    wave = np.full(1000, 0.5, np.float32)
    augmenter = Augmenter(level_range=12.0)
    augmenter.choices = ["none"]
    peaks = [float(augmenter(wave, rng).max()) for _ in range(200)]
    assert 10 ** (-12 / 20) * 0.5 <= min(peaks) < 0.15 and max(peaks) == 1.0
    assert sorted(peaks)[100] == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("name", codecs.CODECS)
def test_codecs_keep_length_and_place_and_change_the_sound(voice, name):
    wave = voice(32240)
    coded = codecs.transmit(wave, name, np.random.default_rng(0))
    assert coded.shape == wave.shape and coded.dtype == np.float32
    assert 0.5 < np.abs(coded).max() / np.abs(wave).max() < 1.6
    assert not np.array_equal(coded, wave)
    gate = np.repeat(
        np.random.default_rng(2).random(403) > 0.5, 80
    )  # on and off in steps of 5 ms: a place in time
    sent, received = (
        np.square(part).reshape(-1, 20).mean(axis=1)
        for part in (wave * gate, codecs.transmit(wave * gate, name, np.random.default_rng(0)))
    )
    shifts = {
        shift: float(np.dot(received[100:1500], sent[100 + shift : 1500 + shift]))
        for shift in range(-60, 61)
    }
    assert abs(max(shifts, key=shifts.get)) <= 2  # steps of 20 samples
    again = codecs.transmit(wave, name, np.random.default_rng(0))
    assert np.array_equal(coded, again)
    if name in ("8khz", "mulaw", "alaw", "amr"):
        noise = np.random.default_rng(1).standard_normal(16000).astype(np.float32) * 0.1
        power = np.abs(np.fft.rfft(codecs.transmit(noise, name, np.random.default_rng(0)))) ** 2
        assert power[4500:].sum() < 0.02 * power.sum()


def test_companding_matches_g711():
    """The error of 8-bit companding is about 38 dB below the signal, whether loud or quiet."""
    rng = np.random.default_rng(0)
    for name in ("mulaw", "alaw"):
        for level in (0.3, 0.03):
            wave = (level * rng.standard_normal(32000)).clip(-1, 1).astype(np.float32)
            plain, coded = (codecs.transmit(wave, kind, rng) for kind in ("8khz", name))
            ratio = 10 * np.log10(np.square(plain).mean() / np.square(plain - coded).mean())
            assert 33 < ratio < 42


def test_codecs_are_drawn_with_their_share(voice, monkeypatch):
    wave = voice(8000)
    augmenter = Augmenter(codecs=["8khz", "mulaw"], codec_share=0.25)
    augmenter.choices = ["none"]
    changed = sum(
        not np.array_equal(augmenter(wave, np.random.default_rng(seed)), wave)
        for seed in range(200)
    )
    assert 30 < changed < 70
    assert augmenter.described() == ["none", "8khz", "mulaw"]
    with pytest.raises(SasvError, match="unknown codec 'gsm'"):
        Augmenter(codecs=["gsm"])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SasvError, match=r"the codec opus needs PyAV.*sasv\[m4a\]"):
        Augmenter(codecs=["opus"])


@pytest.mark.slow
def test_codecs_train(corpus, tmp_path):
    model = train(tiny_options(corpus, tmp_path, codecs=list(codecs.CODECS), epochs=1))
    assert all(torch.isfinite(value).all() for value in load_checkpoint(model).encoder.values())


GOLDEN = {
    "aamsoftmaxproto": [12.4402, 10.7771, 9.5551, 7.7228],
    "sasv": [13.3270, 12.7534, 10.8589, 7.5797],
}
"""Loss of each epoch of two tiny runs; whatever changes them changes training. Other instruction
sets: within 0.3 %.
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", list(GOLDEN))
def test_the_golden_loss_curve(corpus, tmp_path, loss):
    spoofed = {"where": "", "spoof_pairs": 2} if loss == "sasv" else {}
    size = {
        "epochs": 4,
        "cycle_epochs": 4,
        "batches_per_epoch": 4,
        "pairs": 6,
        "crop_frames": 100,
        "max_lr": 5e-4,
    }
    train(tiny_options(corpus, tmp_path, loss=loss, **size, **spoofed))
    assert [float(row["loss"]) for row in log(tmp_path)] == pytest.approx(GOLDEN[loss], rel=5e-3)


def test_a_configuration_with_the_old_names_is_read_with_a_notice(tmp_path, caplog):
    old = [
        "highest: 1.0e-4",
        "lowest: 0.0",
        "cycle: 8",
        "warmup: 0",
        "speakers: 40",
        "spoofs: 40",
        "most: 600",
    ]
    old += [
        "batches: paper",
        "frames: 500",
        "workers: 8",
        "sizes: {channels: 256}",
        "utterances: u.tsv",
        "out: run",
    ]
    (tmp_path / "old.yaml").write_text("\n".join(old) + "\n")
    options = cli.parse("train", [str(tmp_path / "old.yaml"), "--clip", "5", "--gather"])
    expected = TrainOptions(
        utterances="u.tsv",
        out="run",
        max_lr=1e-4,
        min_lr=0.0,
        cycle_epochs=8,
        warmup_epochs=0,
        pairs=40,
        spoof_pairs=40,
        max_utterances_per_speaker=600,
        crop_frames=500,
        num_workers=8,
        encoder_options={"channels": 256},
        max_grad_norm=5.0,
        gather_batches=True,
    )
    assert options == expected
    assert "--clip is now --max-grad-norm" in caplog.text

"""Shared fixtures, and the rule that a continuous-integration run fails on a skip that nobody
expects.

Real speech is in the folder ``shared/`` next to the checkout. Tests that need it have the marker
``speech`` and are skipped without it.
"""

import base64
import importlib
import importlib.util
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from sasv.encoders import ENCODERS, preset
from sasv.vocoders import VOCODERS

pytest_plugins = ("serving",)

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = Path(__file__).resolve().parent / "data"
"""Golden vectors and lists of keys, made by running the published code and that of other toolkits
(see README.md).
"""
PUBLISHED_NAMES = {
    "ecapa-tdnn": "ECAPA_TDNN",
    "ska-tdnn": "SKA_TDNN",
    "mfa-conformer": "MFA_Conformer",
}

BLANK_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGP4DwQACfsD/fteaysAAAAASUVORK5CYII="
)

SMALL = {name: preset(name, "test") for name in PUBLISHED_NAMES}


def shared(*parts: str) -> Path:
    """Return a path below shared/; skip the test if it does not exist."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"needs {path.relative_to(SHARED.parent)} beside the checkout, which is missing here"
        )
    return path


@pytest.fixture(autouse=True)
def shown_messages():
    """Print the log messages of the library on standard error, as the command line does."""
    from sasv.cli.messages import messages

    with messages():
        yield


@pytest.fixture(scope="module")
def small_runs():
    """Make runs at tiny scale take only a few seconds: the preset "tiny" of each encoder is
    replaced by its preset "test". Vocoders, plots, intervals, and costs, which have separate tests,
    do almost nothing.
    """
    intervals = importlib.import_module("sasv.metrics.intervals")  # there is a function, too

    def few(labels, speakers, repeats, seed, resamples=intervals.resamples):
        return resamples(labels, speakers, min(repeats, 20), seed)

    def of_few(samples, repeats, level, percentiles=intervals.percentiles):
        return percentiles(samples, min(repeats, 20), level)

    with pytest.MonkeyPatch.context() as patch:
        for name in ENCODERS:
            presets = ENCODERS.get(name).presets
            patch.setitem(presets, "tiny", presets["test"])
        for name in ("griffin-lim", "source-filter", "world"):
            patch.setattr(VOCODERS.get(name), "resynthesise", lambda self, wave, seed: 0.9 * wave)
        patch.setattr("sasv.report.canvas.render", lambda figure, dots=100: BLANK_PNG)
        for name in ("plots", "sections.curves", "sections.embeddings"):
            patch.setattr(f"sasv.report.{name}.attempt", lambda draw, *arguments: BLANK_PNG)
        patch.setattr("sasv.report.page.text_image", lambda text: BLANK_PNG)
        patch.setattr("sasv.reproduction.plans.gflop", lambda name, options: 1.0)
        patch.setattr(intervals, "resamples", few)
        patch.setattr(intervals, "percentiles", of_few)
        yield


@pytest.fixture(scope="session")
def golden():
    return np.load(DATA / "golden.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def peers():
    """Embeddings and features of encoders of other toolkits."""
    return np.load(DATA / "peers" / "embeddings.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def fill():
    """The module that generates the inputs of the golden vectors."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published_keys():
    """Entry name -> shape of each published checkpoint."""
    listed = json.loads((DATA / "state_dict_keys.json").read_text())
    return {
        model: {key: tuple(shape) for key, shape, _ in entries} for model, entries in listed.items()
    }


def buzz(
    samples: int,
    pitch: float = 120.0,
    seed: int | np.random.Generator = 0,
    noise: float = 0.01,
    vibrato: float = 0.0,
) -> np.ndarray:
    """Return a buzzing "voice" of nine harmonics and noise: float32 at 16 kHz, (samples,).

    Args:
        samples: length. pitch: fundamental frequency in Hz; it tells one "speaker" from another.
        seed: random seed of the noise, or a random generator.
        noise: standard deviation of the noise.
        vibrato: largest relative deviation of the pitch, 2.5 times a second.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    phase = (
        2
        * np.pi
        * pitch
        * (time + vibrato * (1 - np.cos(2 * np.pi * 2.5 * time)) / (2 * np.pi * 2.5))
    )
    wave = sum(np.sin(k * phase) / k for k in range(1, 10))
    return (0.1 * wave + noise * rng.standard_normal(samples)).astype(np.float32)


@pytest.fixture
def voice():
    """A function (samples, seed) -> float32 waveform at 16 kHz that resembles a voice."""

    def make(samples: int, seed: int = 0) -> np.ndarray:
        return 0.5 * buzz(samples, seed=seed, vibrato=0.1)

    return make


def make_corpus(root: Path, speakers: int = 8, utterances: int = 6, seconds: float = 1.2) -> Path:
    """Write a tiny corpus of buzzing "speakers" with tables, enrolments, and trials. The spoofs are
    noisy copies.
    """
    from sasv.audio import write_audio
    from sasv.tables import Table

    rows, trials = [], []
    for speaker in range(speakers):
        for number in range(utterances):
            rng = np.random.default_rng([speaker, number])
            pitch = 90 + 25 * speaker + 4 * rng.standard_normal()
            wave = buzz(int(seconds * 16000), pitch, rng)
            name = f"s{speaker}-{number}"
            write_audio(root / "audio" / f"{name}.wav", wave)
            rows.append(
                (
                    name,
                    f"audio/{name}.wav",
                    f"s{speaker}",
                    "train" if speaker < 6 else "dev",
                    "bonafide",
                    "-",
                )
            )
            if speaker < 6 or number < 2:
                continue
            copy = f"{name}~noise"
            write_audio(
                root / "audio" / f"{copy}.wav",
                wave + 0.1 * rng.standard_normal(len(wave)).astype(np.float32),
            )
            rows.append((copy, f"audio/{copy}.wav", f"s{speaker}", "dev", "spoof", "noise"))
            other = f"s{speakers - 1 if speaker == 6 else 6}"
            trials += [(f"s{speaker}", name, "target", "-"), (other, name, "nontarget", "-")]
            trials.append((f"s{speaker}", copy, "spoof", "noise"))
    columns = ("utterance", "path", "speaker", "split", "label", "attack")
    Table.build(dict(zip(columns, zip(*rows)))).save(root / "utterances.tsv")
    Table.build(dict(zip(("speaker", "utterance", "label", "attack"), zip(*trials)))).save(
        root / "trials_dev.tsv"
    )
    enrolments = {f"s{speaker}": f"s{speaker}-0,s{speaker}-1" for speaker in range(6, speakers)}
    Table.build({"speaker": list(enrolments), "utterances": list(enrolments.values())}).save(
        root / "enrolments_dev.tsv"
    )
    return root


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The tiny corpus, shared by all tests, which must not change it."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Tiny versions of VoxCeleb2, ASVspoof2019 LA, and ASVspoof 5 with buzzing speakers, in the
    layout in which these are distributed. Tests must not change them.
    """
    from sasv.audio import write_audio

    root = tmp_path_factory.mktemp("corpora")
    seeds = itertools.count()

    def voice(path, pitch, noise=0.01):
        write_audio(path, buzz(16000, pitch, next(seeds), noise))

    for speaker in range(6):
        for number in range(4):
            voice(root / f"vox2/dev/aac/id{speaker:05}/v/{number:05}.wav", 90 + 20 * speaker)
    la = root / "la" / "LA"
    lists = {"train": [], "dev": [], "eval": []}
    asv = {"dev": [], "eval": []}
    enrol = {"dev": [], "eval": []}
    for part, letter, count in (("train", "T", 4), ("dev", "D", 4), ("eval", "E", 4)):
        for speaker in range(count):
            name = f"LA_{part[0]}{speaker}"
            for number in range(6):
                file = f"LA_{letter}_{speaker}{number}"
                spoofed = number >= 4
                attack = ("A01" if part != "eval" else "A07") if spoofed else "-"
                voice(
                    la / f"ASVspoof2019_LA_{part}/flac/{file}.flac",
                    100 + 17 * speaker,
                    0.1 if spoofed else 0.01,
                )
                lists[part].append(f"{name} {file} - {attack} {'spoof' if spoofed else 'bonafide'}")
                if part == "train":
                    continue
                if number < 2:
                    enrol[part].append((name, file))
                    continue
                label = "spoof" if spoofed else "target"
                asv[part].append(f"{name} {file} {attack if spoofed else 'bonafide'} {label}")
                if not spoofed:
                    asv[part].append(
                        f"LA_{part[0]}{(speaker + 1) % count} {file} bonafide nontarget"
                    )
    cm, asv_folder = la / "ASVspoof2019_LA_cm_protocols", la / "ASVspoof2019_LA_asv_protocols"
    cm.mkdir()
    asv_folder.mkdir()
    for part, suffix in (("train", "trn"), ("dev", "trl"), ("eval", "trl")):
        (cm / f"ASVspoof2019.LA.cm.{part}.{suffix}.txt").write_text("\n".join(lists[part]) + "\n")
    for part in ("dev", "eval"):
        (asv_folder / f"ASVspoof2019.LA.asv.{part}.gi.trl.txt").write_text(
            "\n".join(asv[part]) + "\n"
        )
        for gender, rest in (("female", 0), ("male", 1)):
            names = sorted({name for name, _ in enrol[part]})[rest::2]
            rows = [
                f"{name} {','.join(file for who, file in enrol[part] if who == name)}"
                for name in names
            ]
            (asv_folder / f"ASVspoof2019.LA.asv.{part}.{gender}.trn.txt").write_text(
                "\n".join(rows) + "\n"
            )
    a5 = root / "asvspoof5"
    for part, letter, folder in (
        ("train", "T", "flac_T"),
        ("dev", "D", "flac_D"),
        ("eval", "E", "flac_E_eval"),
    ):
        rows, trials, enrolled = [], [], []
        for speaker in range(4):
            who = f"{letter}_{speaker}"
            for number in range(5):
                file, spoofed = f"{letter}_000{speaker}{number}", number >= 3
                voice(a5 / folder / f"{file}.flac", 95 + 19 * speaker, 0.1 if spoofed else 0.01)
                kind = "A01 spoof" if spoofed else "bonafide bonafide"
                rows.append(f"{who} {file} F C01 1 - AC1 {kind} -")
                label = "A01 spoof" if spoofed else "bonafide target"
                trials.append(f"{who} {file} F {label}")
                if not spoofed:
                    trials.append(f"{letter}_{(speaker + 1) % 4} {file} F bonafide nontarget")
            voice(a5 / folder / f"{letter}_A{speaker}.flac", 95 + 19 * speaker)
            enrolled.append(f"{who} {letter}_A{speaker}")
        listed = "train" if part == "train" else f"{part}.track_1"
        (a5 / f"ASVspoof5.{listed}.tsv").write_text("\n".join(rows) + "\n")
        if part != "train":
            (a5 / f"ASVspoof5.{part}.track_2.enroll.tsv").write_text("\n".join(enrolled) + "\n")
            (a5 / f"ASVspoof5.{part}.track_2.trial.tsv").write_text("\n".join(trials) + "\n")
    return root


def tiny_options(corpus: Path, out: Path, **changes):
    """Return options of a training run that takes a second or two."""
    from sasv.training.options import TrainOptions

    values = {
        "utterances": str(corpus / "utterances.tsv"),
        "out": str(out),
        "where": "split=train",
        "dev_utterances": str(corpus / "utterances.tsv"),
        "dev_enrolments": str(corpus / "enrolments_dev.tsv"),
        "dev_trials": str(corpus / "trials_dev.tsv"),
        "encoder_options": SMALL["ecapa-tdnn"],
        "epochs": 3,
        "batches_per_epoch": 3,
        "pairs": 4,
        "crop_frames": 40,
        "max_lr": 2e-3,
        "cycle_epochs": 3,
        "warmup_epochs": 0,
        "num_workers": 0,
        "device": "cpu",
        "licence": "CC0-1.0",
    }
    return TrainOptions(**(values | changes))


def built_encoder(name: str, seed: int = 0):
    """Return an encoder with its preset "test", whose batch norms have statistics that are not
    trivial.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from sasv.encoders import make_encoder

    torch.manual_seed(seed)
    encoder = make_encoder(name, preset(name, "test"))
    for part in encoder.modules():
        if isinstance(part, _BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                part.bias.data.normal_(0, 0.3)
    return encoder.eval()


def next_stage(name: str, path: Path):
    """Save an encoder with its preset "test"; return it, and the options of a stage that starts
    from it with the same preset.
    """
    from sasv.checkpoints import Checkpoint, Specification, save_checkpoint
    from sasv.encoders import make_encoder
    from sasv.training.options import TrainOptions

    options = preset(name, "test")
    encoder = make_encoder(name, options)
    save_checkpoint(path, Checkpoint(Specification(**encoder.description()), encoder.state_dict()))
    wanted = TrainOptions(
        utterances="u.tsv", out="out", init=str(path), encoder=name, encoder_options=dict(options)
    )
    return encoder, wanted


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory):
    """Run folder of a tiny trained model, which tests must not change."""
    from sasv.commands import train

    out = tmp_path_factory.mktemp("run")
    train(tiny_options(corpus, out))
    return out


def train_until(monkeypatch, options, epochs: int) -> None:
    """Train, and interrupt the run after a number of epochs."""
    from sasv.commands import train
    from sasv.training.trainer import Trainer

    original = Trainer._train_epoch

    def cut(self):
        if self.position.epoch == epochs:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Trainer, "_train_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train(options)
    monkeypatch.undo()


def allowed_skips() -> list[str]:
    """Return regular expressions of the reasons for which a test may be skipped in continuous
    integration.
    """
    lines = (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def unexpected_skips(reporter) -> list[str]:
    """Return the tests that were skipped for a reason that is not on the list, as ``test:
    reason``.
    """
    allowed = [re.compile(pattern) for pattern in allowed_skips()]
    found = []
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(pattern.search(reason) for pattern in allowed):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """If the environment variable CI is set, an unexpected skip fails the run, because a test that
    never runs protects nothing.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and unexpected_skips(reporter) and session.exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter):
    """Print the unexpected skips."""
    found = unexpected_skips(terminalreporter)
    if os.environ.get("CI") and found:
        terminalreporter.section("skips that tests/allowed_skips.txt does not list")
        for line in found:
            terminalreporter.line(line)

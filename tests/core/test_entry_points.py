"""Third-party packages add encoders, losses, and other members through entry points, without a
change to sasv.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sasv
from conftest import make_corpus
from sasv.core.errors import SasvError
from sasv.core.registry import Registry

TOY = '''
from dataclasses import dataclass

import torch
from torch import nn

from sasv.encoders.base import Encoder, EncoderOptions
from sasv.frontends.masks import convolve, masked_mean


@dataclass(frozen=True)
class ToyOptions(EncoderOptions):
    embedding: int = 16
    channels: int = 8
    activation: str = "relu"


class Toy(Encoder):
    """One convolution and the mean over time."""

    name = "toy"
    Options = ToyOptions
    presets = {"published": {"channels": 16}, "tiny": {}, "test": {"channels": 4}}

    def __init__(self, options, frontend):
        super().__init__(options, frontend)
        self.convolution = nn.Conv1d(frontend.feature_size, options.channels, 3, stride=2)
        self.out = nn.Linear(options.channels, options.embedding)

    def network(self, features, mask):
        x, mask = convolve(self.convolution, features, mask)
        return self.out(masked_mean(getattr(torch, self.options.activation)(x), mask)[:, :, 0])
'''
SCRIPT = """
import sys
from pathlib import Path
from sasv.checkpoints import load_checkpoint
from sasv.cli import main

corpus, out = sys.argv[1:]
tables = f"--utterances {corpus}/utterances.tsv"
short = "--epochs 1 --batches-per-epoch 1 --crop-frames 40 --num-workers 0 --device cpu"
assert main(f"train {tables} --out {out}/run --encoder toy "
            f"--encoder-options.activation=tanh {short}".split()
            + ["--where", "split=train", *PAIRS]) == 0
assert main(f"convert {out}/run/model.safetensors {out}/copy.safetensors".split()) == 0
specification = load_checkpoint(f"{out}/copy.safetensors").specification
assert specification.encoder == "toy"
assert specification.encoder_options == {"embedding": 16, "channels": 8, "activation": "tanh"}
assert main(f"evaluate {tables} --model {out}/copy.safetensors "
            f"--enrolments {corpus}/enrolments_dev.tsv "
            f"--trials {corpus}/trials_dev.tsv --out {out}/scores --device cpu".split()) == 0
assert main(f"reproduce --row 3 --scale tiny --encoder toy --dry-run --out {out}/plan".split()) == 0
print("all of it")
"""


def install(folder: Path, name: str, code: str, group: str, entry: str) -> Path:
    """Write a package as pip installs it: its module, and the metadata with its entry point."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    return folder


@pytest.mark.long
@pytest.mark.slow
def test_an_encoder_of_another_package_trains_converts_evaluates_and_is_planned(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "toy_encoder", TOY, "sasv.encoders", "toy = toy_encoder:Toy")
    corpus = make_corpus(tmp_path / "corpus")
    script = SCRIPT.replace("*PAIRS", '"--pairs", "4"')
    path = os.pathsep.join([str(folder), str(Path(sasv.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", script, str(corpus), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of it\n")


def test_entry_points_are_loaded_only_on_demand(tmp_path, monkeypatch):
    install(
        tmp_path,
        "toy_parts",
        "part = 3\n",
        "sasv.toys",
        "ball = toy_parts:part\nown = toy_parts:part",
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("toy", {"own": "math:pi"}, group="sasv.toys")
    assert registry.get("own") > 3.1  # names of sasv cannot be overridden
    assert "others" not in vars(registry)  # and no package was searched
    assert registry.get("ball") == 3
    assert list(registry) == ["own", "ball"]
    assert "ball" in registry and "cube" not in registry
    with pytest.raises(SasvError, match="unknown toy 'bal'; did you mean ball"):
        registry.get("bal")


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    install(
        tmp_path,
        "toy_broken",
        "import nothing_of_the_kind\n",
        "sasv.toys",
        "broken = toy_broken:part",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        SasvError, match="toy 'broken' of the package toy_broken cannot be imported.*nothing_of"
    ):
        Registry("toy", {}, group="sasv.toys").get("broken")


def test_every_open_registry_has_its_group():
    from sasv.checkpoints.formats import FORMATS
    from sasv.corpora import CORPORA
    from sasv.encoders import ENCODERS
    from sasv.frontends import FRONTENDS
    from sasv.losses import LOSSES
    from sasv.vocoders import VOCODERS

    groups = {
        registry.group for registry in (FORMATS, CORPORA, ENCODERS, FRONTENDS, LOSSES, VOCODERS)
    }
    assert groups == {
        f"sasv.{kind}"
        for kind in ("formats", "corpora", "encoders", "frontends", "losses", "vocoders")
    }


def test_help_texts_list_what_is_registered():
    from sasv.commands import PrepareOptions, SynthesizeOptions
    from sasv.commands._reproduce import RowOptions
    from sasv.corpora import CORPORA
    from sasv.encoders import ENCODERS
    from sasv.losses import LOSSES
    from sasv.training.options import LossOptions, ModelOptions
    from sasv.vocoders import VOCODERS

    shown = {ModelOptions: (ENCODERS,), LossOptions: (LOSSES,)}
    shown |= {
        SynthesizeOptions: (VOCODERS,),
        PrepareOptions: (CORPORA,),
        RowOptions: (ENCODERS,),
    }
    for options, registries in shown.items():
        for registry in registries:
            assert registry.names() in options.__doc__

"""Checkpoints: round trips, the published format, and files that must be refused."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import PUBLISHED_NAMES, SMALL
from sasv.checkpoints import (
    Checkpoint,
    Specification,
    load_checkpoint,
    quantised,
    restore_head,
    save_checkpoint,
    spawn_encoder,
)
from sasv.commands import ConvertOptions, InfoOptions, convert, info
from sasv.core.errors import CheckpointError, SasvError
from sasv.embeddings.model import load_model
from sasv.encoders import make_encoder
from sasv.losses import LOSSES


def make(name="ecapa-tdnn", loss="aamsoftmaxproto", classes=7):
    torch.manual_seed(0)
    encoder = make_encoder(name, SMALL[name])
    head = LOSSES.get(loss)(24, classes)
    specification = Specification(
        name,
        SMALL[name],
        classes=[f"s{i}" for i in range(classes)],
        loss=loss,
        decision={"threshold": 0.25},
        licence="CC0-1.0",
    )
    return Checkpoint(specification, encoder.state_dict(), head.state_dict())


def equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
def test_round_trips(tmp_path, name, voice):
    checkpoint = make(name)
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    own = load_checkpoint(tmp_path / "a.safetensors")
    assert own.specification == checkpoint.specification
    equal(own.encoder, checkpoint.encoder)
    equal(own.head, checkpoint.head)
    convert(ConvertOptions(str(tmp_path / "a.safetensors"), str(tmp_path / "b.model")))
    published = torch.load(tmp_path / "b.model", weights_only=True)
    assert set(published) == {f"__S__.{key}" for key in own.encoder} | {
        f"__L__.{key}" for key in own.head
    }
    convert(ConvertOptions(str(tmp_path / "b.model"), str(tmp_path / "c.safetensors")))
    back = load_checkpoint(tmp_path / "c.safetensors")
    equal(back.encoder, checkpoint.encoder)
    assert back.specification.encoder_options == spawn_encoder(own).option_values()
    assert len(back.specification.classes) == 7
    wave = voice(20000)
    np.testing.assert_array_equal(
        load_model(tmp_path / "a.safetensors").embed(wave),
        load_model(tmp_path / "b.model").embed(wave),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("wrapped", [False, True])
def test_published_files_load_key_for_key(tmp_path, name, wrapped, published_keys, fill, golden):
    shapes = published_keys[PUBLISHED_NAMES[name]]
    prefix = "module." if wrapped else ""
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    state = {
        key: torch.zeros(shape, dtype=torch.long if key in counters else torch.float32)
        for key, shape in shapes.items()
    }
    state = fill.fill_state_dict(state, 0)
    for key in state:
        if "torchfbank" in key:
            state[key] = torch.from_numpy(golden["torchfbank/" + key.partition("torchfbank.")[2]])
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "p.model")
    model = load_model(tmp_path / "p.model")
    spec = model.specification
    assert (spec.encoder, spec.loss, spec.spoof_index, len(spec.classes)) == (name, "sasv", 40, 41)
    found = model.embed(fill.waveform(32000, 0))
    expected = golden[f"{PUBLISHED_NAMES[name]}/embedding/32000"]
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-4


def test_head_of_another_size_is_dropped_with_a_notice():
    checkpoint = make(classes=7)
    head = LOSSES.get("sasv")(24, 3)
    notes = restore_head(head, checkpoint)
    assert "dropped head aamsoftmax.weight (7, 24): this training needs (3, 24)" in notes
    assert "dropped head angleproto.w (): this loss has no such entry" in notes
    assert "new head angleproto_sasv.w1 ()" in notes
    same = LOSSES.get("aamsoftmaxproto")(24, 7)
    assert all(note.startswith("kept head") for note in restore_head(same, checkpoint))
    equal(same.state_dict(), checkpoint.head)


@pytest.mark.parametrize(
    "loss, key, axis",
    [("aamsoftmax", "weight", 0), ("amsoftmax", "W", 1), ("softmax", "fc.bias", 0)],
)
def test_classes_keep_their_rows_by_name(loss, key, axis):
    checkpoint = make()
    checkpoint.specification.classes = ["a", "b", "spoof"]
    checkpoint.head = LOSSES.get(loss)(24, 3).state_dict()
    head = LOSSES.get(loss)(24, 4)
    before = head.state_dict()[key].clone()
    notes = restore_head(head, checkpoint, ["b", "c", "d", "spoof"])
    assert (
        f"kept 2 of the 3 classes of head {key} {tuple(checkpoint.head[key].shape)}; this "
        "training has 4" in notes
    )
    after, old = head.state_dict()[key], checkpoint.head[key]
    expected = [
        old.select(axis, 1),
        before.select(axis, 1),
        before.select(axis, 2),
        old.select(axis, 2),
    ]
    for row, value in enumerate(expected):
        assert torch.equal(after.select(axis, row), value)
    # the same number of different classes: in the published format rows keep their positions, by
    # name they do not
    other = LOSSES.get(loss)(24, 3)
    restore_head(other, checkpoint, ["b", "a", "spoof"])
    assert torch.equal(other.state_dict()[key].select(axis, 0), old.select(axis, 1))


@pytest.mark.slow
def test_all_faults_of_the_entries_are_listed(tmp_path):
    checkpoint = make()
    state = {f"__S__.{key}": value for key, value in checkpoint.encoder.items()}
    del state["__S__.bn1.weight"], state["__S__.bn6.bias"]
    state["__S__.stranger"] = torch.zeros(1)
    state["__S__.fc6.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "x.model")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "x.model")
    text = str(caught.value)
    assert "missing: bn1.weight, bn6.bias" in text
    assert "unexpected: stranger" in text
    assert "mis-shaped: fc6.bias (5,) instead of (24,)" in text
    assert "\n" not in text


class Evil:
    """An object that would run a command if it were unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_pickle_with_code_is_refused_unread(tmp_path, with_torch):
    path, trace = tmp_path / "evil.model", tmp_path / "it-ran"
    evil = Evil(f"touch {trace}")
    if with_torch:
        torch.save({"__S__.conv1.weight": evil}, path)
    else:
        path.write_bytes(pickle.dumps(evil))
    with pytest.raises(
        CheckpointError,
        match=r"evil\.model: refused, because the pickle contains more than weights",
    ):
        load_checkpoint(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(evil))
    assert trace.exists()  # proves that the test can fail: unpickling does run the command


def test_truncated_foreign_and_missing_checkpoints(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", make())
    save_checkpoint(tmp_path / "a.model", make())
    for name in ("a.safetensors", "a.model"):
        data = (tmp_path / name).read_bytes()
        for share in (0.001, 0.5, 0.99):
            (tmp_path / name).write_bytes(data[: int(len(data) * share)])
            with pytest.raises(CheckpointError, match=r"truncated|broken"):
                load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nope.safetensors")
    (tmp_path / "text.model").write_text("hello, this is not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "text.model")
    save_file({"layers.0.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="of another model or program.*layers"):
        load_checkpoint(tmp_path / "other.safetensors")
    torch.save({"layers.0.weight": torch.zeros(3)}, tmp_path / "other.model")
    with pytest.raises(CheckpointError, match="of another model or program.*layers"):
        load_checkpoint(tmp_path / "other.model")
    torch.save({"__S__.layers.0.weight": torch.zeros(3)}, tmp_path / "other.model")
    with pytest.raises(CheckpointError, match="do not belong to a known encoder"):
        load_checkpoint(tmp_path / "other.model")
    torch.save([torch.zeros(3)], tmp_path / "list.model")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        load_checkpoint(tmp_path / "list.model")
    with pytest.raises(SasvError, match="the name of a checkpoint"):
        save_checkpoint(tmp_path / "a.bin", make())


def test_specification_of_a_newer_format(tmp_path):
    text = json.dumps({"encoder": "ecapa-tdnn", "sizes": {}, "format": 9})
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "n.safetensors", {"sasv": text})
    with pytest.raises(CheckpointError, match="newer version of sasv"):
        load_checkpoint(tmp_path / "n.safetensors")


@pytest.mark.slow
def test_info(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", make())
    result = info(InfoOptions(str(tmp_path / "a.safetensors")))
    assert result["decision"]["threshold"] == 0.25
    assert result["parameters"] == sum(p.numel() for p in spawn_encoder(make()).parameters())
    assert result["weight_format"] == "sasv" and result["file"].endswith("a.safetensors")


@pytest.mark.slow
def test_half_precision_halves_the_file_and_keeps_the_embedding(trained, tmp_path, voice):
    source, half = trained / "model.safetensors", tmp_path / "half.safetensors"
    convert(ConvertOptions(str(source), str(half), half=True))
    one, other = (load_model(path, "cpu").embed(voice(20000)) for path in (source, half))
    assert other.dtype == np.float32
    assert float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) > 0.9999
    entries = load_checkpoint(half).encoder
    assert (
        entries["conv1.weight"].dtype == torch.float16
        and entries["torchfbank.1.mel_scale.fb"].dtype == torch.float32
    )


def test_eight_bits_keep_the_weights(tmp_path):
    """Each weight is off by at most half a step of its output channel; nothing else changes, and
    rounding once more changes nothing.
    """
    source, small, again = (str(tmp_path / f"{name}.safetensors") for name in ("a", "b", "c"))
    save_checkpoint(source, make())
    convert(ConvertOptions(source, small, int8=True))
    convert(ConvertOptions(small, again, int8=True))
    one, other = load_checkpoint(source), load_checkpoint(small)
    for entries, found in ((one.encoder, other.encoder), (one.head, other.head)):
        assert entries.keys() == found.keys()
        for key, value in entries.items():
            assert found[key].dtype == value.dtype
            if value.ndim > 1 and "torchfbank" not in key:
                step = value.flatten(1).abs().amax(1) / 127
                error = (found[key] - value).flatten(1).abs().amax(1)
                assert bool((error <= 0.501 * step).all())
            else:
                assert torch.equal(found[key], value)
    equal(load_checkpoint(again).encoder, other.encoder)
    stored = load_file(small)
    weights = [key for key in one.encoder if key.startswith("conv") and key.endswith(".weight")]
    assert weights and all(stored[f"encoder.{key}"].dtype == torch.int8 for key in weights)
    save_checkpoint(again, other)
    assert load_checkpoint(again).specification.format == one.specification.format


@pytest.mark.slow
def test_eight_bits_keep_the_embedding(trained, tmp_path, voice):
    source, small = trained / "model.safetensors", tmp_path / "small.safetensors"
    convert(ConvertOptions(str(source), str(small), int8=True))
    one, other = (load_model(path, "cpu").embed(voice(20000)) for path in (source, small))
    assert float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) > 0.999


def test_older_versions_refuse_eight_bits(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.safetensors", make())
    small = tmp_path / "small.safetensors"
    convert(ConvertOptions(str(tmp_path / "a.safetensors"), str(small), int8=True))
    monkeypatch.setattr("sasv.models.specification.QUANTISED_FORMAT", 2)
    with pytest.raises(CheckpointError, match="newer version of sasv"):
        load_checkpoint(small)


def test_eight_bits_without_fitting_scales_are_refused(tmp_path):
    checkpoint = make()
    name = "conv1.weight"
    entries = quantised(checkpoint.encoder)
    for scale in (None, torch.ones(1)):
        entries.pop(name + ".scale", None)
        if scale is not None:
            entries[name + ".scale"] = scale
        save_checkpoint(tmp_path / "a.safetensors", replace(checkpoint, encoder=entries))
        with pytest.raises(CheckpointError, match=f"scales of the 8-bit weights encoder.{name}"):
            load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"half": True, "result": "b.safetensors"}, "choose one"),
        ({"result": "b.model"}, "only be stored in a .safetensors file"),
    ],
)
def test_eight_bits_with_what_does_not_go_with_them(tmp_path, words, message):
    save_checkpoint(tmp_path / "a.safetensors", make())
    options = {"source": str(tmp_path / "a.safetensors"), "int8": True} | words
    options["result"] = str(tmp_path / options["result"])
    with pytest.raises(SasvError, match=message):
        convert(ConvertOptions(**options))
    assert not Path(options["result"]).exists()


@pytest.mark.slow
def test_weights_are_mixed_with_those_of_another_model(tmp_path):
    first = checkpoint_with(tmp_path / "first.safetensors", 0)
    second = checkpoint_with(tmp_path / "second.safetensors", 1)
    second.specification.decision = {"threshold": 0.5}
    save_checkpoint(tmp_path / "second.safetensors", second)
    words = {"mix_with": str(tmp_path / "first.safetensors"), "mix_share": 0.75}
    out = tmp_path / "mixed.safetensors"
    convert(ConvertOptions(str(tmp_path / "second.safetensors"), str(out), **words))
    found = load_checkpoint(out)
    for key, value in found.encoder.items():
        if value.is_floating_point():
            expected = 0.25 * first.encoder[key] + 0.75 * second.encoder[key]
            torch.testing.assert_close(value, expected)
    assert found.specification.decision is None
    assert found.specification.training["mixed"].startswith("0.75 of these weights and 0.25 of")


def test_weights_of_another_kind_of_encoder_are_not_mixed(tmp_path):
    checkpoint_with(tmp_path / "one.safetensors", 0)
    checkpoint_with(tmp_path / "two.safetensors", 0, "ska-tdnn")
    words = {"mix_with": str(tmp_path / "two.safetensors")}
    with pytest.raises(CheckpointError, match="differs in type or size from that of"):
        convert(ConvertOptions(str(tmp_path / "one.safetensors"), str(tmp_path / "o"), **words))


def checkpoint_with(path, seed, encoder="ecapa-tdnn"):
    """Write a small model with random weights; return it."""
    torch.manual_seed(seed)
    network = make_encoder(encoder, SMALL[encoder])
    checkpoint = Checkpoint(Specification(**network.description()), network.state_dict())
    save_checkpoint(path, checkpoint)
    return checkpoint

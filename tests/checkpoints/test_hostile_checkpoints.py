"""Checkpoints that are damaged or claim too much: each is refused with one line, without much
memory or time.
"""

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from sasv.checkpoints import Checkpoint, Specification, load_checkpoint, save_checkpoint
from sasv.core.errors import CheckpointError
from sasv.encoders import make_encoder, preset


def make(name="ecapa-tdnn"):
    torch.manual_seed(0)
    encoder = make_encoder(name, preset(name, "test"))
    return Checkpoint(Specification(**encoder.description()), encoder.state_dict())


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A valid file in the published format."""
    path = tmp_path_factory.mktemp("good") / "good.model"
    save_checkpoint(path, make())
    return path


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def respecified(path, **changes):
    """Write a valid checkpoint of sasv with changed fields in its specification."""
    save_checkpoint(path, make())
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    values = json.loads(header["__metadata__"]["sasv"]) | changes
    header["__metadata__"]["sasv"] = json.dumps(values)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"format": "2"}, "format of the specification must be a whole number"),
        ({"format": True}, "format of the specification must be a whole number"),
        ({"encoder": 3}, "encoder of the specification must be text, not 3"),
        ({"encoder": "ecapa"}, "unknown encoder 'ecapa'"),
        ({"encoder_options": None}, "encoder_options of the specification must be a mapping"),
        (
            {"encoder_options": {"channels": "32"}},
            "option channels of encoder ecapa-tdnn must be a whole number",
        ),
        ({"encoder_options": {"channels": 1e400}}, "not JSON|not finite|out of range"),
        ({"frontend": "mfcc"}, "unknown front-end 'mfcc'"),
        ({"frontend": []}, "frontend of the specification must be text"),
        ({"frontend_options": {"mels": 10**9}}, "option mels of front-end log-mel"),
        ({"frontend_options": {"mels": 40}}, "mis-shaped: .*torchfbank"),
        ({"sample_rate": 8000}, "is for 8000 Hz, but its front-end log-mel is for 16000 Hz"),
        ({"sample_rate": "16000"}, "sample_rate of the specification"),
        ({"min_samples": -1}, "min_samples of the specification"),
        ({"classes": "abc"}, "classes of the specification must be a list"),
        ({"classes": [1, 2]}, "each of classes of the specification must be text"),
        (
            {"spoof_index": 5, "classes": ["a"]},
            "spoof_index of the specification is 5, but it has 1 classes",
        ),
        ({"training": []}, "training of the specification must be a mapping"),
        ({"licence": {}}, "licence of the specification must be text"),
        ({"loss": None}, "loss of the specification must be text"),
        ({"scoring": {"crops": "two"}}, "crops of the scoring in the specification must be a"),
        ({"scoring": {"crop_seconds": 0}}, "crop_seconds of the scoring .* positive|above 0"),
        ({"scoring": {"max_pause": [1]}}, "max_pause of the scoring in the specification"),
        ({"scoring": {"cohort": True}}, "cohort of the scoring .* must be a mapping"),
        ({"surprise": 1}, "unknown keys"),
        ({"encoder_options": {"channels": 10**6, "scale": 10**6}}, "larger network"),
        (
            {
                "encoder": "mfa-conformer",
                "encoder_options": {"blocks": 10**5, "units": 8, "heads": 2},
            },
            "larger network",
        ),
    ],
)
def test_every_field_of_the_specification_is_checked(tmp_path, changes, words):
    refused(respecified(tmp_path / "x.safetensors", **changes), words)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"encoder": ' + "[" * 500 + "]" * 500 + "}", "3", '{"a": NaN}', "{"]
)
def test_specifications_that_are_not_mappings_are_refused(text):
    with pytest.raises(CheckpointError, match="model.safetensors: its specification is not"):
        Specification.from_json(text, "model.safetensors")


@pytest.mark.parametrize(
    "value, words", [(float("nan"), "not finite in bn1.bias"), (float("inf"), "not finite")]
)
def test_weights_that_are_not_finite(tmp_path, value, words):
    checkpoint = make()
    state = {f"__S__.{key}": entry.clone() for key, entry in checkpoint.encoder.items()}
    state["__S__.bn1.bias"][0] = value
    torch.save(state, tmp_path / "x.model")
    refused(tmp_path / "x.model", words)
    checkpoint.encoder["bn1.bias"][0] = value
    with pytest.raises(CheckpointError, match="not finite"):
        save_checkpoint(tmp_path / "y.safetensors", checkpoint)


def test_weights_that_are_all_zero(tmp_path):
    state = {
        f"__S__.{key}": entry if "torchfbank" in key else torch.zeros_like(entry)
        for key, entry in make().encoder.items()
    }
    torch.save(state, tmp_path / "x.model")
    refused(tmp_path / "x.model", "all (its )?weights are")


def test_a_bit_that_flipped_in_an_archive(tmp_path, published):
    data = bytearray(published.read_bytes())
    with zipfile.ZipFile(published) as archive:
        member = max(archive.infolist(), key=lambda entry: entry.file_size)
    data[member.header_offset + 1000] ^= 1
    (tmp_path / "x.model").write_bytes(data)
    refused(tmp_path / "x.model", "checksum")


def test_compressed_members(tmp_path, published):
    with (
        zipfile.ZipFile(published) as source,
        zipfile.ZipFile(tmp_path / "x.model", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    refused(tmp_path / "x.model", "compressed")


def hostile_pickles():
    allocating = b"\x80\x02cbuiltins\nbytearray\nq\x00J\x00\xe4\x0bT\x85R."
    return {
        "bytearray": (allocating, "refused, .*bytearray"),
        "bytearray in python 2": (allocating.replace(b"builtins", b"__builtin__"), "refused"),
        "inline bytearray": (b"\x80\x05\x96\x05\x00\x00\x00\x00\x00\x00\x00hello.", "refused"),
        "code": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "refused, .*os system"),
        "named from the stack": (pickle.dumps(print, protocol=4), "refused"),
        "promised text": (
            b"\x80\x05\x8d" + struct.pack("<Q", 10**13),
            "truncated or damaged|refused",
        ),
        "cut": (pickle.dumps({"a": 1}, protocol=2)[:-4], "truncated or damaged"),
    }


@pytest.mark.parametrize("kind", list(hostile_pickles()))
@pytest.mark.parametrize("archived", [False, True])
def test_pickles_that_ask_for_more_than_weights(tmp_path, published, kind, archived):
    data, words = hostile_pickles()[kind]
    path = tmp_path / "x.model"
    if archived:
        with zipfile.ZipFile(published) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                target.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    else:
        path.write_bytes(data)
    refused(path, words)


def test_an_entry_larger_than_its_bytes(tmp_path):
    state = {f"__S__.{key}": entry for key, entry in make().encoder.items()}
    state["__L__.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "x.model")
    refused(tmp_path / "x.model", "larger than its data in the file")


def test_archives_of_other_programs(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    refused(tmp_path / "x.npz", "a NumPy archive")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as target:
        target.writestr("x/data.pkl", b"")
        target.writestr("x/constants.pkl", b"")
    refused(tmp_path / "x.pt", "a TorchScript archive")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as target:
        target.writestr("notes.txt", "hello")
    refused(tmp_path / "y.pt", "so not a checkpoint")


def wrapped(kind, state):
    prefixed = lambda prefix: {prefix + key: value for key, value in state.items()}  # noqa: E731
    return {
        "plain": state,
        "data parallel twice": prefixed("module.module."),
        "compiled": prefixed("_orig_mod."),
        "compiled in data parallel": prefixed("module._orig_mod."),
        "attribute": prefixed("model."),
        "lightning": {
            "state_dict": prefixed("model."),
            "epoch": 3,
            "hyper_parameters": {"lr": 1e-3},
        },
        "nested": {"model": {"state_dict": state}, "optimizer": {"state": {}}},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "data parallel twice",
        "compiled",
        "compiled in data parallel",
        "attribute",
        "lightning",
        "nested",
    ],
)
@pytest.mark.parametrize("prefix", ["__S__.", "speaker_encoder."])
def test_wrappers_are_removed(tmp_path, kind, prefix):
    checkpoint = make()
    state = {prefix + key: value for key, value in checkpoint.encoder.items()}
    torch.save(wrapped(kind, state), tmp_path / "x.model")
    loaded = load_checkpoint(tmp_path / "x.model")
    assert loaded.encoder.keys() == checkpoint.encoder.keys()
    assert all(torch.equal(loaded.encoder[key], value) for key, value in checkpoint.encoder.items())


def test_unknown_wrappers_are_listed(tmp_path):
    state = {f"wrapper.{key}": value for key, value in make().encoder.items()}
    torch.save(state, tmp_path / "x.model")
    refused(tmp_path / "x.model", "none of the known formats .*wrapper.attention.0.bias")
    torch.save({"weights": state, "epoch": 3}, tmp_path / "y.model")
    refused(tmp_path / "y.model", "not a plain state dict of tensors; it contains epoch, weights")


def test_published_format_stores_only_published_encoders(tmp_path):
    checkpoint = make()
    checkpoint.specification.encoder = "another"
    with pytest.raises(CheckpointError, match="published format only supports the encoders"):
        save_checkpoint(tmp_path / "x.model", checkpoint)

"""No file of the user is overwritten without permission. The checks run over every command that
writes.
"""

import dataclasses
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from conftest import tiny_options
from sasv import cli, commands
from sasv.cli.parser import options_of
from sasv.cli.program import checked_outputs
from sasv.commands import COMMANDS
from sasv.core.errors import SasvError
from sasv.core.outputs import MARK, PACKAGE, refuse_inside_speech, written_by_sasv

WRITING = [name for name, command in COMMANDS.items() if command.outputs]
CASES = [(name, option) for name in WRITING for option in COMMANDS[name].outputs]
PAIRS = [(name, option, source) for name, option in CASES for source in COMMANDS[name].inputs]
MANY = ("systems", "recordings", "names")


def made(name, **given):
    """Return options of a command in which every required value is a path that does not exist."""
    kind = options_of(name)
    values = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            values[field.name] = ["nowhere"] if field.name in MANY else "nowhere"
    values |= given
    for one, other in itertools.permutations(
        ("dev_enrolments", "dev_trials")
    ):  # they belong together
        if one in values and other not in values:
            values[other] = "nowhere"
    for field in MANY:
        if isinstance(values.get(field), str):
            values[field] = [values[field]]
    if isinstance(values.get("weights"), str):
        values["weights"] = {"hifi-gan": values["weights"]}
    return kind(**values)


def check_files(name, options, force=False):
    with checked_outputs(name, options, force):
        pass


def place(name, option, folder):
    """Return the value of an output option below a folder, and a file that the command would
    write.
    """
    patterns = COMMANDS[name].outputs[option]
    if not patterns:
        return str(folder / "result.tsv"), folder / "result.tsv"
    file = folder / "out" / patterns[0].replace("*", "x")
    return str(folder / "out"), file


def test_every_declared_option_exists_and_every_out_is_declared():
    for name, command in COMMANDS.items():
        fields = {field.name for field in dataclasses.fields(options_of(name))}
        assert {*command.inputs, *command.speech, *command.outputs} <= fields, name
        assert {"out", "result", "model_out"} & fields == set(command.outputs), name


@pytest.mark.parametrize("name, option, source", PAIRS)
@pytest.mark.parametrize("how", ["same", "link", "hard link"])
def test_an_output_that_is_an_input_is_refused(tmp_path, monkeypatch, name, option, source, how):
    monkeypatch.chdir(tmp_path)
    value, file = place(name, option, tmp_path)
    file.parent.mkdir(exist_ok=True)
    given = file
    if how == "same":
        file.write_text("precious")
    else:
        given = tmp_path / "elsewhere"
        given.write_text("precious")
        file.symlink_to(given) if how == "link" else os.link(given, file)
    options = made(name, **{option: value, source: str(given)})
    with pytest.raises(SasvError, match="also an input") as caught:
        check_files(name, options)
    assert "\n" not in str(caught.value)
    assert given.read_text() == "precious"
    check_files(name, options, force=True)


@pytest.mark.parametrize("name, option", CASES)
def test_files_that_sasv_did_not_write_are_refused(tmp_path, monkeypatch, name, option):
    monkeypatch.chdir(tmp_path)
    value, file = place(name, option, tmp_path)
    options = made(name, **{option: value})
    file.parent.mkdir(exist_ok=True)
    (file.parent / "notes of mine.txt").write_text("mine")
    check_files(name, options)  # first, nothing would be replaced, and then nothing was written
    assert [path.name for path in file.parent.iterdir()] == ["notes of mine.txt"]
    file.write_text("mine\n")
    with pytest.raises(SasvError, match="not written by sasv"):
        check_files(name, options)
    assert file.read_text() == "mine\n"
    check_files(name, options, force=True)


@pytest.mark.parametrize("name", [name for name in WRITING if any(COMMANDS[name].outputs.values())])
def test_same_command_resumes_in_its_own_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    value, file = place(name, "out", tmp_path)
    check_files(name, made(name, out=value))
    assert not file.parent.exists()  # nothing was written
    with checked_outputs(name, made(name, out=value)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("written by the command")
    check_files(name, made(name, out=value))


@pytest.mark.parametrize("name, option", CASES)
def test_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, name, option):
    monkeypatch.chdir(tmp_path)
    field = next(one for one in dataclasses.fields(options_of(name)) if one.name == option)
    if field.default == "":  # nothing is written there then
        check_files(name, made(name, **{option: ""}))
    else:
        with pytest.raises(SasvError, match="is empty; give a path"):
            check_files(name, made(name, **{option: ""}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mark", ['{"command": "embed", "sasv": "0.1"}', "", "{"])
def test_folder_of_an_earlier_version_is_accepted_by_every_command(tmp_path, mark):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "scores.tsv").write_text("speaker\tutterance\tscore\n")
    (folder / MARK).write_text(mark)
    options = made("evaluate", out=str(folder))
    check_files("evaluate", options)
    assert (folder / MARK).read_text() == mark


def test_folder_mark_applies_only_to_the_commands_it_lists(tmp_path):
    folder = tmp_path / "out"
    for name, file in (("embed", "index.tsv"), ("evaluate", "scores.tsv")):
        with checked_outputs(name, made(name, out=str(folder))):
            (folder / file).write_text("written by the command")
    (folder / "report.md").write_text("mine")
    for name in ("embed", "evaluate"):
        check_files(name, made(name, out=str(folder)))
    with pytest.raises(SasvError, match=r"report\.md, which was not written by sasv report"):
        check_files("report", made("report", out=str(folder)))
    assert (folder / "report.md").read_text() == "mine"


@pytest.mark.slow
def test_every_file_that_a_command_leaves_is_checked(corpus, trained, tmp_path):
    """Only files that the check knows can be replaced."""
    table = str(corpus / "utterances.tsv")
    model = str(trained / "model.safetensors")
    tables = [str(corpus / f"{kind}_dev.tsv") for kind in ("enrolments", "trials")]

    def place(name):
        return str(tmp_path / name)

    runs = {
        "prepare": lambda out: commands.PrepareOptions("table", str(corpus), out),
        "embed": lambda out: commands.EmbedOptions(table, out, model, where="split=dev"),
        "evaluate": lambda out: commands.EvaluateOptions(
            table, out, *tables, model=model, cohort=table, cohort_where="split=train"
        ),
        "report": lambda out: commands.ReportOptions(
            [place("evaluate") + "/scores.tsv"], out, intervals=10
        ),
        "synthesize": lambda out: commands.SynthesizeOptions(
            table, out, ["8khz"], where="speaker=s6", num_workers=0
        ),
        "push": lambda out: commands.PushOptions(
            model, "a/b", metrics=place("evaluate") + "/metrics.json", out=out
        ),
    }
    left = {"train": trained}
    for name, options in runs.items():
        getattr(commands, name)(options(place(name)))
        left[name] = tmp_path / name
    for name, folder in left.items():
        known = {path for pattern in COMMANDS[name].outputs["out"] for path in folder.glob(pattern)}
        for file in folder.rglob("*"):
            own = file.name == ".lock" or file.relative_to(folder).parts[0].startswith("parts-")
            assert own or file.is_dir() or known & {file, *file.parents}, f"{name}: {file}"


@pytest.mark.parametrize("name, option", CASES)
def test_links_devices_and_the_package_are_refused(tmp_path, monkeypatch, name, option):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SasvError, match="is inside the sasv package"):
        check_files(name, made(name, **{option: str(PACKAGE / "weights")}), force=True)
    value, file = place(name, option, tmp_path)
    file.parent.mkdir(exist_ok=True)
    os.mkfifo(file)
    with pytest.raises(SasvError, match="device or a pipe"):
        check_files(name, made(name, **{option: value}), force=True)
    file.unlink()
    (tmp_path / "real").write_text("")
    file.symlink_to(tmp_path / "real")
    (file.parent / MARK).write_text("{}")
    with pytest.raises(SasvError, match="is a link"):
        check_files(name, made(name, **{option: value}))


@pytest.mark.parametrize(
    "name, source", [(name, source) for name in WRITING for source in COMMANDS[name].speech]
)
def test_outputs_inside_the_speech_are_refused(tmp_path, monkeypatch, name, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "speech").mkdir()
    (tmp_path / "link").symlink_to("speech")
    for out in ("speech", "speech/tables", "link/tables"):
        options = made(name, out=str(tmp_path / out), **{source: str(tmp_path / "speech")})
        with pytest.raises(SasvError, match="is inside the speech folder"):
            check_files(name, options)
        assert not list((tmp_path / "speech").iterdir())
    check_files(
        name, made(name, out=str(tmp_path / "speechless"), **{source: str(tmp_path / "speech")})
    )


def test_output_folder_must_not_lie_among_recordings(tmp_path):
    recordings = [str(tmp_path / "speech" / speaker / "a.wav") for speaker in ("s1", "s2")]
    for recording in recordings:
        Path(recording).parent.mkdir(parents=True)
    refuse_inside_speech(tmp_path / "out", recordings)
    refuse_inside_speech(tmp_path / "speech" / "copies", recordings)
    for out in ("speech/s1", "speech/s1/x"):
        with pytest.raises(SasvError, match="among the recordings"):
            refuse_inside_speech(tmp_path / out, recordings)


@pytest.mark.parametrize("name", ["embed", "evaluate", "train", "report"])
def test_no_command_writes_among_the_recordings_of_its_table(tmp_path, corpus, trained, name):
    inside = corpus / "audio" / "new"
    table = str(corpus / "utterances.tsv")
    model = str(trained / "model.safetensors")
    tables = [str(corpus / f"{kind}_dev.tsv") for kind in ("enrolments", "trials")]
    options = {
        "embed": lambda: commands.EmbedOptions(table, str(inside), model),
        "evaluate": lambda: commands.EvaluateOptions(table, str(inside), *tables, model=model),
        "train": lambda: tiny_options(corpus, inside),
        "report": lambda: commands.ReportOptions(["scores.tsv"], str(inside), utterances=table),
    }[name]()
    with pytest.raises(SasvError, match="among the recordings"):
        getattr(commands, name)(options)
    assert not inside.exists()


def test_two_outputs_with_one_name_are_refused(tmp_path):
    with pytest.raises(SasvError, match="give two names"):
        check_files(
            "calibrate", made("calibrate", out=str(tmp_path / "a"), result=str(tmp_path / "a"))
        )


def test_a_checkpoint_is_recognised_and_converted_again(trained, tmp_path, capsys):
    for name in ("m.model", "m.safetensors"):
        words = ["convert", str(trained / "model.safetensors"), str(tmp_path / name)]
        assert cli.main(words) == 0
        assert written_by_sasv(tmp_path / name)
        assert cli.main(words) == 0
        assert cli.main(["convert", str(tmp_path / name), str(tmp_path / name), "--half"]) == 2
        assert "also an input" in capsys.readouterr().err
    for producer, ours in ((b"\x04sasv", True), (b"\x07pytorch", False)):
        (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\x12" + producer + b"\x1a\x050.1.0")
        assert written_by_sasv(tmp_path / "m.onnx") == ours
    with open(tmp_path / "mine.model", "wb") as stream:
        np.savez(stream, x=np.zeros(3))
    assert cli.main([*words[:2], str(tmp_path / "mine.model")]) == 2
    assert "not written by sasv" in capsys.readouterr().err
    assert cli.main([*words[:2], str(tmp_path / "mine.model"), "--force"]) == 0


def test_scores_are_submitted_again_but_never_over_themselves(tmp_path, capsys):
    scores = tmp_path / "scores.tsv"
    rows = [f"s\tu{row}\t{('target', 'nontarget', 'spoof')[row % 3]}\t{row}" for row in range(9)]
    scores.write_text("\n".join(["speaker\tutterance\tlabel\tscore", *rows]) + "\n")
    before = scores.read_bytes()
    words = ["submit", str(scores)]
    for _ in range(2):
        assert cli.main([*words, str(tmp_path / "out.tsv")]) == 0
    assert cli.main([*words, str(scores)]) == 2
    assert cli.main(["calibrate", str(scores), "--out", str(scores)]) == 2
    assert cli.main([*words, "/dev/null"]) == 2
    assert scores.read_bytes() == before
    for _ in range(2):
        result = str(tmp_path / "llr.tsv")
        back_end = str(tmp_path / "b.json")
        assert (
            cli.main(
                [
                    "calibrate",
                    str(scores),
                    "--out",
                    back_end,
                    "--apply",
                    str(scores),
                    "--result",
                    result,
                ]
            )
            == 0
        )


def test_the_name_of_a_folder_is_no_output_file(tmp_path):
    options = made("submit", out=f"{tmp_path}/new/")
    with pytest.raises(SasvError, match="is the name of a folder; give the name of a file"):
        check_files("submit", options)

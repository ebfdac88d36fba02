"""Recorded steps: finished steps are skipped, interrupted steps continue, and nothing is ever
removed.
"""

import json
import shutil
from pathlib import Path

import pytest

from sasv.core.errors import SasvError
from sasv.core.files import digest_of_file
from sasv.reproduction import Step, carry_out, plan_lines
from sasv.reproduction import steps as module

VERSION = module.__version__


class Work:
    """Two steps, the second of which reads the output of the first, and a list of the steps that
    ran.
    """

    def __init__(self, root: Path):
        self.root = root
        self.ran: list[str] = []
        self.defaults: dict[str, object] = {}
        (root / "source").write_text("1")

    def steps(self, **options):
        def first():
            self.ran.append("first")
            (self.root / "a" / "out").write_text(
                (self.root / "source").read_text() + options.get("mark", "")
            )

        def second():
            self.ran.append("second")
            (self.root / "b" / "out").write_text((self.root / "a" / "out").read_text())

        root = self.root
        return [
            Step(
                "first",
                "do a",
                first,
                root / "a",
                ["out"],
                options,
                {"source": root / "source"},
                1.0,
                2.0,
                self.defaults,
                {"old": "new"},
            ),
            Step(
                "second",
                "do b",
                second,
                root / "b",
                ["out"],
                {},
                {"first": root / "a" / "out"},
                0.5,
                1.0,
            ),
        ]

    def files(self):
        """Return the content of every file below the root."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


def rewrite(path, **changes):
    """Change the facts in a record."""
    record = json.loads((path / "step.json").read_text())
    record["facts"] |= changes
    (path / "step.json").write_text(json.dumps(record))


def as_of_old(path, inputs, **options):
    """Replace a record by one in the first format, with inputs as path -> digest and without the
    format.
    """
    facts = {
        "options": options,
        "inputs": {str(name): digest_of_file(name) for name in inputs},
        "sasv": VERSION,
    }
    (path / "step.json").write_text(json.dumps({"facts": facts, "done": True}))


def test_finished_steps_are_skipped(work, capsys):
    carry_out(work.steps())
    carry_out(work.steps())
    assert (
        work.ran == ["first", "second"] and "[1/2] first: done already" in capsys.readouterr().err
    )


def test_list_recorded_as_text_is_unchanged(work):
    carry_out(work.steps(by=["attack", "codec"]))
    rewrite(work.root / "a", options={"by": "attack,codec"})
    carry_out(work.steps(by=["attack", "codec"]))
    assert work.ran == ["first", "second"]
    rewrite(work.root / "a", options={"by": "attack"})
    with pytest.raises(SasvError, match=r"by was \['attack'\], now \['attack', 'codec'\]"):
        carry_out(work.steps(by=["attack", "codec"]))


def test_changed_options_are_refused_before_the_first_step(work):
    carry_out(work.steps(mark=""))
    before = work.files()
    with pytest.raises(
        SasvError, match=r"first: .*a contains other work \(mark was '', now 'x'\).*--redo.*a.old-1"
    ):
        carry_out(work.steps(mark="x"))
    (work.root / "source").write_text("2")
    with pytest.raises(SasvError, match="source: .*source changed"):
        carry_out(work.steps(mark=""))
    (work.root / "source").write_text("1")
    assert work.files() == before and work.ran == ["first", "second"]


def test_redo_moves_the_old_folder_aside(work, capsys):
    carry_out(work.steps(mark=""))
    (work.root / "a" / "notes of mine").write_text("kept")
    for number, mark in enumerate(("x", "y"), 1):
        carry_out(work.steps(mark=mark), redo=True)
        assert (work.root / "a" / "out").read_text() == f"1{mark}"
        assert f"is kept in {work.root / f'a.old-{number}'}" in capsys.readouterr().err
    assert (work.root / "a.old-1" / "notes of mine").read_text() == "kept"
    assert (work.root / "a.old-1" / "out").read_text() == "1" and (
        work.root / "a.old-2" / "out"
    ).read_text() == "1x"
    assert (work.root / "b.old-2" / "out").read_text() == "1x"  # its input changed with them


def test_later_step_is_refused_after_changed_results_of_an_earlier_one(work):
    carry_out(work.steps(mark=""))
    shutil.rmtree(work.root / "a")
    with pytest.raises(SasvError, match="second: .*first: .*out changed"):
        carry_out(work.steps(mark="x"))
    assert (work.root / "b" / "out").read_text() == "1" and work.ran == ["first", "second", "first"]


def test_new_version_and_new_default_options_do_not_require_redoing(work, monkeypatch, capsys):
    carry_out(work.steps(mark=""))
    monkeypatch.setattr(module, "__version__", "9.9")
    work.defaults = {"mark": "", "later": 3}
    carry_out(work.steps(mark="", later=3))
    assert work.ran == ["first", "second"]
    assert f"note: made by sasv {VERSION}, this is 9.9" in capsys.readouterr().err
    with pytest.raises(SasvError, match="later was 3, now 4"):
        carry_out(work.steps(mark="", later=4))


def test_renamed_and_dropped_options_do_not_require_redoing(work, capsys):
    work.defaults = {"new": 1}
    carry_out(work.steps(new=2))
    rewrite(work.root / "a", options={"old": 2, "dropped": 5})
    carry_out(work.steps(new=2))
    assert (
        work.ran == ["first", "second"]
        and "dropped was 5 and is not compared any more" in capsys.readouterr().err
    )
    rewrite(work.root / "a", options={"old": 3})
    with pytest.raises(SasvError, match="new was 3, now 2"):
        carry_out(work.steps(new=2))


def test_other_spellings_links_and_disks_do_not_require_redoing(work, monkeypatch):
    carry_out(work.steps())
    monkeypatch.chdir(work.root)
    work.root = Path()
    carry_out(work.steps())
    link = Path.cwd().parent / f"{Path.cwd().name}-link"
    link.symlink_to(Path.cwd())
    work.root = link
    carry_out(work.steps())
    moved = link.parent / f"{link.name}-moved"
    shutil.copytree(link, moved)
    work.root = moved
    carry_out(work.steps())
    assert work.ran == ["first", "second"]


def test_records_of_the_first_format_still_hold(work, tmp_path):
    carry_out(work.steps(mark=""))
    as_of_old(work.root / "a", [work.root / "source"], mark="")
    as_of_old(work.root / "b", [work.root / "a" / "out"])
    carry_out(work.steps(mark=""))
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    shutil.copytree(work.root, moved)
    work.root = moved
    carry_out(work.steps(mark=""))
    assert work.ran == ["first", "second"]
    (moved / "source").write_text("2")
    with pytest.raises(SasvError, match="source: .* changed"):
        carry_out(work.steps(mark=""))


def test_a_file_with_two_roles_in_an_old_record(tmp_path):
    """Stage 3 trains on the table to which its development trials refer: one path and one digest
    with two roles.
    """
    for name in ("table", "trials"):
        (tmp_path / name).write_text(name)
    out = tmp_path / "out"
    roles = {"utterances": "table", "dev_utterances": "table", "dev_trials": "trials"}
    inputs = {role: tmp_path / name for role, name in roles.items()}
    step = Step("s", "do", lambda: (out / "made").write_text(""), out, ["made"], {}, inputs)
    carry_out([step])
    as_of_old(out, [tmp_path / "table", tmp_path / "trials"])
    assert step.state().action == "done"
    (tmp_path / "trials").write_text("others")
    assert "dev_trials: " in step.state().why and "utterances" not in step.state().why


def test_folders_among_the_options_of_an_old_record(tmp_path, capsys):
    """Corpora and weights were options. A corpus that was moved, and no other, counts as the
    same.
    """
    for name, text in (("corpus", "1"), ("moved", "1"), ("other", "22"), ("w", "w")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(text)
    out = tmp_path / "out"

    def step(corpus):
        inputs = {"folder": tmp_path / corpus, "weights.v": tmp_path / "w"}
        run = lambda: (out / "made").write_text("")  # noqa: E731
        return Step(
            "s",
            "do",
            run,
            out,
            ["made"],
            {"seed": 0},
            inputs,
            defaults={"seed": 0, "weights": {}, "rirs": ""},
        )

    def old(**options):
        given = {
            "folder": str(tmp_path / "corpus"),
            "weights": {"v": str(tmp_path / "w")},
            "seed": 0,
        } | options
        as_of_old(out, [], **given)

    carry_out([step("corpus")])
    for corpus in ("corpus", "moved"):
        carry_out([step(corpus)])
        old(rirs="")
        carry_out([step(corpus)])
    with pytest.raises(SasvError, match="folder: .*other changed"):
        carry_out([step("other")])
    old(folder="/gone/away")
    carry_out([step("other")])
    assert "folder was /gone/away, which is gone" in capsys.readouterr().err
    for changes in ({"rirs": "r"}, {"weights": {"v": str(tmp_path / "w"), "more": "m"}}):
        old(**changes)
        with pytest.raises(SasvError, match="contains other work"):
            carry_out([step("corpus")])


def test_interrupted_step_resumes_in_its_folder(work, capsys):
    steps = work.steps()

    def broken():
        (work.root / "b" / "half").write_text("kept")
        raise SasvError("killed")

    steps[1].run = broken
    with pytest.raises(SasvError, match="killed"):
        carry_out(steps)
    capsys.readouterr()
    carry_out(work.steps())
    assert (
        work.root / "b" / "half"
    ).exists() and "second: interrupted, going on" in capsys.readouterr().err
    (work.root / "a" / "out").unlink()
    carry_out(work.steps())
    assert "first: out is gone, going on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"facts": [], "done": true}', '{"facts": {}, "done": 1}', "\xff"]
)
def test_broken_record_is_reported_in_one_line(work, text):
    carry_out(work.steps())
    (work.root / "a" / "step.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        SasvError,
        match=r"first: .*step.json: .*--redo",
    ) as raised:
        carry_out(work.steps())
    assert "\n" not in str(raised.value)
    carry_out(work.steps(), redo=True)
    assert (work.root / "a.old-1" / "step.json").read_text(encoding="latin-1") == text


def test_files_that_no_step_made_are_left_alone(work):
    (work.root / "a").mkdir()
    (work.root / "a" / "mine").write_text("mine")
    with pytest.raises(SasvError, match="a: files, but no step.json"):
        carry_out(work.steps())
    carry_out(work.steps(), redo=True)
    assert (work.root / "a.old-1" / "mine").read_text() == "mine"


def test_killed_while_moving_aside_it_can_be_done_again(tmp_path, monkeypatch):
    """The process is killed at each rename. The same call then ends as if nothing had happened, and
    so does the earlier call.
    """

    def step(mark):
        def run():
            (tmp_path / "beside").mkdir(exist_ok=True)
            for folder in ("own", "beside"):
                (tmp_path / folder / "out").write_text(mark)

        own, beside = tmp_path / "own", tmp_path / "beside"
        return Step("s", "do", run, own, ["out", "../beside/out"], {"mark": mark}, beside=[beside])

    def content(name):
        return (tmp_path / name / "out").read_text()

    class Killed(BaseException):
        pass

    for kills in (0, 1):
        for following in ("x", "y"):
            carry_out([step("x")], redo=True)
            left = [kills]
            real = Path.rename

            def rename(self, target, left=left, real=real):
                if not left[0]:
                    raise Killed
                left[0] -= 1
                return real(self, target)

            with monkeypatch.context() as patched:
                patched.setattr(Path, "rename", rename)
                with pytest.raises(Killed):
                    carry_out([step("y")], redo=True)
            carry_out([step(following)], redo=True)
            assert content("own") == content("beside") == following
    kept = [path for path in tmp_path.iterdir() if ".old-" in path.name]
    assert len({(path / "out").read_text() for path in kept}) == 2  # both results exist somewhere


def test_the_record_does_not_say_done_while_outputs_change(work, monkeypatch):
    """At every moment of a run, the record only says that a step is done if its outputs belong to
    the record.
    """
    said = []
    steps = work.steps()
    first = steps[0].run

    def run():
        said.append(json.loads((work.root / "a" / "step.json").read_text())["done"])
        first()
        said.append(json.loads((work.root / "a" / "step.json").read_text())["done"])

    steps[0].run = run
    carry_out(steps)
    (work.root / "a" / "out").unlink()
    carry_out(steps)
    assert said == [False] * 4


def test_a_plan_says_what_would_happen(work):
    lines = plan_lines(work.steps())
    assert lines[0] == "[1/2] first: not begun; about 1:00:00, 2.00 GB" and lines[1] == "  do a"
    assert lines[-1] == "in all about 1:30:00 and 3.00 GB, estimated"
    assert not work.ran
    carry_out(work.steps())
    lines = plan_lines(work.steps(mark="x"))
    assert (
        "now 'x'): --redo moves it aside" in lines[0]
        and "unless the steps before it change" in lines[2]
    )
    assert plan_lines(work.steps())[-1] == "in all about 0.0 s and 0.00 GB, estimated"
    step = work.steps()[0]
    step.run = lambda: None
    step.outputs = ["other"]
    with pytest.raises(SasvError, match="first: did not leave .*other"):
        carry_out([step])


def test_module_never_removes_files():
    text = Path(module.__file__).read_text()
    assert not any(word in text for word in ("rmtree", "unlink", "os.remove", "rmdir"))

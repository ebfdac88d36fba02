"""The report: one page that needs no network, the same content as Markdown and image, and several
systems side by side.
"""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from conftest import shared
from sasv import cli
from sasv.commands import EvaluateOptions, ReportOptions, evaluate, report
from sasv.core.errors import SasvError
from sasv.report.page import Cell, Section
from sasv.tables import Table


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects the resources that the page loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def systems(trained, corpus, tmp_path_factory):
    """The folders of two evaluations on the same trials."""
    root = tmp_path_factory.mktemp("systems")
    tables = {name: str(corpus / f"{name}_dev.tsv") for name in ("enrolments", "trials")}
    utterances, model = str(corpus / "utterances.tsv"), str(trained / "model.safetensors")
    for name, enrolment in (("mean", "mean"), ("scores", "scores")):
        out = str(root / name)
        evaluate(
            EvaluateOptions(
                utterances, out, model=model, enrolment=enrolment, plot=False, intervals=0, **tables
            )
        )
    return root


@pytest.mark.slow
def test_a_report_of_two_systems(systems, corpus, tmp_path, capsys):
    utterances = str(corpus / "utterances.tsv")
    names = [f"A <&> B={systems / 'mean'}", str(systems / "scores")]
    report(ReportOptions(names, str(tmp_path), utterances=utterances, intervals=20, worst=2))
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open and "A <&> B" in page.words
    assert {source.split(":")[0].split("#")[0] for source in page.sources} <= {"", "data", "file"}
    audio = [source for source in page.sources if source.startswith("file://")]
    assert all(source.endswith(".wav") for source in audio)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    wanted = (
        "Metrics|Paired tests|Detection error trade-off|Scores of the classes|SPF-EER by attack"
    )
    wanted += "|Cost against threshold|Worst errors of scores|Embeddings|Configuration and data"
    assert set(wanted.split("|")) <= set(headings)
    markdown = (tmp_path / "report.md").read_text()
    links = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert links and all((tmp_path / link).exists() for link in links)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["scores"]["against_first"]["sasv_eer"]["p"] <= 1
    assert f"report: {tmp_path / 'report.html'}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_of_a_tandem_and_of_a_countermeasure(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400)
    cells = {
        "speaker": [f"s{number % 5}" for number in range(400)],
        "utterance": [f"u{number}" for number in range(400)],
        "label": [("target", "nontarget", "spoof")[label] for label in labels],
        "attack": ["A01" if label == 2 else "-" for label in labels],
        "score": [f"{value:.5f}" for value in rng.standard_normal(400) + 2 * (labels == 0)],
        "asv_score": [f"{value:.5f}" for value in rng.standard_normal(400) + 2 * (labels != 1)],
        "cm_score": [f"{value:.5f}" for value in rng.standard_normal(400) + 2 * (labels != 2)],
    }
    Table.build(cells).save(tmp_path / "tandem.tsv")
    report(ReportOptions([str(tmp_path / "tandem.tsv")], str(tmp_path / "one"), intervals=0))
    assert "t-EER path" in (tmp_path / "one" / "report.md").read_text()
    cells |= {"label": ["spoof" if label == 2 else "bonafide" for label in labels]}
    Table.build(
        {name: cells[name] for name in ("speaker", "utterance", "label", "attack", "score")}
    ).save(tmp_path / "cm.tsv")
    report(ReportOptions([str(tmp_path / "cm.tsv")], str(tmp_path / "two"), intervals=20))
    text = (tmp_path / "two" / "report.md").read_text()
    assert "bona fide and" in text and "EER by attack" in text and "t-EER path" not in text


@pytest.mark.long
@pytest.mark.speech
@pytest.mark.slow
def test_real_scores_of_one_file_side_by_side(tmp_path):
    scores = shared("scores", "asvspoof2019_la_dev_ecapa_aasist.csv.gz")
    key = shared("protocols", "asvspoof2019_la", "ASVspoof2019.LA.asv.dev.gi.trl.txt.gz")
    names = [f"ECAPA={scores}:asv_score", f"AASIST={scores}:cm_score"]
    found = report(ReportOptions(names, str(tmp_path), key=str(key), intervals=0))
    assert [one.name for one in found] == ["ECAPA", "AASIST"]
    assert found[0].metrics["sasv_eer"] == pytest.approx(17.371009121975543, abs=1e-9)


def test_mistakes_are_reported(systems, tmp_path, capsys):
    with pytest.raises(SasvError, match="two systems have the name scores; .*NAME=PATH"):
        report(ReportOptions([str(systems / "scores")] * 2, str(tmp_path), intervals=0))
    assert cli.main(["report", "x=/no/such/file.tsv", "--out", str(tmp_path)]) == 2
    assert "/no/such/file.tsv" in capsys.readouterr().err


def test_cells_by_hand():
    section = Section("T", "", ["a", "b"], [[Cell("x|y"), Cell("1", True, small="(0 to 2)")]])
    assert "| x\\|y | **1 (0 to 2)** |" in section.markdown("f")
    assert '<span class="best">1</span><br><small>(0 to 2)</small>' in section.html()
    assert section.text().splitlines()[-1].split() == ["x|y", "1", "(0", "to", "2)"]


NAMES = [
    "$x_{$",
    "$$",
    "a$b",
    "<script>alert(1)</script>",
    "[click](http://x)",
    "a|b",
    "`x`",
    "*b*",
    "\x1b[31mred",
]


@pytest.mark.slow
def test_external_names_are_not_interpreted_as_markup(tmp_path, monkeypatch):
    """They are not interpreted as mathematics in figures, tags in HTML, links in Markdown, or
    escape sequences in a terminal.
    """
    monkeypatch.setenv("MPLBACKEND", "module://a_notebook_that_is_not_here")
    rng = np.random.default_rng(0)
    many = len(NAMES)
    cells = {
        "speaker": [NAMES[row % many] for row in range(3 * many)],
        "utterance": [f"{row}{NAMES[row % many]}" for row in range(3 * many)],
        "label": [("target", "nontarget", "spoof")[row // many] for row in range(3 * many)],
        "attack": [NAMES[row % many] if row // many == 2 else "-" for row in range(3 * many)],
        "score": [f"{value:.4f}" for value in rng.standard_normal(3 * many)],
    }
    Table.build(cells).save(tmp_path / "scores.tsv")
    everything = "".join(NAMES).replace("/", "").replace("=", "")
    systems = [f"{everything}={tmp_path / 'scores.tsv'}"]
    report(
        ReportOptions(systems, str(tmp_path / "out"), title="$x_{$ <script>", intervals=0, worst=20)
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in page and "\x1b" not in page
    Page(page)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<script>" not in text and "[click](http" not in text and "\x1b" not in text
    errors = [line for line in text.splitlines() if line.startswith(("| rejected", "| accepted"))]
    widths = {line.replace("\\|", "").count("|") for line in errors}
    assert widths == {6}


@pytest.mark.slow
def test_a_system_whose_path_holds_an_equals_sign(systems, tmp_path):
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    (folder / "scores.tsv").write_bytes((systems / "scores" / "scores.tsv").read_bytes())
    assert (
        cli.main(
            [
                "report",
                str(folder / "scores.tsv"),
                "--out",
                str(tmp_path / "out"),
                "--intervals",
                "0",
            ]
        )
        == 0
    )


def test_no_text_of_a_checkpoint_injects_anything_into_a_card():
    import yaml

    from sasv.commands._push import card, front_matter
    from sasv.models import Specification

    licence = "CC-BY-4.0\ntags:\n- <script>alert(1)</script>\n---\n[x](http://y)"
    specification = Specification(
        "ecapa-tdnn", {}, licence=licence, training={"data": "<b>x</b>\n# title"}
    )
    header = front_matter(specification)
    (found,) = [part for part in header.split("---\n") if part.strip()]
    assert yaml.safe_load(found)["tags"] == ["speaker-verification", "anti-spoofing", "sasv"]
    text = card("me/voice", specification, {})
    assert (
        "\\<script\\>" in text
        and "<script>" not in text
        and "\\[x\\](http" in text
        and "\n# title" not in text
    )

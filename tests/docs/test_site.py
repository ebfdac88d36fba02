"""The documentation site builds without a warning, and its notebooks run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path):
    """They run from top to bottom in an empty folder, and are stored without outputs."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    document = nbformat.read(notebook, as_version=4)
    nbformat.validate(document)
    assert all(not cell.outputs for cell in document.cells if cell.cell_type == "code")
    nbclient.NotebookClient(
        document, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


@pytest.mark.long
@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    """Without the API pages, which import every module twice, and are built by ``make docs``."""
    pytest.importorskip("furo")
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("api"))
    (tmp_path / "src").symlink_to(DOCS.parent / "src")
    words = [
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-D",
        "sasv_api=0",
        str(source),
        str(tmp_path / "site"),
    ]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--utterances" in (tmp_path / "site" / "reference" / "cli.html").read_text()


def test_links_between_pages_of_the_repository_resolve():
    """Checks relative links, as a reader of the repository follows them."""
    pages = [*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md"), *DOCS.parent.glob("src/sasv/**/*.md")]
    pages = [page for page in pages if page.parent.name != "templates"]  # of reports, not pages
    made = ("reference/cli.md", "reference/api", "model-card.md", "notebooks/")
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            target = (page.parent / link).resolve()
            inside = target.relative_to(DOCS).as_posix() if target.is_relative_to(DOCS) else ""
            assert "://" in link or target.exists() or inside.startswith(made), (
                f"{page.name}: {link}"
            )


def test_every_page_is_in_a_table_of_contents():
    listed = set(re.findall(r"^([\w/-]+)$", (DOCS / "index.md").read_text(), re.MULTILINE))
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    pages = {page for page in pages if not page.startswith(("reference/api", "notebooks/"))} - {
        "index"
    }
    assert pages <= listed
    assert {f"notebooks/{notebook.stem}" for notebook in NOTEBOOKS} <= listed

"""docs/architecture.md is true: rooms in order, imports only downwards, modules small."""

import ast
import re
from pathlib import Path

import pytest

import sasv

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(sasv.__file__).parent
ROOMS = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
MODULES = sorted(SOURCE.rglob("*.py"))


def test_the_map_names_every_room():
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert set(ROOMS) == packages | {"cli"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(module):
    inside = module.relative_to(SOURCE)
    room = inside.parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):  # the entrances
        return
    for node in ast.walk(ast.parse(module.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name and name.startswith("sasv."):
                other = name.split(".")[1]
                assert ROOMS.index(other) <= ROOMS.index(room), f"{inside} imports {name}, a room above it"


def test_modules_stay_small_and_documented():
    for module in MODULES:
        text = module.read_text()
        assert len(text.splitlines()) <= 400, module
        assert ast.get_docstring(ast.parse(text)), f"{module} has no docstring"


def test_public_functions_and_classes_have_docstrings():
    missing = []
    for module in MODULES:
        tree = ast.parse(module.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                members = [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
                missing += [
                    f"{module.name}:{member.name}"
                    for member in members
                    if isinstance(member, ast.FunctionDef | ast.ClassDef)
                    and not member.name.startswith("_")
                    and member.name
                    not in (
                        "forward",
                        "network",
                        "sizes_of",
                        "recognises",
                        "resynthesise",
                        "resynthesise_many",
                        "generate",
                    )
                    and not ast.get_docstring(member)
                ]
    assert not missing

"""docs/architecture.md is correct: rooms are in order, imports go in one direction, there are no
circles, and no torch where it says so.
"""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import sasv

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(sasv.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
TORCHLESS = (
    "core",
    "storage",
    "audio",
    "tables",
    "scores",
    "metrics",
    "models",
    "decision",
    "runtime",
    "store",
)
"""Rooms that import no torch, so that a service can decide without it."""
LIGHT = (*TORCHLESS, "cli")
SERVICE = "service"
"""The room that its own extra makes importable."""
LONGEST_MODULE = 500

PATHS = {
    ".".join(["sasv", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}
"""Dotted name -> file of every module."""
ENTRANCES = ("sasv", "sasv.__main__")
"""The package itself and ``python -m sasv`` stand above all rooms."""


class Arrow(NamedTuple):
    """A dependency between modules: at import, later (in a function), or only for types."""

    source: str
    target: str
    when: str


def room_of(module: str) -> str:
    """Return the room of a module: the package or module right below sasv."""
    return module.split(".")[1]


def resolved(name: str) -> str:
    """Return the module of a dotted name that may end in an attribute."""
    while name not in PATHS and "." in name:
        name = name.rpartition(".")[0]
    return name


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def called_name(call: ast.Call) -> str:
    """Return the last part of the name of what is called; empty for what has none."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


@functools.cache
def arrows(module: str) -> set[Arrow]:
    """Return every arrow from a module: statements anywhere in it, literal strings for importlib or
    a registry.
    """
    found: set[Arrow] = set()

    def add(name: str, when: str) -> None:
        if name.split(".")[0] == "sasv":
            found.add(Arrow(module, resolved(name), when))

    def visit(node: ast.AST, when: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "later" if when == "import" else when
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, "types")
            for child in node.orelse:
                visit(child, when)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(alias.name, when)
        if isinstance(node, ast.ImportFrom):
            package = module if PATHS[module].name == "__init__.py" else module.rpartition(".")[0]
            for _ in range(node.level - 1):
                package = package.rpartition(".")[0]
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            for alias in node.names:
                add(f"{base}.{alias.name}", when)
        if isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            for name in re.findall(r"sasv(?:\.\w+)+", ast.unparse(node.args[0])):
                add(name, "later")
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"sasv(\.\w+)+:\w+", text):
            add(text.partition(":")[0], "later")
        for child in ast.iter_child_nodes(node):
            visit(child, when)

    visit(parsed(PATHS[module]), "import")
    return {arrow for arrow in found if arrow.target != module}


def test_the_map_names_every_room():
    packages = {
        path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()
    }
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    assert set(ROOMS) == packages | modules
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize("module", [name for name in PATHS if name not in ENTRANCES])
def test_a_room_imports_only_rooms_above_it_in_the_table(module):
    for arrow in arrows(module):
        assert arrow.target not in ENTRANCES, (
            f"{module} imports from the package sasv itself, which stands below it"
        )
        place, wanted = ROOMS.index(room_of(module)), ROOMS.index(room_of(arrow.target))
        assert wanted <= place, (
            f"{module} imports {arrow.target}, whose room stands below its own in the table"
        )


@pytest.mark.parametrize("which", ["import", "any"])
def test_no_import_circle(which):
    """There is none among imports of modules, and none through later imports in functions."""
    graph = {
        module: {
            arrow.target
            for arrow in found
            if arrow.when == "import" or (which == "any" and arrow.when == "later")
        }
        for module, found in ((name, arrows(name)) for name in PATHS)
        if module not in ENTRANCES
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_imports_in_every_form_are_detected(tmp_path, monkeypatch):
    """Tests the check itself: each way to refer to a module of sasv gives an arrow."""
    path = tmp_path / "example.py"
    path.write_text(
        "import sasv.core.files\n"
        "from sasv import __version__\n"
        "from sasv import tables\n"
        "from ..audio import io\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from sasv.models.specification import Specification\n"
        "REGISTRY = {'x': 'sasv.encoders.ecapa:EcapaTdnn'}\n"
        "def late(name):\n"
        "    import importlib\n"
        "    from sasv.scores import cosine\n"
        "    importlib.import_module('sasv.losses')\n"
        "    importlib.import_module(f'sasv.commands.{name}')\n"
    )
    monkeypatch.setitem(PATHS, "sasv.core.example", path)
    found = {(arrow.target, arrow.when) for arrow in arrows("sasv.core.example")}
    assert found == {
        ("sasv.core.files", "import"),
        ("sasv", "import"),
        ("sasv.tables", "import"),
        ("sasv.audio.io", "import"),
        ("sasv.models.specification", "types"),
        ("sasv.encoders.ecapa", "later"),
        ("sasv.scores.cosine", "later"),
        ("sasv.losses", "later"),
        ("sasv.commands", "later"),
    }


BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("_sysconfigdata"):  # a module of the standard library
            return
        if name.partition(".")[0] in blocked or (allowed and name.partition(".")[0] not in allowed):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
failed = []
for module in modules:
    try:
        importlib.import_module(module)
    except ImportError as error:
        failed.append(f"{module}: {error}")
sys.exit("\\n".join(failed) or 0)
"""


def import_without(modules: list[str], blocked: set[str], allowed: set[str] | None = None) -> None:
    """Import modules in a process in which others cannot be imported."""
    head = f"modules, blocked, allowed = {modules!r}, {blocked!r}, {allowed or set()!r}\n"
    done = subprocess.run([sys.executable, "-c", head + BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_rooms_without_torch():
    modules = [name for name in PATHS if name not in ENTRANCES and room_of(name) in TORCHLESS]
    assert {room_of(name) for name in modules} >= {
        "core",
        "audio",
        "tables",
        "scores",
        "metrics",
        "models",
        "runtime",
        "store",
    }
    import_without(modules, {"torch"})


@pytest.mark.slow
@pytest.mark.parametrize("extras", [(), ("torch",), ("serve",)])
def test_modules_import_with_the_core_dependencies_alone(extras):
    """Extras are imported where they are used, so packages that pyproject.toml does not require are
    blocked here. With PyTorch, every module can be imported except those of the service; without
    it, those of the rooms that do not need it, and the command line.
    """
    rooms = {
        (): {*LIGHT},
        ("torch",): {*ROOMS} - {SERVICE},
        ("serve",): {*LIGHT, SERVICE},
    }[extras]
    modules = [
        name
        for name in PATHS
        if name != "sasv.__main__" and (name == "sasv" or room_of(name) in rooms)
    ]
    allowed = installed_by(extras) | set(sys.stdlib_module_names) | {"sasv"}
    import_without(modules, set(), allowed)


def installed_by(extras: tuple[str, ...]) -> set[str]:
    """Return the top-level modules of sasv's dependencies and of theirs, with these extras."""
    import tomllib
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    for name in [one for one in wanted if one.startswith("sasv[")]:
        for extra in name.removeprefix("sasv[").removesuffix("]").split(","):
            wanted += project["optional-dependencies"][extra]
    closed: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if name in closed or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        closed.add(name)
        try:
            wanted += metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
    tops = metadata.packages_distributions().items()
    return {top for top, owners in tops if closed & {canonicalize_name(owner) for owner in owners}}


def test_modules_stay_small_and_documented():
    for module, path in PATHS.items():
        assert len(path.read_text().splitlines()) <= LONGEST_MODULE, module
        assert ast.get_docstring(parsed(path)), f"{module} has no docstring"


INHERITED = (
    "forward",
    "network",
    "recognises",
    "read",
    "hidden_states",
    "min_samples",
    "resynthesise",
    "resynthesise_many",
    "generate",
)
"""Methods whose docstring is in the base class."""


def test_public_functions_and_classes_have_docstrings():
    missing = []
    for module, path in PATHS.items():
        for node in parsed(path).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            members = [node, *(node.body if isinstance(node, ast.ClassDef) else [])]
            missing += [
                f"{module}:{member.name}"
                for member in members
                if isinstance(member, ast.FunctionDef | ast.ClassDef)
                and not member.name.startswith("_")
                and member.name not in INHERITED
                and not ast.get_docstring(member)
            ]
    assert not missing


@pytest.mark.parametrize("module", [name for name in PATHS if not name.startswith("sasv.cli")])
def test_only_the_command_line_prints(module):
    for node in ast.walk(parsed(PATHS[module])):
        called = called_name(node) if isinstance(node, ast.Call) else ""
        assert called != "print", f"{module}, line {node.lineno}: return the text, or log it"

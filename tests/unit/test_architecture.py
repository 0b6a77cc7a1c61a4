"""The shape of the package: layers, late imports, sizes, docstrings. Read from the syntax trees."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import rsearch_cli
from rsearch_cli.app import COMMANDS

PACKAGE = Path(rsearch_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a module may import from lower layers and from its own package.
LAYERS = (
    {"errors", "types", "terminal"},
    {"streams", "compat"},
    {"distributed", "home", "key_flags"},
    {"runs"},
    {"recipe"},
    {"memory"},
    {"timing"},
    {"services"},
    {"interrupts"},
    {"questions", "protocol", "reward"},
    {"search"},
    {"policy"},
    {"rollout"},
    {"dialogue"},
    {"evaluation", "publishing"},
    {"ui"},
    {"viewer"},
    {"training"},
    {"workflows"},
    {"session", "serving"},
    {"commands"},
    {"app"},
    {"__main__"},
)
LAYER_OF = {name: height for height, names in enumerate(LAYERS) for name in names}
ALLOWED_BESIDE = {("reward", "protocol"), ("questions", "protocol")}

DOCUMENTED_SHARE = 0.9
MOST_LINES = 400


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(nodes: Iterator[ast.AST]) -> list[str]:
    """Dotted names that import statements among the nodes bind, `from a import b` as `a.b`."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` that are executed when the module is imported."""
    for child in ast.iter_child_nodes(node):
        is_type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if is_type_checking:
            continue
        yield child
        yield from run_at_import(child)


def unit(path: Path) -> str:
    """The part of the package that a file belongs to: `questions`, `app`, ..."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def forbidden_imports(own: str, tree: ast.Module) -> list[str]:
    """Units that `own` imports though they don't lie below it."""
    dotted = [n.split(".") for n in imported_names(ast.walk(tree))]
    others = {parts[1] for parts in dotted if parts[0] == "rsearch_cli"} & LAYER_OF.keys()
    return sorted(
        other
        for other in others - {own}
        if LAYER_OF[other] >= LAYER_OF[own] and (own, other) not in ALLOWED_BESIDE
    )


def heavy_at_import(tree: ast.Module, banned: set[str]) -> list[str]:
    names = imported_names(run_at_import(tree))
    return [name for name in names if name.partition(".")[0] in banned]


def module_name(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_ever(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, functions included, but for those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from run_ever(child)


def reachable(start: str, trees: Mapping[str, ast.Module]) -> set[str]:
    """Modules that `start` imports, directly or not, when it is imported or later."""
    found, waiting = {start}, [start]
    while waiting:
        names = imported_names(run_ever(trees[waiting.pop()]))
        modules = {name for name in names if name in trees}
        modules |= {name.rpartition(".")[0] for name in names} & trees.keys()
        waiting += modules - found
        found |= modules
    return found


def is_public(node: ast.AST) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, kinds) and not node.name.startswith("_")


def public_definitions(node: ast.AST) -> Iterator[ast.AST]:
    """Public classes, their public methods, and public functions; nothing inside functions."""
    for child in ast.iter_child_nodes(node):
        if is_public(child):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child)


@pytest.fixture(scope="module")
def banned(repository: Path) -> set[str]:
    """The one list of heavy modules: the one that ruff holds."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    rules = settings["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    return set(rules["banned-module-level-imports"])


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_part_has_a_layer(path: Path) -> None:
    assert unit(path) in LAYER_OF.keys() | {"__init__"}, "add it to LAYERS"


@pytest.mark.parametrize("path", [p for p in MODULES if unit(p) != "__init__"], ids=relative)
def test_imports_go_downward(path: Path) -> None:
    assert forbidden_imports(unit(path), parse(path)) == []


def test_nothing_imports_a_command_but_the_app() -> None:
    """Commands share their options; the app imports a command when it is invoked."""
    for path in MODULES:
        names = imported_names(ast.walk(parse(path)))
        commands = {n for n in names if n.startswith("rsearch_cli.commands.")}
        allowed = "rsearch_cli.commands.options." if unit(path) == "commands" else "nothing"
        assert [n for n in commands if not f"{n}.".startswith(allowed)] == [], relative(path)
    assert {entry[0] for entry in COMMANDS.values()} == {
        path.stem for path in (PACKAGE / "commands").glob("*.py")
    } - {"__init__", "options"}


@pytest.mark.parametrize("path", sorted((PACKAGE / "workflows").glob("*.py")), ids=relative)
def test_workflows_know_no_command_line_and_print_no_result(path: Path) -> None:
    names = imported_names(ast.walk(parse(path)))
    printing = ("typer", "rsearch_cli.streams", "rsearch_cli.ui.output", "rsearch_cli.ui.stderr")
    assert [name for name in names if name.startswith(printing)] == []


@pytest.mark.parametrize("command", ["eval", "infer"])
def test_a_command_that_does_not_train_imports_nothing_of_training(command: str) -> None:
    trees = {module_name(path): parse(path) for path in MODULES}
    found = reachable(f"rsearch_cli.commands.{command}", trees)
    assert [name for name in sorted(found) if name.startswith("rsearch_cli.training")] == []
    assert "rsearch_cli.rollout.rollout" in found


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_heavy_modules_are_imported_late(path: Path, banned: set[str]) -> None:
    assert heavy_at_import(parse(path), banned) == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_files_say_what_they_are_and_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stem not in ("utils", "helpers", "misc")
    assert text.count("\n") <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "the module has no docstring"


def test_public_names_are_documented() -> None:
    public = [(p, node) for p in MODULES for node in public_definitions(parse(p))]
    bare = [f"{relative(p)}:{n.lineno} {n.name}" for p, n in public if not ast.get_docstring(n)]
    assert public
    assert 1 - len(bare) / len(public) >= DOCUMENTED_SHARE, bare


@pytest.mark.parametrize(
    ("own", "source", "found"),
    [
        ("search", "from rsearch_cli.training.callbacks import Progress", ["training"]),
        ("training", "def f():\n    import rsearch_cli.workflows.train", ["workflows"]),
        ("questions", "from rsearch_cli import reward, errors", ["reward"]),
        ("questions", "from rsearch_cli.protocol.plan import read_plan", []),
        ("protocol", "from rsearch_cli.questions.sets import open_question_set", ["questions"]),
        ("app", "from rsearch_cli import __version__", []),
    ],
)
def test_the_layer_check_sees(own: str, source: str, found: list[str]) -> None:
    assert forbidden_imports(own, ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("try:\n    import torch.nn as nn\nexcept ImportError:\n    pass", ["torch.nn"]),
        ("class A:\n    from numpy import array", ["numpy.array"]),
        ("async def f():\n    import torch", []),
        ("if TYPE_CHECKING:\n    import torch", []),
        ("import torchless", []),
    ],
)
def test_the_late_import_check_sees(source: str, found: list[str]) -> None:
    assert heavy_at_import(ast.parse(source), {"torch", "numpy"}) == found


def test_the_training_check_sees_imports_in_functions_and_through_other_modules() -> None:
    sources = {
        "p.a": "from p import b\nif TYPE_CHECKING:\n    import p.d",
        "p.b": "def f():\n    from p.c import g",
        "p.c": "import json",
        "p.d": "",
    }
    trees = {name: ast.parse(source) for name, source in sources.items()}
    assert reachable("p.a", trees) == {"p.a", "p.b", "p.c"}


def test_the_docstring_check_sees_methods_and_skips_what_is_private() -> None:
    source = "class A:\n    def b(self): ...\n    def _c(self): ...\ndef _d():\n    def e(): ..."
    assert [node.name for node in public_definitions(ast.parse(source))] == ["A", "b"]

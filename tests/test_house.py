"""The structure that the code keeps to: floors, no circles, and sizes that fit a screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# a file imports only from its own floor or below; the order is that of the layout
FLOORS = (
    (
        *("errors", "compat", "digest", "device", "interrupt", "extras", "faults", "launch", "network", "tasks"),
        *("declared", "progress"),
        *("options", "recipes"),
    ),
    ("media", "nets"),
    ("models",),
    ("decoders",),
    ("bridges",),
    ("data",),
    ("translate",),
    ("spaces", "guided"),
    ("training",),
    ("evaluation", "serving", "cluster"),
    ("cli",),
)
FUNCTION, P90, FILE = 70, 20, 320
HEAVY = {"torch", "numpy", "transformers", "diffusers", "librosa", "torchaudio", "PIL", "soundfile", "av", "scipy"}
# calls of as many as there are, layers in a row; and torch's own operators, which take no names
IN_A_ROW = ("Sequential", "super().__init__", "torch.ops", "torch.native_batch_norm", "torch.batch_norm")
FILES = sorted((ROOT / "mmx").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf8")) for path in FILES}


def imports(tree: ast.AST) -> set[str]:
    """The modules of ours that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & TREES.keys()) or {node.module}
    return {name for name in found if name in TREES}


def floor_of(module: str) -> int | None:
    room = module.split(".")[1] if "." in module else None
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def test_every_file_has_a_floor_and_imports_only_from_it_or_below() -> None:
    homeless = [m for m in TREES if floor_of(m) is None and m not in ("mmx", "mmx.__main__")]
    assert not homeless
    upward = [
        f"{module} imports {other}"
        for module, tree in TREES.items()
        if floor_of(module) is not None
        for other in imports(tree)
        if floor_of(other) is not None and floor_of(other) > floor_of(module)
    ]
    assert not upward, "\n".join(upward)


def test_no_circle_between_modules_even_inside_functions() -> None:
    edges = {module: imports(tree) - {module} for module, tree in TREES.items()}
    reach: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail(f"a circle: {' > '.join(path[path.index(module) :])} > {module}")
        if module in reach:
            return
        for other in sorted(edges[module]):
            visit(other, (*path, module))
        reach[module] = 1

    for module in edges:
        visit(module, ())


def functions(tree: ast.AST) -> list[tuple[str, int]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(n.name, n.end_lineno - n.lineno + 1) for n in ast.walk(tree) if isinstance(n, kinds)]


def test_functions_and_files_fit_a_screen() -> None:
    sizes = [(f"{module}.{name}", size) for module, tree in TREES.items() for name, size in functions(tree)]
    assert not [(name, size) for name, size in sizes if size > FUNCTION]
    assert sorted(size for _, size in sizes)[int(0.9 * len(sizes))] <= P90
    lines = {str(path): len(path.read_text(encoding="utf8").splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > FILE}


def test_nothing_heavy_is_imported_at_the_top_of_the_command_line() -> None:
    heavy = [
        f"{module}: {name}"
        for module, tree in TREES.items()
        if module.startswith("mmx.cli") or module in ("mmx.tasks", "mmx.options", "mmx.errors", "mmx.digest")
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""])
        if name.split(".")[0] in HEAVY
    ]
    assert not heavy


def test_no_call_has_more_than_five_positional_arguments() -> None:
    crowded = [
        f"{module}:{node.lineno}: {len(node.args)}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and len(node.args) > 5
        and not ast.unparse(node.func).removeprefix("nn.").startswith(IN_A_ROW)
    ]
    assert not crowded, "\n".join(crowded)

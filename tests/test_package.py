"""One name for all code, one direction of imports, nothing left in a program that uses it."""

import ast

import pytest
from conftest import ROOT

# Each folder, and what it may import of ours besides itself; the scripts stand for themselves.
MAY_IMPORT = {
    "configs": {"utils"},
    "data": {"configs", "utils"},
    "third_party": set(),
    "models": {"data", "configs", "utils", "third_party"},
    "tools": {"models", "data", "configs", "utils"},
    "demo": {"tools", "models", "data", "configs", "utils"},
}
OURS = {*MAY_IMPORT, "utils", "inference", "preprocess", "main_finetune", "tests"}


def imported(path) -> set[str]:
    """Return the full names of all modules that a file imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def files(*folders: str) -> list:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if ROOT / "third_party/YOLO-World" not in path.parents]


def test_all_code_is_imported_under_one_name():
    places = [*ROOT.glob("*.py"), *files(*MAY_IMPORT), *files("tests")]
    for path in places:
        others = {name.split(".")[0] for name in imported(path)} & (OURS - {"tests"})
        assert not others, f"{path}: imports {others} without human_anomaly before it"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_in_one_direction(folder):
    for path in files(folder):
        ours = {n.split(".")[1] for n in imported(path) if n.startswith("human_anomaly.")}
        wrong = ours - {folder} - MAY_IMPORT[folder]
        assert not wrong, f"{path}: imports {wrong}"

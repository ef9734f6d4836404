"""Imports go in one direction only."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "pixsieve"
LAYERS = (
    {"errors", "schema", "fingerprint", "stage", "text", "processes", "json_types"},
    {"storage"},
    {"sources", "image"},
    {"models"},
    {"scorers", "select"},
    {"export"},
    {"stages", "pipeline", "recipe"},
    {"engine"},
    {"verify", "why", "query", "report", "preview_report"},
    {"loaders"},
    {"repair"},
    {"testing"},
    {"cli", "cli_loaders", "cli_models", "cli_options", "cli_progress", "cli_repair"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
INSIDE_A_FUNCTION = {("pipeline", "engine")}
"""What may be imported upwards, when a function is called."""
ONLY_HERE = {
    "rich": {"engine/bars.py"},
    "click": {"cli.py", "cli_loaders.py", "cli_models.py", "cli_options.py", "cli_repair.py"},
    "duckdb": {"select/expression.py", "query.py", "loaders/duckdb.py"},
}
"""Libraries that one module knows of."""


def imports(tree: ast.AST, *, inside: bool = False):
    """Yield (module, whether it stands in a function) for what running the code imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "pixsieve":
                yield from ((f"pixsieve.{alias.name}", inside) for alias in node.names)
            else:
                yield str(node.module), inside
        else:
            in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from imports(node, inside=inside or in_function)


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def top(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_layer_or_from_below(path):
    mine = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert mine in LEVEL, "give the new module a layer"
    for name, inside in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if not name.startswith("pixsieve."):
            continue
        if top(name) == "__version__" or (inside and (mine, top(name)) in INSIDE_A_FUNCTION):
            continue
        assert LEVEL[top(name)] <= LEVEL[mine], f"{mine} imports {name}"


def test_the_package_itself_imports_nothing_at_once():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    found = {name.split(".")[0] for name, _ in imports(tree)}
    assert found <= sys.stdlib_module_names


def test_verify_shares_no_code_with_what_it_checks():
    shared = {"errors", "schema", "image", "text", "verify"}
    processes = {f"pixsieve.engine.{name}" for name in ("drive", "local", "progress", "units")}
    for path in (PACKAGE / "verify").glob("*.py"):
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name.startswith("pixsieve."):
                assert top(name) in shared or name in processes, path.name


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_is_known_to_one_module(library):
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.split(".")[0] == library
    }
    assert users == ONLY_HERE[library]


def test_every_layer_names_what_there_is():
    there = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert set(LEVEL) == there

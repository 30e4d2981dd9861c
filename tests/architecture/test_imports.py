"""Imports go one way, other people's libraries stop at the edge, and nothing grows too large to be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("broker", "connectors", "cli") for path in (ROOT / package).rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef

LONGEST_FILE = 350
MOST_PARAMETERS = 5

# What a package may import beyond the standard library.
MAY_IMPORT = {
    "broker/core": ("broker.core",),
    "broker/runtime": ("broker.core", "broker.runtime", "trio"),
    "broker/handlers": ("broker.core", "broker.runtime", "broker.handlers", "trio", "attrs", "cattrs"),
    "broker/client": ("broker.core", "broker.client", "trio", "wsproto", "httpx", "msgspec"),
}

# Where other people's types stop.
BELONGS_TO = {
    "trio_websocket": {"broker/edge/websocket.py"},
    "wsproto": {"broker/client/socket.py"},
    "h11": {"broker/edge/heads.py"},
    "httpx": {"broker/client/publishing.py"},
    "cattrs": {"broker/config/reading.py", "broker/handlers/data.py"},
    "watchfiles": {"cli/reload.py"},
    "jwt": {"broker/edge/tokens.py"},
    "pamqp": {"connectors/amqp/codec.py", "connectors/amqp/properties.py"},
    "cloudevents": {"connectors/cloudevents.py"},
    "standardwebhooks": {"connectors/signatures.py"},
    "structlog": {"broker/edge/logging.py"},
    "prometheus_client": {"broker/edge/metrics.py"},
    "sqlite3": {"broker/edge/sqlite_file.py"},
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; what is imported from a package may be a module as well."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def top(module: str) -> str:
    return module.partition(".")[0]


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def positional(arguments: ast.arguments) -> int:
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    return len(named) - (named[:1] in (["self"], ["cls"]))


def is_command(path: Path, function: Function) -> bool:
    """Whether this is a command of the command line: its parameters are the options that people type."""
    return name(path).startswith("cli/") and bool(function.decorator_list)


def test_the_declared_contracts_are_kept() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    strangers = {
        (name(path), module)
        for path in MODULES
        if name(path).startswith(f"{package}/")
        for module in imports(path)
        if top(module) not in sys.stdlib_module_names and not within(module, MAY_IMPORT[package])
    }
    assert strangers == set()


def test_connectors_know_the_core_only() -> None:
    inside = ("cli", "broker.app", "broker.edge", "broker.handlers", "broker.runtime")
    strangers = {
        (name(path), module)
        for path in MODULES
        if name(path).startswith("connectors/")
        for module in imports(path)
        if within(module, inside)
    }
    assert strangers == set()


@pytest.mark.parametrize("library", BELONGS_TO)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    importers = {name(path) for path in MODULES if library in map(top, imports(path))}
    assert importers <= BELONGS_TO[library]


def test_no_file_is_too_long_to_be_read() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_has_too_many_parameters() -> None:
    assert [
        f"{name(path)}: {function.name}"
        for path in MODULES
        for function in functions(path)
        if positional(function.args) > MOST_PARAMETERS and not is_command(path, function)
    ] == []

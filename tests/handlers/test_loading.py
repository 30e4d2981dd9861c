"""Finding handlers by the names in the configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.errors import OperatorError
from broker.handlers.loading import load_handlers

MODULES = {
    "loading_good": "from broker import Handlers\napp = Handlers()\nother = Handlers(path='/other')\nnumber = 1\n",
    "loading_broken": "import nowhere_at_all\n",
    "loading_wrong": "from broker import Handlers\napp = Handlers()\n@app.on('subscribe')\nasync def f(): ...\n",
    "loading_exit": "import sys\nsys.exit(0)\n",
    "loading_syntax": "async def\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


def test_handlers_are_found_by_module_and_name(folder: Path) -> None:
    found = load_handlers(["loading_good", "loading_good:other"], folder)
    assert [each.path for each in found] == [None, "/other"]
    assert load_handlers([], folder) == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("nowhere:app", "'nowhere:app' can't be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("loading_good:nothing", "'loading_good:nothing': there is no such name in it"),
        ("loading_good:number", "'loading_good:number': that is no Handlers but int"),
        ("loading_broken:app", "No module named 'nowhere_at_all' (FOLDER/loading_broken.py, line 1)"),
        ("loading_exit:app", "can't be imported: SystemExit: 0 (FOLDER/loading_exit.py, line 2)"),
        ("loading_syntax:app", "can't be imported: SyntaxError"),
        ("loading_wrong:app", "'loading_wrong:app': loading_wrong.f: 'subscribe' is a command of the broker's own"),
        (":app", "':app' can't be imported: ValueError"),
        (".relative:app", "'.relative:app' can't be imported: TypeError"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, name: str, complaint: str) -> None:
    with pytest.raises(OperatorError) as refused:
        load_handlers([name], folder)
    assert str(refused.value).startswith("handlers.modules: ")
    assert complaint.replace("FOLDER", str(folder)) in str(refused.value)


def test_the_standard_library_comes_first_then_the_folder_then_what_is_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, installed = ("tabnanny", "_lsprof"), "standardwebhooks"
    for name in (*library, installed):
        monkeypatch.setitem(sys.modules, name, sys)  # to be as it was in the end
        del sys.modules[name]
        (folder / f"{name}.py").write_text(MODULES["loading_good"])
    for name in library:
        with pytest.raises(OperatorError, match="there is no such name in it"):
            load_handlers([name], folder)
    assert len(load_handlers([installed], folder)) == 1

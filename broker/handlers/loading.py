"""Finding the application's handlers by the names in the configuration: `package.module:app`."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from broker.core.errors import OperatorError
from broker.handlers.declaring import Handlers


def load_handlers(names: Iterable[str], folder: Path) -> Sequence[Handlers]:
    """Import the modules, of which `folder` has those that the standard library has not; then comes what is installed.

    `package.module` alone stands for its `app`. Raises OperatorError, with what could not be found or imported.
    """
    if str(folder) not in sys.path:
        sys.path.insert(_end_of_standard_library(), str(folder))
    return [_load(name) for name in names]


def _end_of_standard_library() -> int:
    # In front of it a `token.py` of the application's would be what anybody gets who imports `token` from now on.
    # Behind what is installed, the application's modules would be hidden by whatever some package brings along.
    library = str(Path(os.__file__).parent)
    return 1 + max((i for i, place in enumerate(sys.path) if place in (library, f"{library}/lib-dynload")), default=-1)


def _load(name: str) -> Handlers:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except OperatorError as error:
        raise OperatorError(f"handlers.modules: {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}{_where(error)}"
        raise OperatorError(f"handlers.modules: {name!r} can't be imported: {what}") from error
    found = getattr(module, attribute or "app", None)
    if not isinstance(found, Handlers):
        what = "there is no such name in it" if found is None else f"that is no Handlers but {type(found).__name__}"
        raise OperatorError(f"handlers.modules: {name!r}: {what}")
    return found


def _where(error: BaseException) -> str:
    """The line of the application's at which its import has failed; of what it imports itself, the one that does."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    return f" ({inner[-1].filename}, line {inner[-1].lineno})" if inner else ""

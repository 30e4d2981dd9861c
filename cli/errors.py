"""How a command fails: a message on standard error and an exit status, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from broker.core.errors import BrokerError, OperatorError

FAILED = 1
USED_WRONGLY = 2
INTERRUPTED = 130


@contextmanager
def reporting() -> Iterator[None]:
    """Turn errors into messages and exit statuses: 2 for faulty configuration, 1 for what was refused or failed.

    A context manager that also serves as a decorator: `@reporting()` beneath typer's own.
    """
    try:
        yield
    except OperatorError as error:
        tell(str(error))
        raise typer.Exit(USED_WRONGLY) from None
    except BrokerError as error:
        tell(str(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def refuse(message: str, status: int = FAILED) -> typer.Exit:
    """Say why not; raise what this returns."""
    tell(message)
    return typer.Exit(status)


def tell(message: str) -> None:
    """Print a line for people, on standard error."""
    typer.echo(message, err=True)

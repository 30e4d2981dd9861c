"""The `broker` command: what there is, and nothing of how it is done."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

import broker
from broker.app import STOP_SIGNALS
from cli.config import app as config_app
from cli.policy import app as policy_app
from cli.publish import publish
from cli.run import run
from cli.tail import tail
from cli.token import token

app = typer.Typer(
    name="broker",
    help="An event broker: services publish, browsers subscribe, and a declared policy says who sees what.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run)
app.command("publish")(publish)
app.command("tail")(tail)
app.command("token")(token)
app.add_typer(policy_app, name="policy")
app.add_typer(config_app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"broker {broker.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point of the `broker` script."""
    try:
        app()
    finally:
        for number in STOP_SIGNALS:  # all is done: one more, while Python takes itself apart, is no failure
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()

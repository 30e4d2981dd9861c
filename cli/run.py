"""`broker run`: serve until a signal says stop."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Annotated

import attrs
import trio
import typer

from broker.app import Address
from broker.config import Config, load_config
from broker.edge.logging import configure_logging
from cli.errors import reporting, tell
from cli.wiring import build_broker


@reporting()
def run(
    config: Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")] = Path("config.toml"),
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Also publish what standard input says, a line an event.")
    ] = False,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write url, port and pid here, as JSON, when serving.", metavar="PATH")
    ] = None,
    welcome: Annotated[bool, typer.Option("--welcome", help="Say how to try it.")] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C. SIGHUP reads the policy anew; a second Ctrl-C ends it at once.

    Examples:

      broker run --config config.toml

      BROKER_SERVER__PORT=0 broker run --ready-file /run/broker.json

      other-program | broker run --stdin
    """
    configure_logging()
    loaded = _with_stdin(load_config(config, os.environ)) if stdin else load_config(config, os.environ)
    broker = build_broker(loaded)
    _allow_many_files()

    def started(address: Address) -> None:
        typer.echo(f"broker: serving {address.url} (WebSocket at {loaded.websocket.path})")
        if ready_file is not None:
            _write_whole(ready_file, json.dumps({"url": address.url, "port": address.port, "pid": os.getpid()}))
        if welcome:
            _welcome()

    trio.run(broker.run, started)


def _with_stdin(config: Config) -> Config:
    connectors = attrs.evolve(config.connectors, stdin=attrs.evolve(config.connectors.stdin, enabled=True))
    return attrs.evolve(config, connectors=connectors)


def _allow_many_files() -> None:
    # Each connection is a file; the soft limit is often 1,024 where the hard one is far higher.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write_whole(path: Path, text: str) -> None:
    # Whoever waits for the file must never read half of it.
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(text + "\n")
    half.replace(path)


def _welcome() -> None:
    tell(
        "\nTry it, in two other terminals:\n"
        "  .venv/bin/broker tail '**' --as ada\n"
        '  .venv/bin/broker publish users.ada.online \'{"name": "Ada"}\'\n'
        "README.md has the tour. Ctrl-C stops.\n"
    )

"""`broker run`: serve until a signal says stop."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import attrs
import trio
import typer

from broker.app import Address
from broker.config import Config, load_config
from broker.edge.logging import configure_logging
from cli.errors import USED_WRONGLY, refuse, reporting, tell
from cli.reload import end_with, run_and_reload
from cli.wiring import build_broker


@reporting()
def run(
    config: Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")] = Path("config.toml"),
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Also publish what standard input says, a line an event.")
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write url, port and pid here, as JSON, when serving.", metavar="PATH", dir_okay=False),
    ] = None,
    welcome: Annotated[bool, typer.Option("--welcome", help="Say how to try it.")] = False,
    reload: Annotated[
        bool, typer.Option("--reload", help="In development: start anew when a module, the policy or FILE changes.")
    ] = False,
    watched_by: Annotated[int | None, typer.Option("--watched-by", hidden=True)] = None,  # what --reload starts has it
) -> None:
    """Serve until SIGTERM or Ctrl-C. SIGHUP reads the policy anew; a second Ctrl-C ends it at once.

    Examples:

      broker run --config config.toml

      BROKER_SERVER__PORT=0 broker run --ready-file /run/broker.json

      other-program | broker run --stdin

      broker run --reload
    """
    if reload:
        if stdin:
            raise refuse("--reload and --stdin exclude each other: nobody could read the lines again", USED_WRONGLY)
        run_and_reload(config, _again(config, ready_file, welcome=welcome))
        return
    if watched_by is not None:
        end_with(watched_by)
    configure_logging()
    loaded = _with_stdin(load_config(config, os.environ)) if stdin else load_config(config, os.environ)
    broker = build_broker(loaded, config.absolute().parent)
    _allow_many_files()
    _collect_rarely()
    _switch_soon()
    with _ready_file(ready_file) as tell_ready:

        def started(address: Address) -> None:
            typer.echo(f"broker: serving {address.url} (WebSocket at {loaded.websocket.path})")
            tell_ready(address)
            if welcome:
                _welcome()

        trio.run(broker.run, started)


def _again(config: Path, ready_file: Path | None, *, welcome: bool) -> list[str]:
    ready = [] if ready_file is None else ["--ready-file", str(ready_file)]
    return ["--config", str(config), *ready, *(["--welcome"] if welcome else [])]


def _with_stdin(config: Config) -> Config:
    connectors = attrs.evolve(config.connectors, stdin=attrs.evolve(config.connectors.stdin, enabled=True))
    return attrs.evolve(config, connectors=connectors)


def _allow_many_files() -> None:
    # Each connection is a file; the soft limit is often 1,024 where the hard one is far higher.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_rarely() -> None:
    # Reference counts free nearly everything here, and what lives long, connections and facts, is much: at Python's
    # defaults the collector's walks over it cost a broadcast to 1,000 clients half of its time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _switch_soon() -> None:
    # The log's thread gives the interpreter away at each call of SQLite, and under load waits so long to get it back.
    sys.setswitchinterval(0.0005)


@contextmanager
def _ready_file(path: Path | None) -> Iterator[Callable[[Address], None]]:
    """Gives what writes the file once the broker serves; that it can be written is found out before.

    Whoever waits for the file must never read half of it.
    """
    if path is None:
        yield lambda _address: None
        return
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.touch()
    except OSError as error:
        raise refuse(f"--ready-file: can't write {path}: {error.strerror}", USED_WRONGLY) from None

    def write(address: Address) -> None:
        half.write_text(json.dumps({"url": address.url, "port": address.port, "pid": os.getpid()}) + "\n")
        half.replace(path)

    try:
        yield write
    finally:
        half.unlink(missing_ok=True)


def _welcome() -> None:
    tell(
        "\nTry it, in two other terminals:\n"
        "  .venv/bin/broker tail '**' --as ada\n"
        '  .venv/bin/broker publish users.ada.online \'{"name": "Ada"}\'\n'
        "README.md has the tour. Ctrl-C stops.\n"
    )

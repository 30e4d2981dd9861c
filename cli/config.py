"""`broker config`: check a configuration, show what is in effect, or write one to begin with."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from broker.config import Config, load_config
from broker.core.errors import OperatorError
from broker.edge.tokens import check_keys
from cli.config_toml import render
from cli.errors import USED_WRONGLY, refuse, reporting, tell

app = typer.Typer(help="Check, show or write the configuration.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")]

_TEMPLATES = ("config.toml", "policy.toml")


@app.command()
@reporting()
def check(config: ConfigFile = Path("config.toml")) -> None:
    """Check the configuration, its policy file, its keys and its handlers. Every fault is reported at once.

    Nothing is made; the modules of the handlers are imported.

    Example: broker config check --config /etc/broker/config.toml
    """
    loaded = load_config(config, os.environ)
    faults = [*_policy_faults(loaded), *_key_faults(loaded), *_tls_faults(loaded), *_faults_beside(loaded, config)]
    for fault in faults:
        tell(fault)
    if faults:
        raise typer.Exit(USED_WRONGLY)
    tell(_summary(config, loaded))


@app.command()
@reporting()
def show(config: ConfigFile = Path("config.toml")) -> None:
    """Print the configuration in effect (defaults, file, environment) as TOML. Secrets appear as their source only.

    Example: BROKER_SERVER__PORT=9000 broker config show
    """
    typer.echo(render(load_config(config, os.environ)), nl=False)


@app.command()
@reporting()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")] = Path(),
) -> None:
    """Write config.toml and policy.toml to begin with. A file that is there already is never replaced.

    Example: broker config init my-broker
    """
    present = [str(folder / name) for name in _TEMPLATES if (folder / name).exists()]
    if present:
        raise refuse(f"{' and '.join(present)} exists already; nothing was written")
    try:
        _write_templates(folder)
    except OSError as error:
        raise refuse(f"{error.filename}: {error.strerror}") from None
    tell(f"Wrote {folder / 'config.toml'} and {folder / 'policy.toml'}. Next:")
    tell(f"  broker run --config {folder / 'config.toml'}")
    tell(f"  broker token --user you --config {folder / 'config.toml'}")


def _write_templates(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TEMPLATES:
        with (folder / name).open("x", encoding="utf-8") as opened:
            opened.write((resources.files("cli") / "templates" / name).read_text(encoding="utf-8"))


def _policy_faults(config: Config) -> list[str]:
    from broker.core.policy_file import load_policy

    try:
        load_policy(config.visibility.policy)
    except OperatorError as error:
        return [str(error)]
    return []


def _key_faults(config: Config) -> list[str]:
    try:
        check_keys(config.auth, os.environ, tell)
    except OperatorError as error:
        return [str(error)]
    return []


def _faults_beside(config: Config, file: Path) -> list[str]:
    """What is wrong with the sources and the applications that the configuration names."""
    from broker.handlers.loading import load_handlers
    from cli.sources import build_signatures
    from cli.wiring import amqp_addresses

    checks: list[Callable[[], object]] = [
        partial(build_signatures, config.connectors.webhook.sources, os.environ, tell)
    ]
    folder = file.absolute().parent
    checks += [partial(amqp_addresses, source, folder) for source in config.connectors.amqp]
    checks += [partial(load_handlers, [name], folder) for name in config.handlers.modules]
    faults = []
    for look in checks:
        try:
            look()
        except OperatorError as error:
            faults.append(str(error))
    return faults


def _tls_faults(config: Config) -> list[str]:
    tls = config.server.tls
    if tls is None:
        return []
    files = {"certificate": tls.certificate, "private_key": tls.private_key}
    return [
        f"server.tls.{key}: there is no file {file} that can be read (name one, or take out [server.tls])"
        for key, file in files.items()
        if not (file.is_file() and os.access(file, os.R_OK))
    ]


def _summary(file: Path, config: Config) -> str:
    scheme = "wss" if config.server.tls else "ws"
    users = "without users" if config.auth.mode == "none" else f"tokens by {', '.join(config.auth.algorithms)}"
    address = f"{scheme}://{config.server.host}:{config.server.port}{config.websocket.path}"
    return f"{file}: good. It serves {address}, {users}, under the policy {config.visibility.policy}."

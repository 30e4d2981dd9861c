"""A RabbitMQ for the examples: the one that AMQP_URL names, or else one of their own that goes when they do."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0  # seconds for it to start or to stop
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
# Packages put a script that changes the user on the PATH; this is where they keep the one behind it.
_SCRIPTS = "/usr/lib/rabbitmq/bin"


class NoRabbitMQ(Exception):
    """There is none; says what to do about it."""


@contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of a RabbitMQ that is there for the length of the block.

    Raises NoRabbitMQ.
    """
    url = os.environ.get("AMQP_URL")
    if url:
        yield url
        return
    script = server_script()
    if script is None:
        raise NoRabbitMQ(
            "This needs RabbitMQ: set AMQP_URL to one that runs, such as amqp://guest:guest@localhost,\n"
            "or install it (on Debian and Ubuntu: apt-get install rabbitmq-server)."
        )
    with tempfile.TemporaryDirectory(prefix="rabbitmq-example-") as folder, _node(script, Path(folder)) as port:
        yield f"amqp://guest:guest@127.0.0.1:{port}/"


def server_script() -> str | None:
    """Where RabbitMQ is installed, if it is."""
    return shutil.which("rabbitmq-server", path=_SCRIPTS) or shutil.which("rabbitmq-server")


@contextmanager
def _node(script: str, folder: Path) -> Iterator[int]:
    """Run a node in `folder`; gives the port at which it listens."""
    port, control_port = _free_port(), _free_port()
    process = subprocess.Popen(
        [script],
        cwd=folder,
        env=_environment(folder, port, control_port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the example, which then stops it
    )
    try:
        _wait_until_it_listens(process, port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path, port: int, control_port: int) -> Mapping[str, str]:
    """All of it in `folder` and on loopback, and without epmd, which would outlive the example."""
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 50MB\nlog.file.level = warning\n"
    )
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / "environment").touch()
    cookie = folder / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    node = f"example{port}@localhost"
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, instead of waiting for it
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            f"-start_epmd false -erl_epmd_port {control_port} -sname {node} "
            "-kernel inet_dist_use_interface {127,0,0,1}"
        ),
    }


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while not _speaks_amqp(port):
        if process.poll() is not None:
            raise NoRabbitMQ(f"RabbitMQ ended with status {process.returncode} before it listened.")
        if time.monotonic() > end:
            raise NoRabbitMQ(f"RabbitMQ did not listen within {PATIENCE:g} seconds.")
        time.sleep(0.05)


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(_PROTOCOL_HEADER)
            return connection.recv(1) == b"\x01"  # a method, which is connection.start
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port

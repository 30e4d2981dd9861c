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
    server = script("rabbitmq-server")
    if server is None:
        raise NoRabbitMQ(
            "This needs RabbitMQ: set AMQP_URL to one that runs, such as amqp://guest:guest@localhost,\n"
            "or install it (on Debian and Ubuntu: apt-get install rabbitmq-server)."
        )
    with tempfile.TemporaryDirectory(prefix="rabbitmq-example-") as folder, _node(server, Path(folder)) as port:
        yield f"amqp://guest:guest@127.0.0.1:{port}/"


def script(name: str) -> str | None:
    """Where a program of RabbitMQ's is installed, if it is."""
    return shutil.which(name, path=_SCRIPTS) or shutil.which(name)


@contextmanager
def _node(server: str, folder: Path) -> Iterator[int]:
    """Run a node in `folder`; gives the port at which it listens."""
    port, control_port = _free_port(), _free_port()
    process = subprocess.Popen(
        [server],
        cwd=folder,
        env=_lay_out(folder, port, control_port),
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


def _lay_out(folder: Path, port: int, control_port: int) -> Mapping[str, str]:
    """Write down what the node needs to know; returns its environment."""
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 50MB\nlog.file.level = warning\n"
    )
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / "environment").touch()
    cookie = folder / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    return environment(folder, f"example{port}@localhost", control_port)


def environment(folder: Path, node: str, control_port: int) -> dict[str, str]:
    """All that a node may know of this machine, and where it finds what it would look for in /etc and /var.

    It runs on loopback and without epmd, Erlang's port mapper, which would outlive it: `rabbitmqctl` finds it at
    `control_port`.
    """
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, instead of waiting for it
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_CONF_ENV_FILE": f"{folder}/environment",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{folder}/generated",
        "RABBITMQ_SCHEMA_DIR": f"{folder}/schema",
        "RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD": "short",  # halves the start, compared with its "none"
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-sname {node} -kernel inet_dist_use_interface {{127,0,0,1}}",
        "RABBITMQ_CTL_ERL_ARGS": "-dist_listen false",
        # For every Erlang, also the one that a node runs each minute to bring epmd back to life.
        "ERL_AFLAGS": f"-start_epmd false -erl_epmd_port {control_port}",
        "ERL_CRASH_DUMP_SECONDS": "0",
    }


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while not _answers(port):
        if process.poll() is not None:
            raise NoRabbitMQ(f"RabbitMQ ended with status {process.returncode} before it listened.")
        if time.monotonic() > end:
            raise NoRabbitMQ(f"RabbitMQ did not listen within {PATIENCE:g} seconds.")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        return speaks_amqp(port)
    except OSError:
        return False


def speaks_amqp(port: int) -> bool:
    """Whether the server at this port of loopback answers a client's first bytes with connection.start.

    Raises OSError if there is none.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        start = connection.recv(11, socket.MSG_WAITALL)
    # a method frame on channel 0, its size, then class 10, method 10
    return start[:3] == b"\x01\x00\x00" and start[7:] == b"\x00\x0a\x00\x0a"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port

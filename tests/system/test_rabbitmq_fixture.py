"""The RabbitMQ that other tests rely on: it comes back as the same one, and leaves nothing behind."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from examples.rabbitmq import speaks_amqp
from tests.system.harness import REPOSITORY, eventually
from tests.system.rabbitmq import HOST, NodeFailed, RabbitMQ

# Starts a node, says so, and never ends by itself.
OWNER = """
import sys, time
from pathlib import Path
from tests.system.rabbitmq import RabbitMQ
RabbitMQ(Path(sys.argv[1])).start()
print("started", flush=True)
time.sleep(600)
"""


def is_at_home_in(folder: Path, process: Path) -> bool:
    try:
        return f"HOME={folder}\0".encode() in (process / "environ").read_bytes()
    except OSError:  # it has just ended
        return False


def processes(folder: Path) -> list[str]:
    """The nodes of this folder, and whatever they have started: such a process still has the node's environment."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if is_at_home_in(folder, process)]


def wait_nothing_left(folder: Path) -> None:
    eventually(lambda: not processes(folder), f"end of all the processes of {folder}")


def test_it_speaks_amqp(rabbitmq: RabbitMQ) -> None:
    assert speaks_amqp(rabbitmq.port)


def test_its_users_may_do_what_they_should(rabbitmq: RabbitMQ) -> None:
    rows = json.loads(rabbitmq.ctl("list_permissions", "--formatter", "json"))
    assert {"client", "guest"} <= {row["user"] for row in rows}  # other tests add users of their own
    assert "limited" not in {row["user"] for row in rows}


def test_it_proves_to_be_itself_by_tls(rabbitmq: RabbitMQ) -> None:
    trusting = ssl.create_default_context(cafile=rabbitmq.ca_certificate)
    trusting.load_cert_chain(rabbitmq.client_certificate, rabbitmq.client_key)
    with trusting.wrap_socket(socket.create_connection((HOST, rabbitmq.tls_port)), server_hostname=HOST) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        assert b"EXTERNAL" in connection.recv(4096)


def test_a_command_that_fails_says_why(rabbitmq: RabbitMQ) -> None:
    with pytest.raises(NodeFailed, match="no_such_command"):
        rabbitmq.ctl("no_such_command")


def test_killed_and_stopped_it_comes_back_and_leaves_nothing_behind(own_rabbitmq: RabbitMQ) -> None:
    assert len(processes(own_rabbitmq.folder)) > 1
    own_rabbitmq.ctl("add_vhost", "kept")
    own_rabbitmq.ctl("eval", "rabbit_nodes:ensure_epmd().")  # as it does by itself every minute
    own_rabbitmq.kill()
    wait_nothing_left(own_rabbitmq.folder)
    own_rabbitmq.start()
    assert "kept" in own_rabbitmq.ctl("list_vhosts")
    own_rabbitmq.stop()
    wait_nothing_left(own_rabbitmq.folder)


def test_it_ends_with_the_process_that_started_it(rabbitmq_is_here: None, tmp_path: Path) -> None:
    folder = tmp_path / "rabbitmq"
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        assert processes(folder)
        owner.kill()
    wait_nothing_left(folder)


def test_a_node_that_cannot_start_shows_its_log(rabbitmq_is_here: None, tmp_path: Path) -> None:
    rabbitmq = RabbitMQ(tmp_path / "rabbitmq")
    with (rabbitmq.folder / "rabbitmq.conf").open("a") as configuration:
        configuration.write("no.such.setting = 1\n")
    with pytest.raises(NodeFailed, match=r"no\.such\.setting"):
        rabbitmq.start()
    assert not rabbitmq.running

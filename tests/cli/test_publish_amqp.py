"""`broker publish --amqp`: how it is used, and what it says where there is no RabbitMQ."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.invoke import Result, broker

NOBODY = "amqp://guest:hunter2@127.0.0.1:1/"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BROKER_"):
            monkeypatch.delenv(name)
    return tmp_path


def publish(*arguments: str, url: str = NOBODY, stdin: bytes = b"") -> Result:
    return broker("publish", "--amqp", url, *arguments, stdin=stdin)


@contextmanager
def a_server_that_says(text: bytes) -> Iterator[str]:
    """The URL of a server that says this to whoever connects, and hangs up."""

    def answer() -> None:
        peer, _ = listener.accept()
        with closing(peer):
            peer.recv(8)
            peer.sendall(text)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer)
        answering.start()
        yield f"amqp://127.0.0.1:{listener.getsockname()[1]}/"
        answering.join()


# --- Used wrongly ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--url", "--token", "--config"])
def test_what_is_for_a_broker_is_not_for_rabbitmq(option: str) -> None:
    result = publish("a.b", "1", option, "x")
    assert (result.status, result.out) == (2, "")
    assert f"{option} is for a broker" in result.err


def test_a_broker_that_the_environment_names_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BROKER_TOKEN", "t")
    result = publish("a.b", "1")
    assert (result.status, result.out) == (1, "")
    assert "is RabbitMQ running there?" in result.err


def test_an_exchange_is_rabbitmq_s_alone() -> None:
    result = broker("publish", "a.b", "1", "--exchange", "events")
    assert (result.status, result.out) == (2, "")
    assert "--exchange goes with --amqp" in result.err


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128])
def test_an_exchange_that_can_be_none_is_used_wrongly(name: str) -> None:
    result = publish("a.b", "1", "--exchange", name)
    assert (result.status, result.out) == (2, "")
    assert "--exchange" in result.err


@pytest.mark.parametrize(
    "url",
    ["", "rabbit", "http://127.0.0.1", "amqp://", "amqp://h:0", "amqp://h/a/b", "amqp://h?x=1", "amqp://h?verify=no"],
)
def test_a_url_that_is_none_is_used_wrongly(url: str) -> None:
    result = publish("a.b", "1", url=url)
    assert (result.status, result.out) == (2, "")
    assert "AMQP URL" in result.err


@pytest.mark.parametrize(("arguments", "complaint"), [(("a b", "1"), "EVENT: "), (("a", "hello"), "DATA: ")])
def test_a_bad_event_is_used_wrongly_before_anybody_is_asked(arguments: tuple[str, ...], complaint: str) -> None:
    result = publish(*arguments)
    assert result.status == 2
    assert result.err.startswith(complaint)


def test_an_id_needs_an_event() -> None:
    assert publish("--id", "x", stdin=b'{"event":"a"}\n').status == 2


# --- No RabbitMQ -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "stdin"), [(("a.b", "1"), b""), ((), b'{"event":"a"}\n')])
def test_where_there_is_no_rabbitmq_it_is_told_where_and_nothing_else(arguments: tuple[str, ...], stdin: bytes) -> None:
    result = publish(*arguments, stdin=stdin)
    assert (result.status, result.out) == (1, "")
    told = "amqp://127.0.0.1:1 (user 'guest', vhost '/'): Connection refused; is RabbitMQ running there?\n"
    assert result.err == told


def test_of_several_nodes_each_is_told() -> None:
    result = publish("a.b", "1", url="amqp://127.0.0.1:1 amqp://127.0.0.1:2")
    assert result.status == 1
    assert [line.partition(" ")[0] for line in result.err.splitlines()] == ["amqp://127.0.0.1:1", "amqp://127.0.0.1:2"]


@pytest.mark.parametrize("text", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00"])
def test_another_server_is_told_from_rabbitmq(text: bytes) -> None:
    with a_server_that_says(text) as url:
        result = publish("a.b", "1", url=url)
    assert (result.status, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1


def test_a_tls_file_that_is_not_there_is_told_by_its_name() -> None:
    result = publish("a.b", "1", url="amqps://127.0.0.1:1/?cacertfile=no/ca.pem")
    assert (result.status, result.out) == (1, "")
    assert "no/ca.pem" in result.err

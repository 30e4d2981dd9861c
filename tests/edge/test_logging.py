"""The broker's own log: one line an entry, JSON for programs, readable for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.edge.logging import configure_logging

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "broker", "connectors", "cli")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


def lines(captured: Captured) -> list[dict[str, Any]]:
    out, err = captured.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_an_entry_is_one_line_of_json_on_standard_error(capsys: Captured) -> None:
    configure_logging()
    logging.getLogger("broker.edge.front").info("connection.closed", extra={"code": 1000, "reason": "bye\nnow"})
    (entry,) = lines(capsys)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {"event": "connection.closed", "level": "info", "code": 1000, "reason": "bye\nnow"}


def test_what_json_does_not_know_is_shown_as_text(capsys: Captured) -> None:
    configure_logging()
    logging.getLogger("cli.run").warning("read", extra={"file": Path("a/b")})
    assert lines(capsys)[0]["file"] == "a/b"


def test_an_exception_is_part_of_its_line(capsys: Captured) -> None:
    configure_logging()
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logging.getLogger("connectors.stdin").exception("connector.failed")
    (entry,) = lines(capsys)
    assert "ValueError: what went wrong" in entry["exception"]


def test_other_libraries_are_heard_from_warning_on(capsys: Captured) -> None:
    configure_logging()
    logging.getLogger("trio_websocket").info("a frame")
    logging.getLogger("trio_websocket").warning("trouble")
    assert [entry["event"] for entry in lines(capsys)] == ["trouble"]


def test_the_level_is_that_of_the_broker_s_own(capsys: Captured) -> None:
    configure_logging(logging.DEBUG)
    logging.getLogger("broker.core").debug("detail")
    logging.getLogger("trio_websocket").debug("a frame")
    assert [entry["event"] for entry in lines(capsys)] == ["detail"]


def test_to_configure_twice_is_to_write_once(capsys: Captured) -> None:
    configure_logging()
    configure_logging()
    logging.getLogger("broker").info("once")
    assert len(lines(capsys)) == 1


def test_people_at_a_terminal_read_text(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging()
    logging.getLogger("broker").info("connection.closed", extra={"code": 1000})
    shown = capsys.readouterr().err
    assert "connection.closed" in shown
    assert not shown.lstrip().startswith("{")


def test_people_at_a_terminal_read_an_exception_too(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logging()
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logging.getLogger("broker").exception("connector.failed")
    shown = capsys.readouterr().err
    assert "what went wrong" in shown
    assert "Logging error" not in shown

"""The paths that handlers make, and what holds on each."""

from __future__ import annotations

from typing import Any

import pytest

from broker import Handlers
from broker.core.heartbeat import Heartbeat
from broker.handlers.errors import BadHandler
from tests.handlers.house import Application


def endpoints(*handlers: Handlers) -> Any:
    return Application(handlers, 30).endpoints


def test_without_handlers_there_is_the_usual_path_and_nothing_behind_it() -> None:
    found = endpoints()
    assert list(found) == ["/ws"]
    assert found["/ws"].application is None


def test_handlers_without_a_path_are_at_the_usual_one() -> None:
    found = endpoints(Handlers(), Handlers(path="/ws"), Handlers(path="/door"))
    assert set(found) == {"/ws", "/door"}
    assert found["/ws"].application is not found["/door"].application


def test_each_path_has_its_heartbeat_else_the_usual_one() -> None:
    found = endpoints(Handlers(), Handlers(path="/quick", heartbeat=1), Handlers(path="/never", heartbeat=0))
    beats = {path: each.limits.heartbeat for path, each in found.items()}
    assert beats == {"/ws": Heartbeat(30, 10), "/quick": Heartbeat(1, 10), "/never": Heartbeat(0, 10)}


def test_one_of_several_may_say_it_for_all() -> None:
    found = endpoints(Handlers(), Handlers(heartbeat=5, heartbeat_timeout=2, compression=False), Handlers(heartbeat=5))
    assert found["/ws"].limits.heartbeat == Heartbeat(5, 2)
    assert not found["/ws"].compression
    assert endpoints(Handlers())["/ws"].compression


@pytest.mark.parametrize("name", ["heartbeat", "heartbeat_timeout", "compression"])
def test_several_that_contradict_each_other_stop_the_start(name: str) -> None:
    said: list[dict[str, Any]] = [{name: 1}, {name: 2}] if name != "compression" else [{name: True}, {name: False}]
    with pytest.raises(BadHandler, match=f"/ws: {name} is"):
        endpoints(*(Handlers(**each) for each in said))


def test_a_heartbeat_wants_a_time_for_the_answer() -> None:
    with pytest.raises(BadHandler, match="heartbeat_timeout must be greater than 0"):
        endpoints(Handlers(heartbeat_timeout=0))
    assert endpoints(Handlers(heartbeat=0, heartbeat_timeout=0))["/ws"].limits.heartbeat == Heartbeat(0, 0)


def test_paths_that_differ_in_the_names_of_placeholders_only_stop_the_start() -> None:
    with pytest.raises(BadHandler, match="/shops/<a> and /shops/<b> are the same paths"):
        endpoints(Handlers(path="/shops/<a>"), Handlers(path="/shops/<b>"))

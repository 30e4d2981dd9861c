"""`broker publish`: one event by its arguments, or many from a pipe; what is refused is told, the rest is sent."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.config import load_config
from broker.edge.tokens import build_authenticator
from cli.main import app
from connectors.stdin import MAX_LINE_BYTES
from tests.cli.invoke import HANG_UP, Asked, FakeBroker, Result, Say, Script, broker, serving, take


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BROKER_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with serving() as fake:
        yield fake


def publish(fake: FakeBroker, *arguments: str, stdin: bytes = b"") -> Result:
    return broker("publish", "--url", fake.url, "--token", "t", *arguments, stdin=stdin)


def lines(*names: str) -> bytes:
    return b"".join(b'{"event":"%b"}\n' % name.encode() for name in names)


def refusing(*names: str, status: int = 400) -> Script:
    """A script that refuses events of these names, each batch at its first."""

    def answer(asked: Asked) -> Say:
        for index, event in enumerate(asked.events()):
            if event["event"] in names:
                return Say(status, {"error": f"not {event['event']}", "code": "x", "index": index})
        return take(asked)

    return answer


# --- One event -------------------------------------------------------------------------------------------------------


def test_one_event_is_published_and_its_id_printed(fake: FakeBroker) -> None:
    result = publish(fake, "games.1.created", '{"a": 1}')
    (event,) = fake.asked[0].events()
    assert (result.status, result.out, result.err) == (0, event["id"] + "\n", "")
    assert (event["event"], event["data"]) == ("games.1.created", {"a": 1})


def test_each_event_has_an_id_of_its_own(fake: FakeBroker) -> None:
    assert publish(fake, "a").out != publish(fake, "a").out


def test_an_id_may_be_given(fake: FakeBroker) -> None:
    assert publish(fake, "a", "1", "--id", "order 1").out == "order 1\n"


def test_without_data_it_is_null(fake: FakeBroker) -> None:
    publish(fake, "a")
    assert fake.asked[0].events()[0]["data"] is None


def test_data_goes_byte_for_byte(fake: FakeBroker) -> None:
    publish(fake, "a", '{"big":1e999999,"t":"\\u00e4ä","x":[1,  2]}')
    assert '"data":{"big":1e999999,"t":"\\u00e4ä","x":[1,  2]}'.encode() in fake.asked[0].body


def test_data_of_several_lines_is_one_line_on_its_way(fake: FakeBroker) -> None:
    publish(fake, "a", '{\n  "a": 1e999999,\n  "b": "x y"\n}\n')
    assert b'"data":{"a":1e999999,"b":"x y"}' in fake.asked[0].body


def test_data_may_come_from_a_file(fake: FakeBroker, elsewhere: Path) -> None:
    (elsewhere / "game.json").write_text('{"name":"Chess"}\n')
    assert publish(fake, "a", "@game.json").status == 0
    assert fake.asked[0].events()[0]["data"] == {"name": "Chess"}


def test_data_may_come_from_standard_input(fake: FakeBroker) -> None:
    assert publish(fake, "a", "-", stdin=b'"hello"\n').status == 0
    assert fake.asked[0].events()[0]["data"] == "hello"


def test_data_may_begin_with_a_minus(fake: FakeBroker) -> None:
    assert publish(fake, "a", "--", "-1").status == 0
    assert fake.asked[0].events()[0]["data"] == -1


@pytest.mark.parametrize(
    "data", ["", "hello", "{a: 1}", "NaN", "1 2", '1,"id":"x"', '"\\ud800"', "\udcff", "[" * 200 + "]" * 200]
)
def test_data_that_is_no_json_is_used_wrongly(data: str, fake: FakeBroker) -> None:
    result = publish(fake, "a", data)
    assert (result.status, result.out, fake.asked) == (2, "", [])
    assert result.err.startswith("DATA: ")


@pytest.mark.parametrize("name", ["", "a b", "a..b", "games.*", "a.<b>", "broker.x", "x" * 256, "\udcff"])
def test_a_name_that_is_none_is_used_wrongly(name: str, fake: FakeBroker) -> None:
    result = publish(fake, name, "1")
    assert (result.status, fake.asked) == (2, [])
    assert result.err.startswith("EVENT: ")


@pytest.mark.parametrize("event_id", ["", "a\nb", "x" * 256])
def test_an_id_that_is_none_is_used_wrongly(event_id: str, fake: FakeBroker) -> None:
    assert (publish(fake, "a", "1", "--id", event_id).status, fake.asked) == (2, [])


def test_a_file_that_can_not_be_read_is_used_wrongly(fake: FakeBroker, elsewhere: Path) -> None:
    for name in ("missing.json", str(elsewhere)):
        result = publish(fake, "a", f"@{name}")
        assert (result.status, fake.asked) == (2, [])
        assert name in result.err


@pytest.mark.parametrize("status", [400, 401, 403, 413, 500])
def test_a_refusal_is_told_in_the_broker_s_words(status: int, fake: FakeBroker) -> None:
    fake.first = [Say(status, {"error": "for a good reason", "code": "x"})]
    result = publish(fake, "a", "1")
    assert (result.status, result.out, result.err) == (1, "", "for a good reason\n")


def test_a_busy_broker_is_asked_again(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    fake.first = [Say(503, {"error": "busy"})]
    assert publish(fake, "a", "1").status == 0


def test_after_a_lost_connection_the_same_id_is_sent_again(fake: FakeBroker) -> None:
    fake.first = [HANG_UP]
    assert publish(fake, "a", "1").status == 0
    assert fake.asked[0].events() == fake.asked[1].events()


def test_where_there_is_no_broker_it_is_told_where(elsewhere: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = broker("publish", "a", "1", "--url", url, "--token", "t")
    assert (result.status, result.out) == (1, "")
    assert f"no broker answers at {url}" in result.err


def test_another_server_is_told_from_a_broker(fake: FakeBroker) -> None:
    fake.then = lambda _: Say(202, b"<html>welcome</html>")
    result = publish(fake, "a", "1")
    assert (result.status, result.out, result.err) == (1, "", "an answer of no broker: HTTP 202\n")


def test_address_and_token_may_come_from_the_environment(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_URL", fake.url)
    monkeypatch.setenv("BROKER_TOKEN", "from-the-environment")
    assert broker("publish", "a", "1").status == 0
    assert fake.asked[0].headers["authorization"] == "Bearer from-the-environment"


def test_a_token_of_our_own_making_may_publish_this_event_and_no_other(fake: FakeBroker, elsewhere: Path) -> None:
    config = elsewhere / "config.toml"
    config.write_text("")
    assert broker("publish", "a.b", "1", "--url", fake.url).status == 0
    token = fake.asked[0].headers["authorization"].removeprefix("Bearer ")
    identity = build_authenticator(load_config(config, {}).auth, {}).publisher(token)
    assert (identity.user, identity.claims["publish"]) == (None, ["a.b"])


def test_a_faulty_configuration_is_used_wrongly(elsewhere: Path) -> None:
    (elsewhere / "config.toml").write_text("[sever]\n")
    result = broker("publish", "a", "1")
    assert result.status == 2
    assert "sever" in result.err


# --- A pipe ----------------------------------------------------------------------------------------------------------


def test_each_line_of_a_pipe_is_published(fake: FakeBroker) -> None:
    result = publish(fake, stdin=lines("a", "b") + b'\n{"event":"c","data":{"x": 1},"id":"mine"}')
    assert (result.status, result.out, result.err) == (0, "", "3 published, 0 refused\n")
    assert [name for names in fake.names() for name in names] == ["a", "b", "c"]
    assert fake.asked[-1].body.endswith(b'{"event":"c","data":{"x": 1},"id":"mine"}\n')


def test_an_empty_pipe_publishes_nothing(fake: FakeBroker) -> None:
    result = publish(fake, stdin=b"\n")
    assert (result.status, result.err, fake.asked) == (0, "0 published, 0 refused\n", [])


def test_a_pipe_is_published_in_batches_in_order(fake: FakeBroker) -> None:
    names = [f"a{number}" for number in range(1200)]
    assert publish(fake, stdin=lines(*names)).status == 0
    assert [name for batch in fake.names() for name in batch] == names
    assert 3 <= len(fake.asked) < 10
    assert max(map(len, fake.names())) <= 500


def test_a_batch_has_a_bound_in_bytes(fake: FakeBroker) -> None:
    line = b'{"event":"a","data":"%b"}\n' % (b"x" * 100_000)
    assert publish(fake, stdin=line * 7).status == 0
    assert sum(map(len, fake.names())) == 7
    assert max(len(asked.body) for asked in fake.asked) < 300_000


def test_a_pipe_is_published_over_one_connection(fake: FakeBroker) -> None:
    publish(fake, stdin=lines(*["a"] * 1200))
    assert len({asked.connection for asked in fake.asked}) == 1


def test_bad_lines_are_told_by_their_number_and_the_rest_is_published(fake: FakeBroker) -> None:
    stdin = lines("a") + b"nonsense\n\n" + lines("b c", "d", "broker.x") + b'{"data":1}'
    result = publish(fake, stdin=stdin)
    assert result.status == 1
    assert [line.split(":")[0] for line in result.err.splitlines()[:-1]] == ["line 2", "line 4", "line 6", "line 7"]
    assert result.err.endswith("2 published, 4 refused\n")
    assert fake.names() == [["a", "d"]]


def test_a_line_that_is_too_long_is_told_by_its_number(fake: FakeBroker) -> None:
    result = publish(fake, stdin=lines("a") + b"x" * (MAX_LINE_BYTES + 1) + b"\n" + lines("b"))
    assert (result.status, result.err) == (1, "line 2: the line is too long\n2 published, 1 refused\n")


@pytest.mark.parametrize("status", [400, 403])
def test_lines_that_the_broker_refuses_are_told_and_the_rest_is_published(status: int, fake: FakeBroker) -> None:
    fake.then = refusing("b", "d", status=status)
    result = publish(fake, stdin=lines("a", "b", "c", "d", "e"))
    assert (result.status, result.err) == (1, "line 2: not b\nline 4: not d\n3 published, 2 refused\n")
    assert fake.names()[-1] == ["a", "c", "e"]


def test_the_number_of_a_refused_line_counts_the_lines_before_it(fake: FakeBroker) -> None:
    fake.then = refusing("b")
    result = publish(fake, stdin=b"\nnonsense\n" + lines("a") + b"\n" + lines("b"))
    assert "line 5: not b\n" in result.err


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_refusal_that_is_about_no_single_event_ends_it(names: tuple[str, ...], status: int, fake: FakeBroker) -> None:
    fake.then = lambda _: Say(status, {"error": "not with this token", "code": "x"})
    result = publish(fake, stdin=b"\n" + lines(*names))
    assert (result.status, result.out) == (1, "")
    assert "line 2 and what follows: not with this token\n" in result.err
    assert len(fake.asked) == 1


@pytest.mark.parametrize("index", [17, -1, "x"])
def test_an_answer_that_makes_no_sense_ends_it(index: object, fake: FakeBroker) -> None:
    fake.then = lambda _: Say(400, {"error": "oh", "index": index})
    assert publish(fake, stdin=lines("a", "b")).status == 1
    assert len(fake.asked) == 1


def test_a_batch_that_is_too_large_is_halved_until_it_is_taken(fake: FakeBroker) -> None:
    fake.then = lambda asked: take(asked) if len(asked.events()) <= 2 else Say(413, {"error": "too large"})
    result = publish(fake, stdin=lines("a", "b", "c", "d", "e"))
    assert (result.status, result.err) == (0, "5 published, 0 refused\n")
    assert [name for names in fake.names() if len(names) <= 2 for name in names] == ["a", "b", "c", "d", "e"]


def test_a_line_that_is_too_large_alone_is_told_and_the_rest_is_published(fake: FakeBroker) -> None:
    fake.then = lambda asked: Say(413, {"error": "too large"}) if b'"b"' in asked.body else take(asked)
    result = publish(fake, stdin=lines("a", "b", "c"))
    assert (result.status, result.err) == (1, "line 2: too large\n2 published, 1 refused\n")


def test_a_broker_that_goes_away_ends_it(fake: FakeBroker) -> None:
    fake.then = lambda _: HANG_UP
    result = publish(fake, stdin=lines("a"))
    assert result.status == 1
    assert "no broker answers" in result.err


def test_what_came_before_is_published_before_more_has_come(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [lines("a"), lines("b"), b""]

    def read(descriptor: int, most: int) -> bytes:
        assert len(fake.asked) == 2 - len(chunks) + 1
        return chunks.pop(0)

    monkeypatch.setattr(os, "read", read)
    assert publish(fake).status == 0
    assert fake.names() == [["a"], ["b"]]


def test_an_id_needs_an_event(fake: FakeBroker) -> None:
    assert publish(fake, "--id", "x", stdin=lines("a")).status == 2


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stdin", [Terminal(), None])
def test_at_a_terminal_and_without_standard_input_an_event_is_needed(stdin: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as ended:
            app(["publish", "--url", "http://b"])
    assert ended.value.code == 2


def test_standard_input_that_can_not_be_read_is_told(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(descriptor: int, most: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "read", read)
    result = publish(fake)
    assert (result.status, result.err) == (1, "can't read standard input: Input/output error\n")


def test_ctrl_c_is_no_traceback(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(descriptor: int, most: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "read", read)
    assert publish(fake).status == 130

"""What there is at which path, and what the script of which page may have of it (Fetch standard, section 3.3: CORS)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

import pytest
import trio

from broker.core.http import Request, Response, Route, Takeover, json_response
from broker.edge.http import BadRequest
from broker.edge.paths import Paths
from broker.edge.site import Site

HOST = "broker.example:8080"
OURS = f"http://{HOST}"
APP = "https://app.example"
EVIL = "https://evil.example"


async def hello(request: Request) -> Response:
    return json_response(200, {"hello": True}, Retry_After="1")


async def take_over(request: Request) -> Takeover:
    return Takeover(Response(200, content_type="text/event-stream", headers={"cache-control": "no-store"}), nobody)


async def nobody(head: bytes, stream: object) -> bool:
    raise NotImplementedError


async def refuse(request: Request) -> Response:
    raise BadRequest(418, "a teapot")


async def fail(request: Request) -> Response:
    raise ZeroDivisionError("inner detail")


async def vanish(request: Request) -> Response:
    raise trio.BrokenResourceError


ROUTES = [
    Route("GET", "/events", take_over),
    Route("POST", "/events", hello),
    Route("POST", "/hook", hello),
    Route("GET", "/refuse", refuse),
    Route("GET", "/fail", fail),
    Route("GET", "/vanish", vanish),
    Route("GET", "/client.js", hello, public=True),
]


async def no_body(limit: int) -> bytes:
    raise NotImplementedError


async def ask(
    path: str,
    origin: str | None = None,
    method: str = "GET",
    allowed: Sequence[str] = (),
    *,
    routes: Sequence[Route] = ROUTES,
    **more: str,
) -> Response:
    """The head that a page gets, of whatever kind the answer is."""
    named = {"Host": HOST, **more} | ({} if origin is None else {"Origin": origin})
    headers = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    answer = await Site(routes, allowed, Paths({"/ws": True})).answer(
        Request(method, path, {}, headers, b"1.1", no_body)
    )
    return answer.head if isinstance(answer, Takeover) else answer


def may_be_read(answer: Response, origin: str) -> bool:
    """The browser's CORS check."""
    return lowered(answer).get("access-control-allow-origin") in ("*", origin)


def lowered(answer: Response) -> Mapping[str, str]:
    found = {name.lower(): value for name, value in answer.headers.items()}
    assert len(found) == len(answer.headers)
    return found


def traces(answer: Response) -> list[str]:
    return [name for name in lowered(answer) if name.startswith("access-control")]


# --- Which pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ((), OURS),
        ((), "https://broker.example:8080"),
        ((), "HTTP://BROKER.example:8080"),
        ((APP,), APP),
        ((APP, "https://other.example"), "https://other.example"),
        (("*",), EVIL),
        (("*",), "null"),
        ((APP, "*"), EVIL),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/events"), ("HEAD", "/events"), ("POST", "/hook")])
async def test_a_page_that_may_gets_the_answer(allowed: Sequence[str], origin: str, method: str, path: str) -> None:
    answer = await ask(path, origin, method, allowed)
    assert answer.status == 200
    assert may_be_read(answer, origin)


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ((), EVIL),
        ((), "http://broker.example"),
        ((), "http://broker.example:8080.evil.example"),
        ((), "null"),
        ((), ""),
        ((APP,), OURS),
        ((APP,), "http://app.example"),
        ((APP,), "https://app.example.evil.example"),
        ((APP,), "null"),
        ((APP,), f"{APP}, {APP}"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_a_page_that_may_not_is_refused_and_can_t_read_why(
    allowed: Sequence[str], origin: str, method: str
) -> None:
    answer = await ask("/events", origin, method, allowed, Access_Control_Request_Method="GET")
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "bad_request")
    assert traces(answer) == []
    assert lowered(answer)["vary"] == "Origin"
    assert answer.close


@pytest.mark.parametrize("origin", ["http://é@broker.example:8080", "http://broker.example:8080\u0100", "é"])
@pytest.mark.parametrize("allowed", [(), (APP,), ("é",)])
async def test_an_origin_that_no_browser_sends_is_refused(allowed: Sequence[str], origin: str) -> None:
    assert (await ask("/events", origin, allowed=allowed)).status == 403


@pytest.mark.parametrize("origin", [EVIL, "é", "", "null"])
async def test_where_every_page_may_the_answer_is_the_same_for_all_of_them(origin: str) -> None:
    answer = await ask("/events", origin, allowed=["*"])
    assert lowered(answer)["access-control-allow-origin"] == "*"


async def test_a_program_sends_no_origin_and_is_not_told_about_pages() -> None:
    answer = await ask("/events", allowed=[APP])
    assert (answer.status, traces(answer)) == (200, [])


@pytest.mark.parametrize("allowed", [(), (APP,)])
async def test_caches_are_told_that_the_answer_depends_on_the_page(allowed: Sequence[str]) -> None:
    for origin in (OURS, APP):
        assert lowered(await ask("/events", origin, allowed=allowed))["vary"] == "Origin"


async def test_what_a_handler_says_itself_is_kept() -> None:
    answer = await ask("/events", OURS)
    assert answer.content_type == "text/event-stream"
    assert lowered(answer)["cache-control"] == "no-store"
    answer = await ask("/hook", OURS, "POST")
    assert lowered(answer)["retry-after"] == "1"
    assert lowered(answer)["access-control-expose-headers"] == "Retry-After"


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/events", 405),
        ("GET", "/ws", 426),
        ("GET", "/refuse", 418),
        ("GET", "/fail", 500),
        ("OPTIONS", "/nowhere", 404),
    ],
)
async def test_a_page_that_may_sees_what_went_wrong(method: str, path: str, status: int) -> None:
    answer = await ask(path, APP, method, allowed=[APP])
    assert answer.status == status
    assert may_be_read(answer, APP)
    assert json.loads(answer.body)["error"]
    foreign = await ask(path, EVIL, method, allowed=[APP])
    assert not may_be_read(foreign, EVIL)


async def test_another_method_is_told_those_that_there_are_page_or_not() -> None:
    for origin in (None, OURS):
        answer = await ask("/events", origin, "DELETE")
        assert (answer.status, lowered(answer)["allow"], answer.close) == (405, "GET, POST", True)


async def test_a_fault_of_ours_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await ask("/fail", OURS)
    assert b"detail" not in answer.body
    (record,) = caplog.records
    assert record.getMessage() == "request.failed"


async def test_a_client_that_vanished_is_no_fault_of_ours() -> None:
    with pytest.raises(trio.BrokenResourceError):
        await ask("/vanish", OURS)


# --- What a browser asks before --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "methods"), [("/events", "GET, POST"), ("/hook", "POST"), ("/client.js", "GET")])
async def test_a_page_may_ask_first_what_it_may(path: str, methods: str) -> None:
    answer = await ask(path, OURS, "OPTIONS", Access_Control_Request_Method="POST")
    assert (answer.status, answer.body, answer.close) == (204, b"", False)
    assert may_be_read(answer, OURS)
    headers = lowered(answer)
    assert headers["access-control-allow-methods"] == methods
    assert int(headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in headers  # there are no cookies


@pytest.mark.parametrize(
    "header", ["authorization", "content-type", "last-event-id", "cache-control", "ce-specversion"]
)
async def test_a_page_that_may_may_send_any_header(header: str) -> None:
    answer = await ask("/events", OURS, "OPTIONS", Access_Control_Request_Method="GET")
    names = {name.strip().lower() for name in lowered(answer)["access-control-allow-headers"].split(",")}
    assert header in names or ("*" in names and header != "authorization")  # which `*` does not stand for


async def test_a_program_that_asks_for_the_options_is_told_the_methods() -> None:
    answer = await ask("/events", None, "OPTIONS")
    assert (answer.status, lowered(answer)["allow"]) == (405, "GET, POST")


# --- For everybody ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [(), (APP,), ("*",)])
@pytest.mark.parametrize("origin", [None, EVIL, OURS, "null", "é"])
async def test_what_is_public_is_for_every_page_and_says_so_to_everybody(
    allowed: Sequence[str], origin: str | None
) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        answer = await ask("/client.js", origin, method, allowed)
        assert answer.status in (200, 204, 405)
        # A cache that got it for a program may pass it on to a page.
        assert lowered(answer)["access-control-allow-origin"] == "*"
        assert "vary" not in lowered(answer)


async def test_what_is_public_does_not_make_public_what_is_beside_it() -> None:
    routes = [Route("GET", "/both", hello, public=True), Route("POST", "/both", hello)]
    assert (await ask("/both", EVIL, "GET", routes=routes)).status == 200
    assert (await ask("/both", EVIL, "POST", routes=routes)).status == 403


# --- Placeholders ----------------------------------------------------------------------------------------------------


async def tell(request: Request) -> Response:
    return json_response(200, dict(request.params))


SHAPED = Site(
    [Route("GET", "/users/<user>", tell), Route("POST", "/users/<user>/<what>", tell)], [], Paths({"/ws": True})
)


async def params(path: str, method: str = "GET") -> object:
    answer = await SHAPED.answer(Request(method, path, {}, [], b"1.1", no_body))
    assert isinstance(answer, Response)
    return json.loads(answer.body) if answer.status == 200 else answer.status


@pytest.mark.parametrize(
    ("path", "user"),
    [
        ("/users/ada", "ada"),
        ("/users/a%2Fb%20c", "a/b c"),
        ("/users/gr%C3%B6%C3%9Fer", "größer"),
        ("/users/%FF", "\ufffd"),
        ("/users/<user>", "<user>"),
        ("/users/a+b", "a+b"),
    ],
)
async def test_a_segment_stands_for_a_placeholder(path: str, user: str) -> None:
    assert await params(path) == {"user": user}


async def test_a_path_may_have_several() -> None:
    assert await params("/users/ada/messages", "POST") == {"user": "ada", "what": "messages"}


@pytest.mark.parametrize("path", ["/users/", "/users", "/users//x", "/users/a/b/c", "/other/ada"])
async def test_no_segment_and_another_number_of_them_are_nothing(path: str) -> None:
    assert await params(path) == 404


async def test_another_method_of_such_a_path_is_told_those_that_there_are() -> None:
    assert await params("/users/ada", "DELETE") == 405

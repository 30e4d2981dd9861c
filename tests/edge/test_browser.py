"""The JavaScript client over HTTP: as it is in the repository, once for each browser, and for pages of every origin."""

from __future__ import annotations

import pytest

from broker.core.http import Request, Response
from broker.edge.browser import FILES, browser_routes
from broker.edge.paths import Paths
from broker.edge.site import Site


async def no_body(limit: int) -> bytes:
    raise NotImplementedError


async def get(path: str, **headers: str) -> Response:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request("GET", path, {}, [(b"host", b"broker.example"), *named], b"1.1", no_body)
    answer = await Site(browser_routes(), (), Paths({})).answer(request)
    assert isinstance(answer, Response)
    return answer


@pytest.mark.parametrize(("name", "kind"), [("client.js", "text/javascript"), ("client.d.ts", "text/plain")])
async def test_the_files_are_served_as_they_are(name: str, kind: str) -> None:
    answer = await get(f"/{name}")
    assert (answer.status, answer.body) == (200, (FILES / name).read_bytes())
    assert answer.content_type == f"{kind}; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_pages_of_every_origin_may_import_it() -> None:
    answer = await get("/client.js", origin="https://app.example")
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_who_has_it_does_not_get_it_again() -> None:
    tag = (await get("/client.js")).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        answer = await get("/client.js", if_none_match=known)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == tag
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_who_has_another_one_gets_it() -> None:
    tag = (await get("/client.d.ts")).headers["ETag"]
    answer = await get("/client.js", if_none_match=tag)
    assert answer.status == 200

"""Names with placeholders: what matches, what stands for what, and colons for those who like them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import Handlers
from broker.handlers.errors import BadHandler
from broker.handlers.naming import Names, Template
from tests.handlers.house import ask, running

WORDS = st.sampled_from(["chat", "a", "42", "ü", "x-y", "_"])


@st.composite
def templates(draw: st.DrawFn) -> str:
    """Texts of words and placeholders, parted by dots and colons."""
    count = draw(st.integers(1, 4))
    parts = [draw(st.one_of(WORDS, st.just(f"<p{place}>"))) for place in range(count)]
    text = parts[0]
    for part in parts[1:]:
        text += draw(st.sampled_from(".:")) + part
    return text


def model(text: str, name: str) -> dict[str, str] | None:
    """What a template reads in a name, by a regular expression of its own."""
    inner = "[^.:]+" if re.search(r":<|>:", text) else "[^.]+"
    literal = [re.escape(part) for part in re.split(r"<p\d>", text)]
    names = re.findall(r"<(p\d)>", text)
    expression = literal[0] + "".join(
        f"(?P<{name}>{inner}){rest}" for name, rest in zip(names, literal[1:], strict=True)
    )
    found = re.fullmatch(expression, name)
    return None if found is None else found.groupdict()


@given(templates(), templates())
def test_a_template_reads_what_a_regular_expression_reads(text: str, other: str) -> None:
    name = re.sub(r"<p(\d)>", r"v\1", other)
    template = Template(text)
    wanted = model(text, name)
    found = Names([(template, True)]).find(name)
    assert found is (True if wanted is not None else None)
    if wanted is not None:
        assert template.read(name) == wanted
        assert template.fill(wanted) == name
        assert template.beginning_of(f"{name}.more") == name


@pytest.mark.parametrize("name", ["chat:", ":42", "chat::42", "chat", "chat.42", "chat:42:43", "chat:42.", "other:42"])
def test_what_is_not_quite_the_name_is_not_found(name: str) -> None:
    assert Names([(Template("chat:<room>"), True)]).find(name) is None


def test_dots_and_colons_make_different_names() -> None:
    names = Names([(Template("chat.<room>"), "dot"), (Template("chat:<room>"), "colon"), (Template("<any>"), "any")])
    assert [names.find(name) for name in ("chat.1", "chat:1", "chat", "talk:1")] == ["dot", "colon", "any", "any"]


@pytest.mark.parametrize(
    ("text", "placeholders"),
    [
        ("chat.<room>", {}),
        ("chat.<room>", {"room": "1", "user": "2"}),
        ("chat.<room>", {"room": "1.2"}),
        ("chat:<room>", {"room": "1:2"}),
        ("chat:<room>", {"room": ""}),
    ],
)
def test_what_can_t_stand_for_a_placeholder_is_refused(text: str, placeholders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="chat"):
        Template(text).fill(placeholders)


def test_where_no_colon_parts_a_name_it_is_a_character_like_any_other() -> None:
    assert Template("rooms.<room>").fill({"room": "tea:time"}) == "rooms.tea:time"


@pytest.mark.parametrize("text", ["chat:<room", "chat::<room>", ":<room>", "<room>:", "chat:x<room>"])
def test_what_is_no_name_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(BadHandler, match=re.escape(text)):
        Template(text)


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(BadHandler, match="'chat:<b>' and 'chat:<a>' are the same name"):
        Names([(Template("chat:<a>"), 1), (Template("chat:<b>"), 2)])


async def test_a_channel_may_have_colons() -> None:
    app = Handlers()
    chat = app.channel("chat:<room>")

    @chat.authorize
    async def authorize(room: str) -> bool:
        return room != "secret"

    @chat.on("say")
    async def say(room: str, data: str) -> int:
        return await chat.broadcast("said", data, room=room)

    async with running(app) as broker:
        ada, eve = await broker.join("ada"), await broker.join("eve")
        assert await ask(ada, "subscribe", "chat:tea") == {"pattern": "chat:tea"}
        assert await ask(eve, "subscribe", "chat:secret") == "not_authorized"
        assert await ask(eve, "chat:tea.say", "x") == "not_authorized"
        assert await ask(ada, "chat:tea.say", "hello") == 1
        assert {"event": "chat:tea.said", "data": "hello"} in ada.json()
        assert [each.user for each in chat.members(room="tea")] == ["ada"]

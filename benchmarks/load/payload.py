"""The payload of every event: JSON with the event's number and the moment at which it was sent."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache

SIZE = 200
DOCUMENT_SIZE = 1024
EVENT = re.compile(rb'\{"n":"(\d{10})","at":"(\d{20})","(?:pad":"x*"|of":\[[^]]*\])\}')

Payload = Callable[[int, int], bytes]  # of an event's number, and the nanoseconds at which it was sent

_DOCUMENTS = 512  # more than any server's window remembers
_WORDS = tuple(
    word
    for line in (
        "order shipped customer has left the group and joined another one we will see you on tuesday at the station",
        "please bring your ticket thanks for the message it was a pleasure price changed status pending delivered",
    )
    for word in line.split()
)
_PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing", "Edsger Dijkstra", "Barbara Liskov", "Tony Hoare")


def payload(number: int, at: int) -> bytes:
    """The payload of event `number`, sent at `at`, nanoseconds of the clock that all processes of a machine share."""
    return (b'{"n":"%010d","at":"%020d","pad":"' % (number, at)).ljust(SIZE - 2, b"x") + b'"}'


def document(number: int, at: int) -> bytes:
    """As `payload`, with 1 KiB of what services tell each other: names, ids, times, texts; it compresses like these."""
    return b'{"n":"%010d","at":"%020d","of":[%b]}' % (number, at, _documents()[number % _DOCUMENTS])


@cache
def _documents() -> list[bytes]:
    chance = random.Random(1)
    size = DOCUMENT_SIZE - len(b'{"n":"0123456789","at":"01234567890123456789","of":[]}')
    return [_document(chance, size) for _ in range(_DOCUMENTS)]


def _document(chance: random.Random, size: int) -> bytes:
    text = ""
    while len(message := json.dumps(_message(chance), separators=(",", ":"))) < size - len(text) - 20:
        text += message + ","
    words = " ".join(chance.choices(_WORDS, k=size))
    return (text + f'{{"text":"{words[: size - len(text) - 11]}"}}').encode()


def _message(chance: random.Random) -> dict[str, object]:
    day, hour, minute = chance.randint(10, 28), chance.randint(10, 23), chance.randint(10, 59)
    return {
        "id": f"{chance.getrandbits(96):024x}",
        "createdAt": f"2025-{chance.randint(10, 12)}-{day}T{hour}:{minute}:{chance.randint(10, 59)}.000Z",
        "author": {"id": f"{chance.getrandbits(96):024x}", "name": chance.choice(_PEOPLE)},
        "text": " ".join(chance.choices(_WORDS, k=chance.randint(15, 30))),
        "amount": chance.randint(100, 99_999) / 100,
        "read": chance.random() < 0.5,
    }

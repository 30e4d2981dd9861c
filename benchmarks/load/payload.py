"""The payload of every event: 200 bytes of JSON with the event's number and the moment at which it was sent."""

from __future__ import annotations

import re

SIZE = 200
EVENT = re.compile(rb'\{"n":"(\d{10})","at":"(\d{20})","pad":"x*"\}')


def payload(number: int, at: int) -> bytes:
    """The payload of event `number`, sent at `at`, nanoseconds of the clock that all processes of a machine share."""
    return (b'{"n":"%010d","at":"%020d","pad":"' % (number, at)).ljust(SIZE - 2, b"x") + b'"}'

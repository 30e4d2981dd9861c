"""Durations as people write them: `90s`, `15m`, `1h`, `7d`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 36_500 * 86_400


def parse_duration(text: str) -> int:
    """Seconds in `text`.

    Raises ValueError, with what is expected, if it is no duration of 1 second to 100 years.
    """
    found = _DURATION.fullmatch(text.strip())
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{text!r} is no duration: write for example 90s, 15m, 1h or 7d")
    return seconds

"""`python -m examples.channels` runs the desks, and prints a link for each of three people."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.showing import show

PEOPLE = {
    "ada": ("--claim", 'teams=["red", "blue"]'),
    "bob": ("--claim", 'teams=["blue"]'),
    "carol": ("--claim", 'teams=["red"]', "--claim", "muted=true"),
}

if __name__ == "__main__":
    sys.exit(show(Path(__file__).parent, PEOPLE))

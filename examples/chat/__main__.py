"""`python -m examples.chat` runs the chat, and prints a link for each of three people."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.showing import show

if __name__ == "__main__":
    sys.exit(show(Path(__file__).parent, {"ada": (), "bob": (), "carol": ()}))

"""`python -m examples.game_lobby` runs the lobby, and prints where its page is."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.showing import show

if __name__ == "__main__":
    sys.exit(show(Path(__file__).parent, {}))

"""What tests do where something that they need can't be had."""

from __future__ import annotations

import os

import pytest


def needed(reason: str | None) -> None:
    """Skip for this reason, if there is one; in CI, where everything is promised to be there, fail."""
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)

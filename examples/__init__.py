"""Runnable examples: `python -m examples.chat`, `python -m examples.game_platform` and so on."""

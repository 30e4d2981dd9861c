"""Runnable examples: `python -m examples.game_platform`, `python -m examples.first_edition`."""

"""Applications in Python: what a team writes beside the broker. `docs/handlers.md` is the tutorial."""

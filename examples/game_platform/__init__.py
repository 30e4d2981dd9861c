"""The game platform's gateway: tokens, patterns, and a table of who may see what."""

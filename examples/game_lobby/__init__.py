"""A game lobby: two sit down at a table and play; who else is there watches."""

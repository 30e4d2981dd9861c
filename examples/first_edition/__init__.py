"""The game platform's first edition: no authentication, flat events, everyone sees everything they subscribe to."""

"""Channels: each team has a desk, where only its members may be; and everybody has an inbox of their own."""

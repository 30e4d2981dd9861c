"""A chat: rooms, messages from user to user on all their devices, and who is there."""

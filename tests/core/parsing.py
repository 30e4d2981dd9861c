"""Frames, read by somebody else's hand."""

from __future__ import annotations

from typing import Any

from wsproto.frame_protocol import FrameProtocol, Opcode


def parsed(frame: bytes) -> list[tuple[Opcode, Any]]:
    """The frames, read as a client of wsproto reads them; the parts of one message are put together."""
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frame)
    found: list[tuple[Opcode, Any]] = []
    so_far: Any = None
    for part in protocol.received_frames():
        so_far = part.payload if so_far is None else so_far + part.payload
        if part.message_finished:
            found.append((part.opcode, so_far))
            so_far = None
    return found

"""Compressed events to a crowd: what a delivery costs, beside a server that compresses for each connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.broadcast import compare
from benchmarks.load.frames import OFFER
from benchmarks.load.payload import document
from benchmarks.load.session import Outcome, Session
from benchmarks.peers import Peer
from benchmarks.peers.ours import Ours
from benchmarks.peers.python_servers import WEBSOCKETS
from benchmarks.report import Report
from benchmarks.scale import IN_FLIGHT, Scale

COMPRESSING: Sequence[Peer] = (
    Ours(headers=OFFER),
    replace(WEBSOCKETS, subscriber=replace(WEBSOCKETS.subscriber, headers=OFFER)),
)
PLAIN: Sequence[Peer] = (
    replace(Ours(), name=f"{Ours.name}, nobody compresses"),
    replace(WEBSOCKETS, name=f"{WEBSOCKETS.name}, nobody compresses"),
)
SCALE = Scale()


def compression(scale: Scale = SCALE, peers: Sequence[Peer] = (*COMPRESSING, *PLAIN)) -> Report:
    """One publisher, 64 events of 1 KiB in flight; all subscribers offer compression as browsers do, or none does."""

    def measure(session: Session) -> Outcome:
        return session.saturate(IN_FLIGHT, scale.seconds)

    title = f"events of 1 KiB, {IN_FLIGHT} of them in flight"
    return compare("compression", title, scale, peers, measure, document)

"""How much is measured, and in which order: in turns, so that whatever else the machine does concerns all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load.session import Outcome, Rounds, Session

IN_FLIGHT = 64


@dataclass(frozen=True)
class Scale:
    """The numbers of connections, and the rounds and their seconds."""

    connections: Sequence[int] = (100, 1_000)
    rounds: int = 5
    seconds: float = 1.0


def in_turns(
    sessions: Mapping[str, Session], measure: Callable[[Session], Outcome], scale: Scale
) -> Mapping[str, Rounds]:
    """Measure each session once in each round."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in sessions}
    for session in sessions.values():  # what is loaded late is loaded now
        session.saturate(IN_FLIGHT, scale.seconds / 4)
    for _ in range(scale.rounds):
        for name, session in sessions.items():
            outcomes[name].append(measure(session))
    return {name: Rounds(rounds) for name, rounds in outcomes.items()}

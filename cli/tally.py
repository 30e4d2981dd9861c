"""How a pipe fares: what was published, and what was refused and why."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from cli.errors import tell


class Tally:
    """Counts, and shows the count on a terminal while it grows."""

    def __init__(self) -> None:
        self.published = 0
        self.refused = 0
        console = Console(stderr=True)
        count = TextColumn("{task.completed} events published")
        self.progress = Progress(
            count, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self.progress.add_task("", total=None)

    def __str__(self) -> str:
        return f"{self.published} published, {self.refused} refused"

    def took(self, number: int) -> None:
        """So many more are published."""
        self.published += number
        self.progress.update(self._task, completed=self.published)

    def refuse(self, line: int, reason: str) -> None:
        """The event of this line is not, and will not be."""
        self.refused += 1
        tell(f"line {line}: {reason}")

"""A measurement as a value: what was measured, in rows, and how it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One benchmark's outcome: what it is about, what the columns are, and the numbers."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float | str]]

    def text(self) -> str:
        """A table for people."""
        cells = [list(self.columns), *([_shown(value) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([f"{self.name}: {self.title}", *(f"  {line}" for line in lines)])


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.2f}"

"""A measurement as a value: what was measured, in rows, and how it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Value = float | str


@dataclass(frozen=True)
class Report:
    """One benchmark's outcome: what it is about, what the columns are, and the numbers.

    notes: what else there is to say, such as why something was not measured.
    chart: the column whose numbers are shown as bars; the columns before it name them.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    chart: str | None = None

    def text(self) -> str:
        """A table for people."""
        cells = [list(self.columns), *([shown(value) for value in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([f"{self.name}: {self.title}", *(f"  {line}" for line in [*lines, *self.notes])])

    def markdown(self) -> str:
        """The same for documents, which say themselves what it is about."""
        lines = [self.columns, ["---"] * len(self.columns), *([shown(value) for value in row] for row in self.rows)]
        table = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([*table, *("\n" + note for note in self.notes)])


def shown(value: Value) -> str:
    """A number or a text as people read it."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 1000 else f"{value:.2f}"

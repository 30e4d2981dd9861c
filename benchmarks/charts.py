"""Bar charts as SVG, legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from benchmarks.report import Report, Value, shown

_WIDTH, _LABEL, _VALUE = 760, 210, 90  # all of it, left of the bars, right of the longest
_LINE, _BAR = 26, 16
# Colours between the two kinds of pages: a picture in a page is not told which kind that is.
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #6e7781 }
.head { font-weight: 600 }
.other { fill: #8c959f }
.ours { fill: #2da44e }"""

Bar = tuple[str, float]


def write_chart(report: Report, ours: str, folder: Path) -> Path | None:
    """Write the chart that the report wants, if it wants one; `ours` is the name of the bars in another colour."""
    if report.chart is None:
        return None
    column = list(report.columns).index(report.chart)
    groups = [
        (f"{shown(key)} {report.columns[0]}", [bar for row in rows if (bar := _bar(row, column)) is not None])
        for key, rows in groupby(report.rows, key=lambda row: row[0])
    ]
    path = folder / f"{report.name}.svg"
    path.write_text(_svg(f"{report.chart}: {report.title}", groups, ours), encoding="utf-8")
    return path


def _bar(row: Sequence[Value], column: int) -> Bar | None:
    value = row[column]
    return None if isinstance(value, str) else (str(row[1]), value)


def _svg(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], ours: str) -> str:
    lines = [_text(0, 0, title, "head")]
    y = 1
    for head, bars in groups:
        lines.append(_text(0, y, head, "head"))
        longest = max((value for _, value in bars), default=1.0)
        for number, (name, value) in enumerate(bars, start=y + 1):
            width = (_WIDTH - _LABEL - _VALUE) * value / longest
            kind = "ours" if name == ours else "other"
            lines.append(_text(12, number, name))
            place = f'x="{_LABEL}" y="{number * _LINE + 5}" width="{width:.1f}" height="{_BAR}"'
            lines.append(f'<rect class="{kind}" {place} rx="2"/>')
            lines.append(_text(_LABEL + width + 6, number, shown(value)))
        y += len(bars) + 1
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y * _LINE + 8}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            *lines,
            "</svg>\n",
        ]
    )


def _text(x: float, line: int, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{line * _LINE + 18}">{escape(text)}</text>'

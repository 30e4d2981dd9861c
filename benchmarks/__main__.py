"""`python -m benchmarks [NAME]…`: run the benchmarks and print their tables, as ratios side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import (
    amqp,
    broadcast,
    compression,
    idle_memory,
    log,
    matching,
    resuming,
    slow_readers,
    sources,
    visibility,
)
from benchmarks.charts import write_chart
from benchmarks.peers.ours import Ours
from benchmarks.profile import SCALE as PROFILE
from benchmarks.profile import profile
from benchmarks.report import Report
from benchmarks.scale import Scale
from tests.system.rabbitmq import why_not


class Extent(Enum):
    """How much is measured."""

    QUICK = "quick"  # a few connections and events: the numbers mean nothing, but they come
    USUAL = "usual"
    FULL = "full"


Benchmark = Callable[[Extent], Report]
T = TypeVar("T")


def _scaled(measure: Callable[[Scale], Report], usual: Scale, quick: tuple[int, ...] = (5,)) -> Benchmark:
    return lambda extent: measure(Scale(quick, 1, 0.2) if extent is Extent.QUICK else usual)


def _size(extent: Extent, *sizes: T) -> T:
    return sizes[list(Extent).index(extent)]


def _amqp(measure: Callable[..., Report], extent: Extent) -> Report:
    reason = why_not()
    if reason is not None:
        return Report(f"amqp_{measure.__name__}", "not measured", ("why",), [(reason,)])
    few = {"messages": 300, "rounds": 1} if extent is Extent.QUICK else {}
    return amqp.on_a_private_node(partial(measure, **few))


BENCHMARKS: Mapping[str, Benchmark] = {
    "idle_memory": lambda extent: idle_memory.run(_size(extent, (20,), *idle_memory.SIZES)),
    "matching": lambda extent: matching.index(_size(extent, (10, 100), matching.SIZES, matching.FULL_SIZES)),
    "audience": lambda extent: matching.audience(_size(extent, (100, 200), matching.CROWDS, matching.CROWDS)),
    "broadcast": _scaled(broadcast.saturated, broadcast.SCALE),
    "one_at_a_time": _scaled(broadcast.one_at_a_time, broadcast.SCALE),
    "steady": _scaled(broadcast.steady, broadcast.STEADY),
    "compression": _scaled(compression.compression, compression.SCALE),
    "visibility": _scaled(visibility.per_user, visibility.SCALE, (5, 10)),
    "slow_readers": _scaled(slow_readers.slow_readers, slow_readers.SCALE, (9,)),
    "resuming": _scaled(resuming.resuming, resuming.SCALE),
    "sources": _scaled(sources.sources, sources.SCALE),
    "profile": _scaled(profile, PROFILE, (2, 4)),
    "log_publishing": lambda extent: log.publishing(
        _size(extent, log.Scale(100, 400, 1, rabbitmq=False), log.Scale(), log.Scale(log.FULLY_HELD))
    ),
    "log_opening": lambda extent: log.opening(
        _size(extent, 100, log.HELD, log.FULLY_HELD), _size(extent, 10, log.FACTS, log.FULL_FACTS)
    ),
    "amqp_consuming": partial(_amqp, amqp.consuming),
    "amqp_publishing": partial(_amqp, amqp.publishing),
}


def main() -> None:
    """Run what was asked for, by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measurements, as ratios side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)}; default: all")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--full", action="store_true", help="a million patterns, 10,000 connections and a million events, too"
    )
    extent.add_argument(
        "--quick", action="store_true", help="only see whether everything runs; the numbers mean nothing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a benchmark and line")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the tables into a document, between their marks")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="write charts there, as SVG")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    how_much = Extent.FULL if options.full else Extent.QUICK if options.quick else Extent.USUAL
    for name in options.names or BENCHMARKS:
        report = BENCHMARKS[name](how_much)
        if options.charts:
            write_chart(report, Ours.name, options.charts)
        if options.into:
            put_into(options.into, report)
        print(json.dumps(asdict(report)) if options.json else f"{report.text()}\n", flush=True)


def put_into(document: Path, report: Report) -> None:
    """Replace what stands between `<!-- benchmark NAME -->` and `<!-- end -->` by the table."""
    begin, end = f"<!-- benchmark {report.name} -->\n", "<!-- end -->"
    head, mark, rest = document.read_text(encoding="utf-8").partition(begin)
    if mark:
        tail = rest[rest.index(end) :]
        document.write_text(f"{head}{mark}{report.markdown()}\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()

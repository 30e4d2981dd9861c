"""`python -m benchmarks [NAME]… [--full] [--json]`: run the benchmarks and print their tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from benchmarks import amqp, broadcast, idle_memory, log, matching
from benchmarks.report import Report

Benchmark = Callable[[bool], Report]

BENCHMARKS: Mapping[str, Benchmark] = {
    "idle_memory": lambda _full: idle_memory.run(),
    "matching": lambda full: matching.index(matching.FULL_SIZES if full else matching.SIZES),
    "audience": lambda _full: matching.audience(),
    "broadcast": lambda _full: broadcast.run(),
    "log_publishing": lambda full: log.publishing(held=log.FULLY_HELD if full else log.HELD),
    "log_opening": lambda full: log.opening(*((log.FULLY_HELD, log.FULL_FACTS) if full else (log.HELD, log.FACTS))),
    "amqp_consuming": lambda _full: amqp.on_a_private_node(amqp.consuming),
    "amqp_publishing": lambda _full: amqp.on_a_private_node(amqp.publishing),
}


def main() -> None:
    """Run what was asked for, by default all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measurements, as ratios side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--full", action="store_true", help="with a million subscriptions, and a million events")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a benchmark and line")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in options.names or BENCHMARKS:
        report = BENCHMARKS[name](options.full)
        print(json.dumps(asdict(report)) if options.json else f"{report.text()}\n", flush=True)


if __name__ == "__main__":
    main()

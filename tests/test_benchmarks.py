"""The benchmarks run, here with a few connections and events only: their numbers mean nothing, but they come."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import broadcast, compression, idle_memory, log, matching, slow_readers, sources, visibility
from benchmarks.load.crowd import connected
from benchmarks.load.messages import Plan
from benchmarks.load.session import Session
from benchmarks.peers import Peer
from benchmarks.peers.ours import NAME, PIPED, Ours
from benchmarks.peers.packaged import Nats, Nchan
from benchmarks.peers.python_servers import NAIVE, SOCKETIO, WEBSOCKETS, PythonServer
from benchmarks.profile import profile
from benchmarks.report import Report
from benchmarks.resuming import resuming
from benchmarks.scale import Scale

pytestmark = pytest.mark.system

MINIATURE = Scale((4,), 1, 0.1)
ROOT = Path(__file__).parent.parent


def numbers(report: Report, column: str) -> list[float]:
    place = list(report.columns).index(column)
    return [float(row[place]) for row in report.rows]


def needed(peer: Peer) -> None:
    reason = peer.why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("measure", [broadcast.saturated, broadcast.one_at_a_time, broadcast.steady])
def test_broadcasts_are_measured_beside_a_naive_server(measure: Callable[..., Report]) -> None:
    report = measure(MINIATURE, (Ours(), NAIVE))
    assert [row[:2] for row in report.rows] == [(4, Ours.name), (4, NAIVE.name)]
    assert all(number > 0 for column in report.columns[2:] for number in numbers(report, column))
    assert numbers(report, "ours to this")[0] == 1
    assert report.notes == []


@pytest.mark.parametrize("peer", [PIPED, WEBSOCKETS, SOCKETIO, Nats(), Nchan()], ids=lambda peer: peer.name)
def test_peers_bring_every_event_to_everybody_once_and_in_order(peer: Peer) -> None:
    needed(peer)
    report = broadcast.saturated(MINIATURE, (Ours(), peer))
    assert all(number > 0 for number in numbers(report, "deliveries per CPU-second"))


def test_a_peer_that_is_missing_has_a_row_without_numbers_and_a_reason() -> None:
    missing = PythonServer(
        "another", "another.py", "plain", WEBSOCKETS.subscriber, WEBSOCKETS.publisher, (("a-nother", "a_nother"),)
    )
    report = broadcast.one_at_a_time(MINIATURE, (Ours(), missing))
    assert report.rows[1] == (4, "another", *["-"] * 5)
    (note,) = report.notes
    assert "lacks a-nother" in note


def test_a_crowd_may_be_several_processes() -> None:
    with Ours().running() as server:
        plan = Plan(server.port, server.dialect, server.subscribers(5))
        with connected(plan, workers=3) as crowd:
            outcome = Session(server.pid, crowd, server.publisher, lambda _: NAME).deliver(100, in_flight=10)
    assert len(crowd.connections) == 3
    assert outcome.events >= 100
    assert outcome.latencies.total() == outcome.deliveries == 5 * outcome.events


def test_a_server_that_forgets_somebody_fails_the_run() -> None:
    with Ours(patterns=lambda user: ["other.*"] if user == 3 else ["games.*.created"]).running() as server:
        plan = Plan(server.port, server.dialect, server.subscribers(4))
        with connected(plan) as crowd, pytest.raises(RuntimeError, match="of 10 events only 0 came to everybody"):
            Session(server.pid, crowd, server.publisher, lambda _: NAME, patience=0.5).deliver(10, in_flight=10)


def test_compression_is_measured_beside_a_server_that_compresses_for_each_connection() -> None:
    needed(WEBSOCKETS)
    report = compression.compression(MINIATURE)
    assert [row[0] for row in report.rows] == [4] * 4
    assert report.notes == []
    assert all(number > 0 for column in report.columns[2:] for number in numbers(report, column))


def test_events_for_one_user_each_are_measured_as_the_crowd_grows() -> None:
    report = visibility.per_user(Scale((3, 6), 1, 0.1))
    assert [row[:2] for row in report.rows] == [(50, 3), (50, 6), (256, 3), (256, 6)]
    assert [row[-1] for row in report.rows[::2]] == [1, 1]
    assert all(cost > 0 for cost in numbers(report, "µs an event"))


def test_slow_readers_are_measured_beside_a_crowd_without_them() -> None:
    report = slow_readers.slow_readers(Scale((9,), 1, 0.2))
    assert [row[0] for row in report.rows] == ["nobody", "drop_oldest", "disconnect"]
    assert numbers(report, "p99 to nobody")[0] == 1
    nobody, dropped, disconnected = numbers(report, "frames not sent")
    assert nobody == 0
    assert dropped > disconnected == 1  # the client that does not read
    assert all(number > 0 for number in numbers(report, "p99 ms"))


def test_those_who_come_back_are_measured_beside_those_who_stayed() -> None:
    report = resuming(Scale((5,), 1, 0.5), missed=300)
    assert [row[0] for row in report.rows] == [":memory:", "log.db"]
    assert all(float(value) > 0 for row in report.rows for value in row[1:])


def test_the_ways_from_a_source_to_the_sockets_are_measured() -> None:
    report = sources.sources(MINIATURE)
    found = [(row[0], row[1]) for row in report.rows if row[1] != "-"]
    ways = [(way, in_flight) for in_flight in (64, 1) for way in ("webhook", "pipe", "AMQP")]
    assert [each for each in found if each[0] != "AMQP"] == [each for each in ways if each[0] != "AMQP"]
    assert found == ways or report.notes


def test_the_log_on_disk_is_measured_beside_the_one_in_memory() -> None:
    report = log.publishing(log.Scale(held=100, events=400, rounds=1, rabbitmq=False))
    assert len(report.rows) == 5
    assert all(float(value) > 0 for row in report.rows for value in row[1:])


def test_opening_a_log_is_measured_with_long_and_short_segments() -> None:
    report = log.opening(held=300, facts=10)
    assert [row[:3] for row in report.rows] == [(300, 128, 10), (300, 1, 10)]
    assert all(seconds > 0 for seconds in numbers(report, "seconds"))


def test_a_profile_has_a_cost_for_each_step() -> None:
    report = profile(Scale((2, 4), 1, 0.5))
    assert report.rows[-1][0] == "all"
    assert sum(numbers(report, "event alone: µs")) > 0


def test_idle_memory_is_measured_against_the_bound() -> None:
    (row,) = idle_memory.run((20,)).rows
    connections, before, after, each, bound, _ = (float(value) for value in row)
    assert connections == 20
    assert 0 < before <= after
    assert each == pytest.approx((after - before) / 20)
    assert bound == 32


def test_matching_is_measured_as_ratios_of_the_smallest() -> None:
    for report in (matching.index((10, 100)), matching.audience((100, 200))):
        assert next(row[1] for row in report.rows) == 1
        assert all(float(row[1]) > 0 for row in report.rows)


def test_an_unknown_benchmark_is_refused() -> None:
    ran = benchmarks("speed")
    assert ran.returncode == 2
    assert "there is no benchmark speed; there are idle_memory, " in ran.stderr


def test_the_output_for_programs_is_a_json_object_a_line() -> None:
    (line,) = benchmarks("audience", "--quick", "--json").stdout.splitlines()
    assert json.loads(line)["name"] == "audience"


def test_tables_go_into_a_document_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark audience -->\nold\n<!-- end -->\nafter\n<!-- end -->\n")
    benchmarks("audience", "matching", "--quick", "--into", str(page))
    text = page.read_text()
    assert text.startswith(
        "before\n<!-- benchmark audience -->\n| connections | ratio |\n| --- | --- |\n| 100 | 1.00 |"
    )
    assert text.endswith("|\n<!-- end -->\nafter\n<!-- end -->\n")


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

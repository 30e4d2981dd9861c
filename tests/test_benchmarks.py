"""The benchmarks run, here with a few connections only: their numbers mean nothing, but they come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import broadcast, idle_memory, matching
from benchmarks.report import Report

pytestmark = pytest.mark.system


def test_idle_memory_is_measured_against_the_bound() -> None:
    report = idle_memory.run(20)
    (row,) = report.rows
    before, after, each, bound, _ = (float(value) for value in row)
    assert 0 < before <= after
    assert each == pytest.approx((after - before) / 20)
    assert bound == 40


def test_matching_is_measured_as_ratios_of_the_smallest() -> None:
    for report in (matching.index((10, 100)), matching.audience((100, 200))):
        assert next(row[1] for row in report.rows) == 1
        assert all(float(row[1]) > 0 for row in report.rows)


def test_broadcasts_are_measured_beside_a_naive_server() -> None:
    report = broadcast.run((5,), 5000)
    assert [row[:2] for row in report.rows] == [(5, 1), (5, 20)]
    assert all(float(row[2]) > 0 for row in report.rows)


def test_a_report_is_a_table() -> None:
    report = Report("name", "what it is about", ("size", "ratio"), [(10, 1.0), (1_000_000, 1.234)])
    assert report.text() == "name: what it is about\n       size  ratio\n         10   1.00\n  1,000,000   1.23"


def test_an_unknown_benchmark_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    ran = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "there is no benchmark speed; there are idle_memory, " in ran.stderr


def test_the_output_for_programs_is_a_json_object_a_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "audience", "--json"]
    ran = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    (line,) = ran.stdout.splitlines()
    assert json.loads(line)["name"] == "audience"

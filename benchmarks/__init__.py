"""Repeatable measurements, printed as ratios side by side: `python -m benchmarks`."""

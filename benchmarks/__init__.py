"""Timings of fgvc-bench as ratios, each pair measured side by side in one run. Never part of a test."""

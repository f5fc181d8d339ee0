"""Fixtures that the tests of several methods share."""

from goldenkit import golden

__all__ = ["golden"]

"""Fixtures that the tests of several methods share."""

import pytest

pytest.register_assert_rewrite("goldenkit")

from goldenkit import golden  # noqa: E402

__all__ = ["golden"]

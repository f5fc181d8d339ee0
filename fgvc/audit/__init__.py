"""Checks of published and own numbers. The registry is filled by importing the modules of checks."""

from fgvc.audit import check_averages, check_oddities, check_shares  # noqa: F401 -- they register themselves

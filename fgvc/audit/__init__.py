"""Checks of published and own numbers. The registry is filled by importing the modules of checks."""

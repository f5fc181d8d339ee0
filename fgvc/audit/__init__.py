"""Checks of published and own numbers. The registry is filled by importing the modules of checks."""

from fgvc.audit import (  # noqa: F401, I001 -- they register themselves, in the order in which reports show them
    check_averages,
    check_oddities,
    check_shares,
    check_runs,
    check_protocols,
    check_sources,
    check_costs,
    check_claims,
    check_facts,
    own_coverage,
    own_metrics,
    own_tables,
    own_cards,
    own_inputs,
    own_selection,
    own_terms,
    own_costs,
)

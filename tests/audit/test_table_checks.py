"""Checks of any table of accuracies: they find what is wrong, and leave clean tables alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tablekit import Honest, contradicted, findings_of

from fgvc.audit.finding import Finding
from fgvc.audit.rounding import Printed
from fgvc.audit.tables import Average, Score, ScoreTable

TEST_SETS = (240, 600, 990, 2943, 3333, 3669, 5794, 6149, 8041, 8580, 24633, 95986)

clean_tables = st.builds(
    Honest,
    seed=st.integers(0, 2**32),
    images=st.lists(st.sampled_from(TEST_SETS), min_size=1, max_size=8).map(tuple),
    methods=st.integers(1, 10),
    runs=st.integers(1, 5),
    decimals=st.integers(1, 2),
    rounds_runs_first=st.booleans(),
    says_runs=st.booleans(),
    with_std=st.booleans(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clean_tables)
def test_a_clean_table_has_no_contradiction(table: Honest) -> None:
    assert contradicted(table.make()) == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_a_clean_table_with_three_decimals_has_no_contradiction(seed: int, runs: int) -> None:
    assert contradicted(Honest(seed, (240, 5794, 6149), 4, runs, 3).make()) == []


def clean(methods: int = 6, runs: int = 3, seed: int = 5) -> ScoreTable:
    return Honest(seed, (240, 5794, 3669, 8580, 6149, 600), methods, runs, 2).make()


def of(check: str, table: ScoreTable) -> list[Finding]:
    return [f for f in findings_of(table) if f.check == check]


def with_score(table: ScoreTable, dataset: str, method: str, **changes: object) -> ScoreTable:
    scores = tuple(
        replace(s, **changes) if (s.dataset, s.method) == (dataset, method) else s  # type: ignore[arg-type]
        for s in table.scores
    )
    return replace(table, scores=scores)


@pytest.mark.parametrize("by", [0.05, -0.05, 3.0])
def test_an_average_that_is_not_that_of_its_cells_is_found(by: float) -> None:
    table = clean()
    first = table.averages[0]
    wrong = replace(first, value=Printed(round(first.value.value + by, 2), 2))
    found = contradicted(replace(table, averages=(wrong, *table.averages[1:])))
    assert [f.check for f in found] == ["printed_average"] and "m0" in found[0].subject


def test_an_average_within_what_rounding_explains_is_let_be() -> None:
    cells = tuple(Score(f"d{i}", "m", Printed(v, 1)) for i, v in enumerate((90.1, 80.3)))
    for value, holds in ((85.1, True), (85.3, True), (85.2, True), (85.0, False), (85.4, False)):
        table = ScoreTable("t", "here", cells, (Average("m", Printed(value, 1), None, 2),))
        assert (contradicted(table) == []) is holds, value


def test_an_average_over_cells_that_are_not_here_is_not_judged() -> None:
    table = clean()
    short = replace(table, scores=tuple(s for s in table.scores if s.dataset != "d0"))
    assert {f.verdict for f in of("printed_average", short)} == {"not_checkable"}


def test_the_cell_that_mends_a_wrong_average_and_its_std_is_told() -> None:
    """A copied cell: the average row still knows what stood there."""
    table = clean()
    other, cell = table.cell("d1", "m0"), table.cell("d2", "m0")
    assert other is not None and cell is not None
    copied = with_score(table, "d2", "m0", value=other.value, std=other.std)
    found = {f.check: f for f in contradicted(copied)}
    assert "would hold with" in found["printed_average"].explanation
    assert "d2 " in found["printed_average"].explanation
    assert found["identical_cells"].published == other.text


def test_a_wrong_std_across_datasets_is_found() -> None:
    table = clean()
    first = table.averages[0]
    assert first.std is not None
    wrong = replace(first, std=Printed(round(first.std.value + 0.3, 2), 2))
    found = contradicted(replace(table, averages=(wrong, *table.averages[1:])))
    assert [f.check for f in found] == ["printed_spread"]


def test_the_std_of_the_population_is_right_too() -> None:
    cells = (Score("a", "m", Printed(80.0, 2)), Score("b", "m", Printed(90.0, 2)))
    for std, verdict in ((7.07, "confirmed"), (5.0, "confirmed"), (6.0, "contradicted")):
        table = ScoreTable("t", "here", cells, (Average("m", Printed(85.0, 2), Printed(std, 2), 2),))
        assert [f.verdict for f in of("printed_spread", table)] == [verdict]


def test_a_number_between_two_shares_is_found_and_a_padding_that_gives_it_is_told() -> None:
    value = Printed(91.856, 3)  # 5324/5796
    table = ScoreTable("t", "here", (Score("cub", "m", value, images=5794, runs=1),))
    (found,) = of("granularity", table)
    assert found.verdict == "contradicted" and "4 processes" in found.explanation
    assert (
        of("granularity", ScoreTable("t", "here", (Score("cub", "m", value, images=5796, runs=1),)))[
            0
        ].verdict
        == "confirmed"
    )


def test_where_every_number_is_possible_a_share_is_not_confirmed() -> None:
    table = ScoreTable("t", "here", (Score("inat17", "m", Printed(69.38, 2), images=95_986, runs=3),))
    (found,) = of("granularity", table)
    assert found.verdict == "not_checkable" and "every number is possible" in found.explanation


def test_unknown_test_images_are_not_judged() -> None:
    table = ScoreTable("t", "here", (Score("mine", "m", Printed(69.38, 2), Printed(0.1, 2)),))
    verdicts = {f.check: f.verdict for f in findings_of(table)}
    assert verdicts["granularity"] == verdicts["spread_of_runs"] == "not_checkable"


def test_an_impossible_spread_is_found() -> None:
    score = Score("cotton", "m", Printed(50.0, 2), Printed(0.05, 2), images=240, runs=3)
    (found,) = of("spread_of_runs", ScoreTable("t", "here", (score,)))
    assert found.verdict == "contradicted"


def test_runs_fewer_than_stated_are_found() -> None:
    single = Honest(3, (240, 600, 240, 600, 990), 6, 1, 2).make()
    claimed = replace(single, scores=tuple(replace(s, runs=3) for s in single.scores))
    (found,) = of("runs_behind", claimed)
    assert found.verdict == "contradicted" and found.recomputed == "1 run(s)"
    assert of("runs_behind", single)[0].verdict == "confirmed"


def test_a_std_out_of_line_is_found() -> None:
    table = clean(runs=3)
    quiet = replace(table, scores=tuple(replace(s, std=Printed(0.05, 2)) for s in table.scores))
    odd = with_score(quiet, "d3", "m2", std=Printed(4.28, 2))
    assert [f.subject for f in of("std_outlier", odd) if f.verdict == "contradicted"] == ["synthetic: m2, d3"]
    assert [f.verdict for f in of("std_outlier", quiet)] == ["confirmed"]


def test_exchanged_cells_are_found() -> None:
    levels = {"a": 95.0, "b": 88.0, "c": 76.0, "d": 60.0}
    scores = [
        Score(d, f"m{m}", Printed(round(level + 0.4 * m + 0.3 * (m % 3), 1), 1))
        for m in range(8)
        for d, level in levels.items()
    ]
    table = ScoreTable("t", "here", tuple(scores))
    assert [f.verdict for f in of("exchanged_cells", table)] == ["confirmed"]
    b, c = table.cell("b", "m4"), table.cell("c", "m4")
    assert b is not None and c is not None
    swapped = with_score(with_score(table, "b", "m4", value=c.value), "c", "m4", value=b.value)
    (found,) = of("exchanged_cells", swapped)
    assert found.verdict == "contradicted" and "m4, b and c" in found.subject

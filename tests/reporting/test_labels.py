"""Placing labels: none on another, none on a marker, all inside, the same every time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fgvc.reporting.labels import Anchor, Box, leader_end, place

FRAME = Box(0, 0, 900, 500)


def overlaps(one: Box, other: Box) -> bool:
    return one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1


def anchors_at(positions: list[tuple[float, float]]) -> list[Anchor]:
    return [Anchor(x, y, 6, 40 + 3 * (i % 4), 12) for i, (x, y) in enumerate(positions)]


def assert_clear(anchors: list[Anchor], boxes: list[Box]) -> None:
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 900 and box.y1 <= 500
        assert not any(overlaps(box, other) for other in boxes[i + 1 :])
        assert not any(overlaps(box, a.marker) for a in anchors)


def test_a_lone_label_stands_to_the_right() -> None:
    (box,) = place(anchors_at([(450, 250)]), FRAME, [], gap=3, near=6)
    assert box.x0 == 459 and box.center[1] == 250


def test_at_the_right_edge_it_turns_to_the_left() -> None:
    (box,) = place(anchors_at([(890, 250)]), FRAME, [], gap=3, near=6)
    assert box.x1 < 890


def test_obstacles_are_avoided() -> None:
    wall = Box(455, 200, 600, 300)
    (box,) = place(anchors_at([(450, 250)]), FRAME, [wall], gap=3, near=6)
    assert not overlaps(box, wall)


def test_twenty_methods_in_one_spot() -> None:
    rng = np.random.default_rng(0)
    anchors = anchors_at([(450 + dx, 250 + dy) for dx, dy in rng.normal(0, 4, (20, 2))])
    boxes = place(anchors, FRAME, [], gap=3, near=6)
    assert_clear(anchors, boxes)
    assert place(anchors, FRAME, [], gap=3, near=6) == boxes


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(60, 840), st.floats(40, 460)), min_size=1, max_size=12))
def test_any_cloud_is_labelled_clearly(positions: list[tuple[float, float]]) -> None:
    anchors = anchors_at(positions)
    assert_clear(anchors, place(anchors, FRAME, [], gap=3, near=6))


def test_leaders_only_where_they_are_needed() -> None:
    anchor = Anchor(100, 100, 5, 40, 12)
    assert leader_end(anchor, Box(108, 94, 148, 106), 6) is None
    assert leader_end(anchor, Box(150, 120, 190, 132), 6) == (150, 120)

"""Placing labels beside the points of a plot so that none covers another label or a marker.

Pure geometry in pixels, the same result for the same input. Each label tries positions around its point, ring
by ring; the labels with the least room choose first, then all may improve in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Directions in the order they are liked: right, left, above, below, the diagonals, what lies between.
_DIRECTIONS = np.deg2rad(
    [0, 180, 90, 270, 45, 135, 315, 225, *np.arange(22.5, 360, 45), *np.arange(11.25, 360, 22.5)]
)
_RINGS = 14
_PASSES = 6
_LEADER_POINTS = 24


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


@dataclass(frozen=True)
class Anchor:
    """A point with its marker's half extent and the size of its label, in pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def marker(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


def place(
    anchors: Sequence[Anchor], frame: Box, obstacles: Sequence[Box], gap: float, near: float
) -> list[Box]:
    """A box for each label.

    Args:
        frame: labels stay inside it.
        obstacles: what is better not covered besides the markers (error bars, pieces of lines).
        gap: pixels between a marker and a label next to it; half of it between two labels.
        near: labels further than this from their marker get a leader (see `leader_end`).

    Labels do not overlap each other, nor markers, as long as there is room within the rings; leaders cross
    labels and one another only where there is no better place.
    """
    candidates = [_candidates(a, gap) for a in anchors]
    leaders = [_leaders(a, boxes, near) for a, boxes in zip(anchors, candidates, strict=True)]
    own = [
        _static_cost(i, candidates[i], leaders[i], anchors, frame, obstacles, gap)
        for i in range(len(anchors))
    ]
    chosen: dict[int, int] = {}
    order = sorted(range(len(anchors)), key=lambda i: (-float(np.sort(own[i])[:8].mean()), i))
    for _ in range(_PASSES):
        before = dict(chosen)
        for i in order:
            others = [(j, k) for j, k in sorted(chosen.items()) if j != i]
            cost = own[i]
            if others:
                boxes = np.stack([candidates[j][k] for j, k in others])
                lines = np.stack([leaders[j][k] for j, k in others])
                cost = cost + _overlap(candidates[i], boxes, gap / 2).sum(axis=1)
                cost = cost + 15.0 * _crossings(leaders[i], boxes).sum(axis=1)
                cost = cost + 15.0 * _crossings(lines, candidates[i]).sum(axis=0)
            chosen[i] = int(np.argmin(cost))
        if chosen == before:
            break
    return [Box(*map(float, candidates[i][chosen[i]])) for i in range(len(anchors))]


def leader_end(anchor: Anchor, label: Box, longest_without: float) -> tuple[float, float] | None:
    """Where a line from the point meets its label, or None when the label is near enough to need none."""
    x = float(np.clip(anchor.x, label.x0, label.x1))
    y = float(np.clip(anchor.y, label.y0, label.y1))
    return (x, y) if np.hypot(x - anchor.x, y - anchor.y) - anchor.radius > longest_without else None


def _candidates(anchor: Anchor, gap: float) -> Floats:
    """Boxes ``[n, 4]`` whose near edge touches circles around the marker, nearest ring first."""
    boxes = []
    for ring in range(_RINGS):
        reach = anchor.radius + gap + ring * anchor.height * 0.6
        cos, sin = np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)
        x = anchor.x + reach * cos + np.round(cos, 6) * anchor.width / 2
        y = anchor.y + reach * sin + np.round(sin, 6) * anchor.height / 2
        half = np.array([anchor.width, anchor.height]) / 2
        boxes.append(np.column_stack([x - half[0], y - half[1], x + half[0], y + half[1]]))
    return np.concatenate(boxes)


def _static_cost(
    own: int,
    boxes: Floats,
    leaders: Floats,
    anchors: Sequence[Anchor],
    frame: Box,
    obstacles: Sequence[Box],
    gap: float,
) -> Floats:
    """What a position costs whatever the other labels do; 1 is one ring further away."""
    steps = np.arange(len(boxes))
    cost = 1.0 * (steps // len(_DIRECTIONS)) + 0.04 * (steps % len(_DIRECTIONS))
    outside = (
        (boxes[:, 0] < frame.x0)
        | (boxes[:, 1] < frame.y0)
        | (boxes[:, 2] > frame.x1)
        | (boxes[:, 3] > frame.y1)
    )
    markers = np.array([[m.x0, m.y0, m.x1, m.y1] for m in (a.marker for a in anchors)])
    cost += 1e6 * outside + _overlap(boxes, markers, 0.7 * gap).sum(axis=1)
    cost += 5.0 * _belongs_elsewhere(boxes, own, anchors)
    cost += 0.8 * _crossings(leaders, markers).sum(axis=1)
    if obstacles:
        blocks = np.array([[o.x0, o.y0, o.x1, o.y1] for o in obstacles])
        cost += 2.0 * (_overlap(boxes, blocks, 0.0) > 0).sum(axis=1)
    return cost


def _belongs_elsewhere(boxes: Floats, own: int, anchors: Sequence[Anchor]) -> Floats:
    """1 for each box that is nearer to another marker than to its own: it would seem to name that one."""
    centers = np.array([[a.x, a.y] for a in anchors])
    nearest = np.clip(centers[None], boxes[:, None, :2], boxes[:, None, 2:])
    away = np.hypot(*np.moveaxis(nearest - centers[None], 2, 0)) - np.array([a.radius for a in anchors])
    elsewhere: Floats = (away.min(axis=1) < away[:, own] - 0.5).astype(np.float64)
    return elsewhere


def _overlap(boxes: Floats, others: Floats, gap: float) -> Floats:
    """A large number for each pair of boxes closer than ``gap``, larger where more is covered."""
    width = np.minimum(boxes[:, None, 2], others[None, :, 2]) - np.maximum(
        boxes[:, None, 0], others[None, :, 0]
    )
    height = np.minimum(boxes[:, None, 3], others[None, :, 3]) - np.maximum(
        boxes[:, None, 1], others[None, :, 1]
    )
    hit = (width > -gap) & (height > -gap)
    cost: Floats = np.where(hit, 1e3 + (width + gap) * (height + gap), 0.0)
    return cost


def _leaders(anchor: Anchor, boxes: Floats, near: float) -> Floats:
    """Points ``[n, p, 2]`` along the leader to each box; far away from everything where there is none."""
    start = np.array([anchor.x, anchor.y])
    ends = np.clip(start, boxes[:, :2], boxes[:, 2:])
    # Not the ends themselves: a leader touches its own label and starts in a crowd.
    shares = np.linspace(0.1, 0.95, _LEADER_POINTS)[None, :, None]
    points: Floats = start + shares * (ends - start)[:, None, :]
    points[np.hypot(*(ends - start).T) - anchor.radius <= near] = -1e9
    return points


def _crossings(lines: Floats, boxes: Floats) -> Floats:
    """For lines ``[n, p, 2]`` and boxes ``[m, 4]`` whether each line runs through each box, ``[n, m]``."""
    points = lines[:, None]
    inside = (points > boxes[None, :, None, :2]) & (points < boxes[None, :, None, 2:])
    crossed: Floats = np.any(np.all(inside, axis=3), axis=2).astype(np.float64)
    return crossed


def cut_in_the_middle(name: str, most: int) -> str:
    """At most so many letters of a name: those of similar classes tend to begin alike, or to end alike."""
    half = most // 2
    return name if len(name) <= most else f"{name[:half].rstrip()}…{name[half - most + 1 :].lstrip()}"

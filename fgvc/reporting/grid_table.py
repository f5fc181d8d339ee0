"""A table before it has a format: headings in groups, rows of cells, notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fgvc.config.project import Project


@dataclass(frozen=True)
class Heading:
    """A column heading on two lines; ``group`` is the heading it shares with its neighbours ("" for none)."""

    key: str
    group: str
    title: str
    subtitle: str = ""

    @property
    def one_line(self) -> str:
        """``CAL (ResNet-101)``."""
        return f"{self.title} ({self.subtitle})" if self.subtitle else self.title


@dataclass(frozen=True)
class Entry:
    """One printed cell: ``text`` in plain signs (± and all), its emphasis, and what is set behind it."""

    text: str
    bold: bool = False
    underlined: bool = False
    dagger: bool = False
    #: Small text behind the number, such as ``n=2/3``.
    remark: str = ""
    #: Letters of the notes about it.
    note_letters: str = ""

    @property
    def plain(self) -> str:
        """The cell where no emphasis can be shown: ``*`` the best, ``+`` the second."""
        marks = ("*" if self.bold else "") + ("+" if self.underlined else "") + ("†" if self.dagger else "")
        remark = f"({self.remark})" if self.remark else ""
        letters = f"[{self.note_letters}]" if self.note_letters else ""
        return " ".join(part for part in (self.text, marks, letters, remark) if part)


@dataclass(frozen=True)
class GridRow:
    """A row: its title, the letters of the notes about it, its entries, and whether a rule stands above.

    A ``quoted`` row belongs to the one above it and holds what others say of the same cells; it is set small.
    """

    title: str
    entries: tuple[Entry, ...]
    note_letters: str = ""
    rule_above: bool = False
    quoted: bool = False


@dataclass(frozen=True)
class Note:
    """A sentence under the table; ``letter`` is the one that its rows carry, or ""."""

    text: str
    letter: str = ""


@dataclass(frozen=True)
class Grid:
    """A whole table. ``partial`` is a plain line that says how much is there when not all is."""

    name: str
    title: str
    caption: str
    row_heading: str
    headings: tuple[Heading, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[Note, ...] = ()
    partial: str | None = None

    @property
    def column_titles(self) -> list[str]:
        """The headings on one line, with their group where another group has one that reads alike."""
        lines = [h.one_line for h in self.headings]
        return [
            f"{h.group}: {h.one_line}" if lines.count(h.one_line) > 1 else h.one_line for h in self.headings
        ]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring group headings and how many columns each spans."""
        spans: list[tuple[str, int]] = []
        for heading in self.headings:
            if spans and spans[-1][0] == heading.group:
                spans[-1] = (heading.group, spans[-1][1] + 1)
            else:
                spans.append((heading.group, 1))
        return spans


def letter(position: int) -> str:
    """The letter of a note: a … z, aa, ab …"""
    first, last = divmod(position, 26)
    return (chr(ord("a") + first - 1) if first else "") + chr(ord("a") + last)


def method_headings(project: Project, methods: Iterable[str]) -> tuple[Heading, ...]:
    """Headings of method columns, groups together in order of first appearance.

    Two variants that would read alike (same method and backbone) get their ids.
    """
    variants = {m: project.variant(m) for m in methods}
    groups = list(dict.fromkeys(v.group for v in variants.values()))
    headings = [
        Heading(m, v.group, *heading_lines(v.title, v.backbone_title))
        for m, v in sorted(variants.items(), key=lambda item: groups.index(item[1].group))
    ]
    shown = [h.one_line.casefold() for h in headings]
    return tuple(
        Heading(h.key, h.group, f"{h.title} [{h.key}]", h.subtitle)
        if shown.count(h.one_line.casefold()) > 1
        else h
        for h in headings
    )


def short_titles(headings: Iterable[Heading]) -> dict[str, str]:
    """Titles of methods, by key: with the backbone only where another method has the same title."""
    known = list(headings)
    titles = [h.title for h in known]
    return {h.key: h.title if titles.count(h.title) == 1 else h.one_line for h in known}


def heading_lines(title: str, backbone: str) -> tuple[str, str]:
    """Method and backbone, or one of them where it says the other too, up to spelling (ViT, ``ViT-B/16``)."""
    bare_title, bare_backbone = (re.sub(r"[^a-z0-9]", "", text.casefold()) for text in (title, backbone))
    if bare_backbone in bare_title:
        return title, ""
    return (backbone, "") if bare_title in bare_backbone else (title, backbone)

"""The audit of a dataset's pictures as a page of Markdown, and as a summary for a terminal."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from fgvc.config.project import Project
from fgvc.errors import first_few
from fgvc.provenance.files import write_json, write_text
from fgvc.reporting.markdown import escape, pipe_table
from fgvc.reporting.printer import DEFAULT_WIDTH, Column, render

#: Rows of a list on the page and on a terminal; all are in the JSON.
PAGE_ROWS, TERMINAL_ROWS = 50, 5

#: What a page calls the kinds of unusual files.
KIND_TITLES = {
    "unreadable": "unreadable or truncated",
    "changed": "changed since fetched",
    "cmyk": "CMYK",
    "16_bit": "16 bits a sample",
    "palette": "palette",
    "alpha": "transparency",
    "grey": "grey",
    "exif_rotated": "EXIF-rotated",
    "several_frames": "several frames (animated)",
}
_ORDERS = {
    "by_code_point": "ids follow the sorted names",
    "by_code_point_without_case": "ids follow the names sorted without regard to case",
    "natural": "ids follow the names in natural order (2 before 10)",
}


def write_audit(project: Project, record: dict[str, Any]) -> list[Path]:
    """Write ``results/audit/data/D.md`` and ``D.json``; return them in this order."""
    page = project.paths.data_audit(record["dataset"], "md")
    data = project.paths.data_audit(record["dataset"], "json")
    write_text(page, audit_page(record, data.name))
    write_json(data, record)
    return [page, data]


def audit_page(record: dict[str, Any], json_name: str) -> str:
    """The page; ``json_name`` is the file beside it that has every list in full."""
    blocks = [
        f"# {escape(record['title'])}: audit of the pictures",
        "\n".join(f"- **{head}**: {escape(text)}" for head, text in findings(record)),
        "## Identical images",
        _table(("Group", "Part", "Class", "Image"), _identical_rows(record), json_name),
        "## Near-duplicates",
        _table(("Bits", "Parts", "Class", "Image", "Class", "Image"), _near_rows(record), json_name),
        "## Classes",
        _table(
            ("Part", "Images", "Classes", "Smallest", "Median", "Largest", "Missing"), _class_rows(record)
        ),
        "## Unusual files",
        _table(("Kind", "Images", "What the loader does"), _kind_rows(record)),
        _table(("Kind", "Part", "Class", "Image"), _unusual_rows(record), json_name),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def findings(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The audit in a few sentences: ``(heading, text)``."""
    parts = ", ".join(f"{part} {count:,}" for part, count in record["parts"].items())
    unused = f", in no part {record['in_no_part']:,}" if record["in_no_part"] else ""
    return [
        ("images", f"{record['images']:,} in {record['classes']:,} classes: {parts}{unused}"),
        ("identical", _identical_text(record["identical"])),
        ("near-duplicates", _near_text(record["near_duplicates"])),
        ("classes", _class_text(record)),
        ("label order", _order_text(record["label_order"])),
        ("balance", _balance_text(record)),
        ("unusual files", _unusual_text(record)),
    ]


def audit_lines(record: dict[str, Any], width: int | None) -> str:
    """The summary for a terminal: the findings, the first pairs, and what is unusual about which files."""
    width = width or DEFAULT_WIDTH
    lines = [f"{record['title']}: audit of the pictures"]
    for head, text in findings(record):
        lines += textwrap.wrap(f"{head + ':':<17}{text}", width, subsequent_indent=" " * 17)
    blocks = [
        _terminal_table(("Part", "Class", "Identical image"), _identical_rows(record), (1, 2, 3), width),
        _terminal_table(("Bits", "Parts", "Near-duplicate", "Of"), _near_rows(record), (0, 1, 3, 5), width),
        _terminal_table(("Unusual", "Part", "Image"), _unusual_rows(record, but="grey"), (0, 1, 3), width),
    ]
    return "\n".join([*lines, *("\n" + block for block in blocks if block)])


# --- sentences -------------------------------------------------------------------------------------


def _identical_text(found: dict[str, Any]) -> str:
    if not found["groups"]:
        return "none"
    text = f"{found['images']:,} files in {found['groups']:,} group(s) of the same bytes"
    across, classes = found["groups_across_train_val_and_test"], found["groups_of_several_classes"]
    return text + _of_which(across, classes)


def _near_text(found: dict[str, Any]) -> str:
    rule = f"{found['hash']}, at most {found['max_distance_bits']} of {found['bits']} bits differ"
    left = f"; {found['not_compared']:,} not compared: one colour only, or unreadable"
    rule += left if found["not_compared"] else ""
    if not found["pairs"]:
        return f"none ({rule})"
    least = "" if found["all_found"] else "at least "
    across, classes = found["pairs_across_train_val_and_test"], found["pairs_of_several_classes"]
    return f"{least}{found['pairs']:,} pair(s){_of_which(across, classes)} ({rule})"


def _of_which(across: int, classes: int) -> str:
    text = f"; {across:,} across train/val and test: LEAKED" if across else "; none across train/val and test"
    return text + (f"; {classes:,} with several class labels" if classes else "")


def _class_text(record: dict[str, Any]) -> str:
    lacking = {part: facts["missing"] for part, facts in record["class_sets"].items() if facts["missing"]}
    if not lacking:
        return f"every part holds all {record['classes']:,}"
    return "; ".join(f"{part} lacks {len(them):,} ({first_few(them, 3)})" for part, them in lacking.items())


def _order_text(order: dict[str, Any]) -> str:
    text = _ORDERS.get(order["ids_follow_sorted_names"], "ids do not follow the sorted names")
    if order["first_out_of_order"]:
        text += f" ('{order['first_out_of_order'][0]}' before '{order['first_out_of_order'][1]}')"
    twice = order["names_of_several_ids"]
    return text + (f"; {len(twice)} name(s) stand for several ids ({first_few(twice, 3)})" if twice else "")


def _balance_text(record: dict[str, Any]) -> str:
    texts = [
        f"{part} {facts['smallest']:,}" + (f"–{facts['largest']:,}" if facts["imbalance"] != 1 else "")
        for part, facts in record["balance"].items()
    ]
    return ", ".join(texts) + " images a class"


def _unusual_text(record: dict[str, Any]) -> str:
    there = [
        f"{kind['images']:,} {KIND_TITLES[kind['kind']]}" for kind in record["unusual"] if kind["images"]
    ]
    return ", ".join(there) if there else "none"


# --- lists -----------------------------------------------------------------------------------------

Rows = list[tuple[str, ...]]


def _identical_rows(record: dict[str, Any]) -> Rows:
    return [
        (str(number), image["part"], image["class"], image["path"])
        for number, group in enumerate(record["identical"]["listed"], 1)
        for image in group["images"]
    ]


def _near_rows(record: dict[str, Any]) -> Rows:
    return [
        (
            str(pair["distance_bits"]),
            " and ".join(dict.fromkeys((pair["first"]["part"], pair["second"]["part"]))),
            pair["first"]["class"],
            pair["first"]["path"],
            pair["second"]["class"],
            pair["second"]["path"],
        )
        for pair in record["near_duplicates"]["listed"]
    ]


def _class_rows(record: dict[str, Any]) -> Rows:
    rows = []
    for part, images in record["parts"].items():
        facts, balance = record["class_sets"][part], record["balance"][part]
        counts = (balance["smallest"], balance["median"], balance["largest"])
        rows.append(
            (
                part,
                f"{images:,}",
                f"{facts['classes']:,}",
                *(f"{c:,}" for c in counts),
                first_few(facts["missing"], 20),
            )
        )
    return rows


def _kind_rows(record: dict[str, Any]) -> Rows:
    return [(KIND_TITLES[k["kind"]], f"{k['images']:,}", k["loader"]) for k in record["unusual"]]


def _unusual_rows(record: dict[str, Any], but: str = "") -> Rows:
    return [
        (
            KIND_TITLES[kind["kind"]],
            image["part"],
            image["class"],
            image["path"] + (f" ({image['why']})" if "why" in image else ""),
        )
        for kind in record["unusual"]
        if kind["kind"] != but
        for image in kind["listed"]
    ]


def _table(header: tuple[str, ...], rows: Rows, more_in: str | None = None) -> str:
    if not rows:
        return "None." if more_in else ""
    shown = rows[:PAGE_ROWS] if more_in else rows
    table = pipe_table(header, [[escape(cell) for cell in row] for row in shown], ["left"] * len(header))
    left = len(rows) - len(shown)
    return table + (f"\n\n… and {left:,} more, in {escape(str(more_in))}." if left else "")


def _terminal_table(header: tuple[str, ...], rows: Rows, columns: tuple[int, ...], width: int) -> str:
    """The first rows, with the ``columns`` chosen of them; "" where there is none."""
    if not rows:
        return ""
    shown = [
        {title: row[at] for title, at in zip(header, columns, strict=True)} for row in rows[:TERMINAL_ROWS]
    ]
    table = render(shown, [Column(title, title) for title in header], "terminal", width).rstrip("\n")
    left = len(rows) - len(shown)
    return table + (f"\n… and {left:,} more" if left else "")

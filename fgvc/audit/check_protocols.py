"""Checks of how published numbers were measured: chosen on test images, pre-trained on them, unequally."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fgvc.audit.context import PublishedContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.audit.published_tables import SHARES
from fgvc.audit.registry import published_check
from fgvc.audit.tables import listed
from fgvc.config.published_records import Record

_SELECTION = {
    "best_on_test": "the best checkpoint on the test images",
    "best_on_val": "the best checkpoint on a validation set",
    "last_epoch": "the last epoch",
    None: "not known",
}
_VERDICT_OF: dict[str | None, Verdict] = {
    "best_on_test": "contradicted",
    "best_on_val": "confirmed",
    "last_epoch": "confirmed",
    None: "not_checkable",
}
_CORPUS = re.compile(r"(?:imagenet|\bin)-?(1|21|22)k", re.IGNORECASE)


def _by_table(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The accuracies of each file; memories left out."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.metric.removeprefix("average_") in SHARES and record.is_reference:
            found.setdefault(record.table, []).append(record)
    return found


@published_check("test_selection", title="Checkpoints chosen on the test set", inputs=("params/published",))
def test_selection(context: PublishedContext) -> Iterator[Finding]:
    """An accuracy estimates what new images would give only if nothing was chosen on the images it is
    measured on. Contradicted: the source's own code or log keeps the best checkpoint on the test images;
    where the last epoch of the same run is known too, the gain is told. Confirmed: the last epoch, or the
    best on a validation set. Not checkable: how the checkpoint was chosen is not known.
    """
    for table, records in _by_table(context.records).items():
        place, source = context.place_of(table), context.source_of(table)
        for selection in dict.fromkeys(r.protocol.selection for r in records):
            of_it = [r for r in records if r.protocol.selection == selection]
            names = dict.fromkeys(r.method for r in of_it)
            why = f"reported is {_SELECTION[selection]}"
            if selection is None:
                why = "how the checkpoint was chosen is not known"
            gains = _gains(of_it, records) if selection == "best_on_test" else ""
            yield Finding(
                subject=f"{place}: checkpoints of {listed(names)}",
                verdict=_VERDICT_OF[selection],
                published=f"{len(of_it)} accuracies",
                recomputed=gains or None,
                explanation=why + (f"; best minus last epoch: {gains} points" if gains else ""),
                source=source,
            )


def _gains(best: list[Record], records: list[Record]) -> str:
    """What the choice gained on each dataset, where the last epoch of the same run is there."""
    last = {(r.method, r.dataset, r.metric): r.value for r in records if r.protocol.selection == "last_epoch"}
    told = []
    for record in best:
        other = last.get((record.method, record.dataset, record.metric))
        if other is not None:
            told.append(f"{record.dataset} {record.value - other:.2f}")
    return ", ".join(told)


def corpora(pretraining: str) -> list[str]:
    """The ImageNet versions that a printed pre-training names, as our files call them."""
    sizes = {"1": "1k", "21": "21k", "22": "21k"}  # the 22k of some papers is the 21k of others
    return list(dict.fromkeys(f"imagenet-{sizes[m[1]]}" for m in _CORPUS.finditer(pretraining)))


@published_check("unequal_protocols", title="Unequal rows in one table", inputs=("params/published",))
def unequal_protocols(context: PublishedContext) -> Iterator[Finding]:
    """A table compares methods only if its columns were measured alike. Compared are, as far as known: the
    split, how the checkpoint was chosen, how many passes are averaged at test time, whether the backbone was
    trained, runs behind a mean, and the images that the pre-training saw. Contradicted: two columns differ
    and their names do not say so. Confirmed: they differ as their names say (the difference may be the
    table's very subject), or nothing of what is known differs. Not checkable: too little is known.
    """
    for table, records in _by_table(context.records).items():
        columns = {r.column: r for r in records}
        if len({(r.method, r.backbone) for r in columns.values()}) < 2:
            continue
        known: dict[str, dict[str, list[Record]]] = {}
        for record in columns.values():
            for what, value in _measured(record):
                known.setdefault(what, {}).setdefault(value, []).append(record)
        unequal = {what: values for what, values in known.items() if len(values) > 1}
        for what, values in unequal.items():
            told = "; ".join(
                f"{value}: {listed(dict.fromkeys(r.method for r in found))}"
                for value, found in values.items()
            )
            said = _names_say(what, values)
            yield Finding(
                subject=f"{context.place_of(table)}: {what}",
                verdict="confirmed" if said else "contradicted",
                published="one table",
                recomputed=" / ".join(values),
                explanation=f"the columns differ{', and their names say so' if said else ''}: {told}",
                source=context.source_of(table),
            )
        if not unequal:
            yield Finding(
                subject=f"{context.place_of(table)}: columns measured alike",
                verdict="confirmed" if len(known) >= 3 else "not_checkable",
                recomputed=", ".join(f"{what}: {next(iter(v))}" for what, v in known.items()) or None,
                explanation="nothing of what is known differs between the columns"
                if len(known) >= 3
                else "too little is known of how the columns were measured",
                source=context.source_of(table),
            )


def _measured(record: Record) -> Iterator[tuple[str, str]]:
    """What is known of how a column was measured, in words."""
    protocol = record.protocol
    told = {
        "split": protocol.split,
        "choice of the checkpoint": protocol.selection,
        "passes averaged at test time": protocol.views,
        "training of the backbone": protocol.training,
        "runs behind a mean": protocol.seeds,
        "pre-training": " and ".join(corpora(record.pretraining)) or None,
    }
    for what, value in told.items():
        if value is not None:
            yield what, str(value)


def _names_say(what: str, values: dict[str, list[Record]]) -> bool:
    """Whether a reader of the columns' names knows of the difference."""
    if what == "pre-training":
        return all(corpora(f"{r.method} {r.backbone}") == [v] for v, found in values.items() for r in found)
    if what == "training of the backbone":
        return all("full" in r.method.lower() for r in values.get("full", []))
    return False


@published_check(
    "pretraining_overlap",
    title="Test images in the pre-training",
    inputs=("params/published", "params/datasets"),
)
def pretraining_overlap(context: PublishedContext) -> Iterator[Finding]:
    """Weights that saw the test images in pre-training do not meet them as new. Looked at is every dataset of
    a table whose images are in a corpus (params/datasets, `pretraining_overlap`), against the pre-training
    that the table's columns name. Contradicted: the columns' weights were trained on that corpus. Not
    checkable: the overlap itself is recalled and not verified, or the pre-training is not stated.
    """
    for table, records in _by_table(context.records).items():
        for dataset in dict.fromkeys(r.dataset_id for r in records if r.dataset_id):
            facts = context.project.dataset(dataset)
            if not facts.pretraining_overlap:
                continue
            of_it = [r for r in records if r.dataset_id == dataset]
            seen = {c for r in of_it for c in corpora(r.pretraining)} & set(facts.pretraining_overlap)
            recalled = any("overlap" in text for text in facts.unverified)
            verdict: Verdict = "contradicted" if seen and not recalled else "not_checkable"
            yield Finding(
                subject=f"{context.place_of(table)}: {of_it[0].dataset}, new to the weights",
                verdict=verdict,
                published=listed(dict.fromkeys(r.pretraining for r in of_it), most=3),
                recomputed=listed(sorted(seen)) or None,
                explanation=_overlap_words(facts.title, sorted(seen), recalled),
                source=context.source_of(table),
            )


def _overlap_words(dataset: str, seen: list[str], recalled: bool) -> str:
    if not seen:
        return "which images the weights saw is not stated"
    if recalled:
        return f"some images of {dataset} are said to be in {listed(seen)}; nobody verified it here"
    return f"images of {dataset} come from ImageNet, and the weights were trained on {listed(seen)}"

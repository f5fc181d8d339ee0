"""Was anything chosen on test? It must be impossible: what was trained, evaluated and chosen on what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import (
    Result,
    cell_name,
    finding,
    read_object,
    results_of,
    suite_cells,
)
from fgvc.audit.registry import suite_check
from fgvc.config.grid import Cell, rate_search
from fgvc.config.paths import rate_text


@suite_check(
    "own_selection",
    title="Nothing was selected on test",
    inputs=("results/runs/**/run.json", "results/sweeps/**/run.json", "results/**/metrics.json"),
)
def own_selection(context: SuiteContext) -> Iterator[Finding]:
    """Searches train on train and are evaluated on val; final runs train on train_val, for the epochs of the
    recipe, and are evaluated on test once, from the last epoch. Confirmed: the cards, the identities that the
    runs' digests are of, and the metrics all say so (that the lists share no image is checked apart).
    Contradicted: a run was trained or evaluated on another split, or stopped at another epoch.
    """
    for result in results_of(context):
        if result.card is None or result.metrics is None:
            continue
        card, source = result.card, result.source("run.json")
        facts = {
            "trained on": (card.get("split"), result.trained_on),
            "identity: trained on": (card.get("identity", {}).get("split"), result.trained_on),
            "evaluated on": (result.metrics.get("split"), result.evaluated_on),
            "epochs": (_epochs(card), card.get("identity", {}).get("recipe", {}).get("epochs")),
        }
        wrong = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}
        for name, (found, due) in wrong.items():
            why = "test must play no part before the end"
            yield finding("contradicted", f"{result.name}: {name}", why, source, found, due)
        if not wrong:
            told = f"trained on {result.trained_on} to the last epoch, evaluated on {result.evaluated_on}"
            yield finding("confirmed", f"{result.name}: splits", told, source)


def _epochs(card: dict[str, Any]) -> Any:
    """Epochs of a run. A diverged one ends early."""
    if card.get("status") != "ok":
        return card.get("identity", {}).get("recipe", {}).get("epochs")
    return card.get("epochs")


@suite_check(
    "own_rates",
    title="Learning rates are the best on val",
    inputs=("results/sweeps/**/lr.json", "results/sweeps/**/metrics.json", "params/suites"),
)
def own_rates(context: SuiteContext) -> Iterator[Finding]:
    """The learning rate of a cell is the one with the highest val top-1 among those that the suite lists;
    among equals the one with the lowest val NLL, then the smallest. The choice is made once more from the
    metrics of the searches, and compared with lr.json and with what the final runs used. Not checkable:
    the choice or the searches' metrics are not here.
    """
    searched = [r for r in results_of(context) if r.is_search]
    final = [r for r in results_of(context) if not r.is_search]
    for cell in suite_cells(context):
        path = context.project.paths.lr_choice(cell.dataset, cell.method, cell.size)
        shown = context.project.paths.shown(path)
        record, wrong = read_object(path)
        if record is None:
            yield finding(
                "contradicted" if wrong else "not_checkable",
                f"{cell_name(cell)}: learning rate",
                wrong or "nothing was chosen yet",
                shown,
            )
            continue
        yield from _candidates(cell, record, [r for r in searched if r.cell == cell], shown)
        yield _choice(context, cell, record, [r for r in searched if r.cell == cell], shown)
        yield from _used(record, [r for r in final if r.cell == cell])


def _candidates(cell: Cell, record: dict[str, Any], searched: list[Result], shown: str) -> Iterator[Finding]:
    """What lr.json says of each candidate, against its metrics."""
    listed = {c.get("learning_rate"): c for c in record.get("candidates", [])}
    keys = {
        "val_top1_pct": "top1_pct",
        "val_nll_nats": "nll_nats",
        "val_images": "images",
        "status": "status",
    }
    keys["run_sha256"] = "run_sha256"
    for result in searched:
        candidate = listed.get(result.rate)
        if result.metrics is None or candidate is None:
            continue
        for key, name in keys.items():
            if candidate.get(key) != result.metrics.get(name):
                yield finding(
                    "contradicted",
                    f"{cell_name(cell)}: {key} of learning rate {rate_text(result.rate or 0)}",
                    "lr.json says otherwise than the metrics of the search",
                    shown,
                    candidate.get(key),
                    result.metrics.get(name),
                )


def _choice(
    context: SuiteContext, cell: Cell, record: dict[str, Any], searched: list[Result], shown: str
) -> Finding:
    subject, chosen = f"{cell_name(cell)}: learning rate", record.get("learning_rate")
    search = rate_search(context.project, cell)
    if not search.is_searched:
        same = chosen == search.rates[0]
        why = "one rate is given, nothing is searched"
        return finding("confirmed" if same else "contradicted", subject, why, shown, chosen, search.rates[0])
    if any(r.metrics is None for r in searched):
        lacking = ", ".join(rate_text(r.rate or 0) for r in searched if r.metrics is None)
        return finding("not_checkable", subject, f"the search of {lacking} is not here", shown, chosen)
    finished = [(r.rate, r.metrics) for r in searched if r.metrics and r.metrics.get("status") == "ok"]
    if not finished:
        return finding(
            "contradicted", subject, "every search diverged, so none could be chosen", shown, chosen
        )
    best = min(finished, key=lambda c: (-c[1]["top1_pct"], c[1]["nll_nats"], c[0]))[0]
    rates = ", ".join(map(rate_text, search.rates))
    if best == chosen:
        return finding("confirmed", subject, f"the best of {rates} on val", shown, chosen, best)
    return finding("contradicted", subject, f"another one of {rates} is better on val", shown, chosen, best)


def _used(record: dict[str, Any], final: list[Result]) -> Iterator[Finding]:
    for result in final:
        used = result.card.get("learning_rate") if result.card else None
        if result.card is not None and used != record.get("learning_rate"):
            why = "the run used another learning rate than the one that was chosen"
            source = result.source("run.json")
            yield finding(
                "contradicted",
                f"{result.name}: learning rate",
                why,
                source,
                used,
                record.get("learning_rate"),
            )

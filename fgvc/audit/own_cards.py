"""Do the run cards hold together: identity, path, checkpoint, history, stages, and the store's digests?"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import Result, digest_finding, finding, read_object, results_of
from fgvc.audit.registry import suite_check
from fgvc.config.identity import recipe_identity
from fgvc.config.project import Project
from fgvc.config.stages import version
from fgvc.provenance.digests import value_sha256
from fgvc.provenance.store import MANIFEST, ResultStore

CARD, MODEL, HISTORY = "run.json", "model.safetensors", "history.csv"
#: Files of a training that its store keeps the digests of.
KEPT = (CARD, HISTORY, "metrics.json", "predictions.parquet", "heads.parquet")


@suite_check(
    "own_cards",
    title="Run cards hold together",
    inputs=("results/runs/**/run.json", "results/sweeps", "params"),
)
def own_cards(context: SuiteContext) -> Iterator[Finding]:
    """A run's identity lists all that its numbers depend on, and its digest names the run. Checked: the
    digest, recomputed from the identity; that dataset, method, size, seed, learning rate and split are
    those of the card and of the run's path; that the recipe is the one of params/ as it is now; and that
    the last line of history.csv is what the card says of the last epoch. Contradicted: one of them
    differs.
    """
    for result in results_of(context):
        if result.card is None:
            if result.broken or result.metrics is not None:
                why = "; ".join(result.broken) or "there are metrics, but no run card to vouch for them"
                yield finding("contradicted", f"{result.name}: run card", why, result.source(CARD))
            continue
        wrong = [*_identity(result, result.card), *_recipe(context.project, result, result.card)]
        wrong += _last_epoch(result, result.card)
        for key, why, recorded, again in wrong:
            yield finding("contradicted", f"{result.name}: {key}", why, result.source(CARD), recorded, again)
        if not wrong:
            why = "identity, path, recipe and history agree"
            yield finding("confirmed", f"{result.name}: run card", why, result.source(CARD))


#: What differs: its place in the card, why that is wrong, what is recorded, what was found.
Wrong = tuple[str, str, object, object]


def _identity(result: Result, card: dict[str, Any]) -> Iterator[Wrong]:
    identity = card.get("identity", {})
    digest = value_sha256(identity)
    if digest != card.get("run_sha256"):
        yield "run_sha256", "it is not the digest of the identity in the card", card.get("run_sha256"), digest
    expected = {
        "dataset": result.cell.dataset,
        "method": result.cell.method,
        "image_size": result.cell.size,
        "seed": result.seed,
        "split": result.trained_on,
    }
    if result.rate is not None:
        expected["learning_rate"] = result.rate
    for key, value in expected.items():
        if card.get(key) != value:
            yield key, "the card is of another run than its path says", card.get(key), value
    inner = {"dataset": "dataset_id", "image_size": "image_size", "seed": "seed", "split": "split"}
    for key, name in (inner | {"learning_rate": "learning_rate"}).items():
        if card.get(key) != identity.get(name):
            yield f"identity.{name}", "card and identity disagree", card.get(key), identity.get(name)


def _recipe(project: Project, result: Result, card: dict[str, Any]) -> Iterator[Wrong]:
    recorded = card.get("identity", {})
    current = recipe_identity(project, result.cell.dataset, result.cell.method)
    for key, value in current.items():
        if key != "stage_version" and recorded.get(key) != value:
            why = "the run was trained with another recipe than params/ has now"
            yield f"identity.{key}", why, recorded.get(key), value
    digest = value_sha256({key: recorded.get(key) for key in current})
    if digest != card.get("recipe_sha256"):
        yield "recipe_sha256", "it is not the digest of the card's recipe", card.get("recipe_sha256"), digest


def _last_epoch(result: Result, card: dict[str, Any]) -> Iterator[Wrong]:
    file = result.file(HISTORY)
    if not file.is_file():
        return
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for key in ("train_loss", "train_top1_pct"):
        last = _number(rows[-1].get(key)) if rows else None
        if _number(card.get(key)) != last and not (last is not None and not math.isfinite(last)):
            yield key, f"the last line of {HISTORY} says otherwise", card.get(key), last


def _number(value: Any) -> float | None:
    try:
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return math.nan


@suite_check(
    "own_checkpoints",
    title="Checkpoints are those that were evaluated",
    inputs=("results/runs/**/model.safetensors", "results/runs/**/run.json", "results/runs/**/metrics.json"),
)
def own_checkpoints(context: SuiteContext) -> Iterator[Finding]:
    """run.json holds the digest of the checkpoint, metrics.json that of the checkpoint it was computed with.
    Checked: the file against its digest, and the two digests against one another. Searches keep no
    checkpoint. Not checkable: the checkpoint is not here.
    """
    for result in results_of(context):
        if result.card is None:
            continue
        expected = result.card.get("model_sha256")
        if not result.is_search or result.file(MODEL).is_file():
            yield digest_finding(result.file(MODEL), result.source(MODEL), expected, CARD, "dvc pull")
        if result.metrics is None:
            continue
        for key in ("model_sha256", "run_sha256"):
            if result.metrics.get(key) != result.card.get(key):
                yield finding(
                    "contradicted",
                    f"{result.name}: {key} of metrics.json",
                    "the metrics are of another run or checkpoint than the one beside them",
                    result.source("metrics.json"),
                    result.metrics.get(key),
                    result.card.get(key),
                )


@suite_check(
    "own_stages",
    title="Results were made by the stages as they are now",
    inputs=("results/runs/**/run.json", "results/runs/**/metrics.json", "fgvc/config/stages.py"),
)
def own_stages(context: SuiteContext) -> Iterator[Finding]:
    """A stage's version is raised when its numbers change. Each record holds the version that made it.
    Contradicted: a run or its metrics were made by an earlier version, so that the numbers of today's code
    are others; making the target again replaces them.
    """
    for result in results_of(context):
        if result.card is None or result.metrics is None:
            continue
        made = result.card.get("identity", {}).get("stage_version"), result.metrics.get("stage_version")
        now = version("train"), version("evaluate")
        same = made == now
        yield finding(
            "confirmed" if same else "contradicted",
            f"{result.name}: versions of training and evaluation",
            "as they are now"
            if same
            else "they were raised since: its numbers are no longer those of the code",
            result.source(CARD),
            "{} and {}".format(*made),
            "{} and {}".format(*now),
        )


@suite_check(
    "own_store",
    title="Records are those that the run left",
    inputs=("state/runs", "state/sweeps", "results/runs"),
)
def own_store(context: SuiteContext) -> Iterator[Finding]:
    """When a run ends, the digests of its files go into the manifest of its store (state/), which no report
    reads. Contradicted: a record was changed since, even where it agrees with all others. Not checkable: the
    state is not here; it stays on the machine that made the runs.
    """
    for result in results_of(context):
        if result.card is None:
            continue
        state = context.project.paths.state_dir(result.folder)
        folder = ResultStore(state, str(result.card.get("run_sha256"))).folder
        manifest, _ = read_object(folder / MANIFEST)
        subject, known = f"{result.name}: digests of its store", (manifest or {}).get("files", {})
        if not known:
            why = "the run's state is not here, or of another run"
            yield finding("not_checkable", subject, why, result.shown)
            continue
        files = [name for name in KEPT if name in known and result.file(name).is_file()]
        answers = [
            digest_finding(result.file(name), result.source(name), known[name], "the manifest", "dvc pull")
            for name in files
        ]
        changed = [a for a in answers if a.verdict == "contradicted"]
        yield from changed
        if not changed:
            yield finding("confirmed", subject, f"unchanged since the run: {', '.join(files)}", result.shown)

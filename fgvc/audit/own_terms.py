"""Were the runs of a table made on equal terms: one committed code, one set of packages, one device?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding, Verdict
from fgvc.audit.own_results import Result, finding, results_of
from fgvc.audit.registry import suite_check

CARD = "run.json"


@suite_check("own_dirty", title="Runs are of committed code", inputs=("results/runs/**/run.json",))
def own_dirty(context: SuiteContext) -> Iterator[Finding]:
    """A card names the commit of the code, and whether files of the package differed from it. Contradicted:
    they did (a dirty tree), so that the commit does not give the code back. Not checkable: the code lay in no
    git checkout; the digest of its sources is recorded all the same.
    """
    by_code: dict[tuple[str, str], list[Result]] = {}
    for result in results_of(context):
        if result.card is not None:
            code = result.card.get("code", {})
            by_code.setdefault((str(code.get("commit")), str(code.get("dirty"))), []).append(result)
    for (commit, dirty), results in by_code.items():
        subject, source = f"code {commit[:10]}: {len(results)} trainings", results[0].source(CARD)
        if dirty == "None":
            why = f"no git checkout was known to {_named(results)}"
            yield finding("not_checkable", subject, why, source)
        elif dirty == "True":
            why = f"the package had changes that were not committed: {_named(results)}"
            yield finding("contradicted", subject, why, source, commit, "dirty tree")
        else:
            yield finding("confirmed", subject, "the commit is the code", source, commit, "clean")


def _named(results: list[Result]) -> str:
    rest = f" and {len(results) - 3} more" if len(results) > 3 else ""
    return ", ".join(r.name for r in results[:3]) + rest


@suite_check("own_code", title="Runs of a table are of one code", inputs=("results/runs/**/run.json",))
def own_code(context: SuiteContext) -> Iterator[Finding]:
    """All final runs at an image size stand in one table. Confirmed: the digest of the package's sources is
    the same in all. Contradicted: it differs, and so does the version of the training stage, which is
    raised when numbers change. Not checkable: it differs under one version: then the developers say that
    no number is affected, which only making the runs again can show.
    """
    for size, results in _by_size(context).items():
        codes = _values(results, lambda card: card.get("code", {}).get("sources_sha256"))
        versions = _values(results, lambda card: card.get("identity", {}).get("stage_version"))
        subject, source = f"size {size}: sources of {len(results)} runs", f"results/runs/*/*/{size}/*/{CARD}"
        if len(codes) == 1:
            yield finding("confirmed", subject, "one digest of the sources", source, next(iter(codes)))
        else:
            verdict: Verdict = "contradicted" if len(versions) > 1 else "not_checkable"
            stages = "different versions" if len(versions) > 1 else "one version"
            why = f"{len(codes)} digests of the sources under {stages} of training, as {_example(codes)}"
            yield finding(verdict, subject, why, source, 1, len(codes))


@suite_check(
    "own_packages", title="Runs of a table used one set of packages", inputs=("results/runs/**/run.json",)
)
def own_packages(context: SuiteContext) -> Iterator[Finding]:
    """Another version of torch, timm or an image library may give other numbers. Confirmed: each package that
    the cards name has one version (builds of one version, such as +cpu, count as one) in all final runs at an
    image size. Contradicted: it has several.
    """
    for size, results in _by_size(context).items():
        source = f"results/runs/*/*/{size}/*/{CARD}"
        names = sorted({name for r in results for name in (r.card or {}).get("packages", {})})
        mixed = False
        for name in names:
            found = _values(results, partial(_release, name))
            if len(found) > 1:
                mixed = True
                why = f"runs of one table used different versions, as {_example(found)}"
                yield finding(
                    "contradicted", f"size {size}: {name}", why, source, 1, ", ".join(sorted(found))
                )
        if not mixed:
            why = f"one version of each of {len(names)} packages"
            yield finding("confirmed", f"size {size}: packages of {len(results)} runs", why, source)


@suite_check(
    "own_machines", title="Runs of a table are of one kind of machine", inputs=("results/runs/**/run.json",)
)
def own_machines(context: SuiteContext) -> Iterator[Finding]:
    """The same inputs give the same bytes on the same kind of machine only. Confirmed: all final runs at an
    image size used one kind of device (cpu, cuda, mps) and one processor or GPU model. Contradicted:
    different kinds. Not checkable: different models of one kind, whose effect on the numbers is not known.
    """
    for size, results in _by_size(context).items():
        kinds = _values(results, lambda card: card.get("device", {}).get("kind"))
        models = _values(results, _model)
        subject, source = f"size {size}: machines of {len(results)} runs", f"results/runs/*/*/{size}/*/{CARD}"
        if len(kinds) > 1:
            why = f"different kinds of device, as {_example(kinds)}"
            yield finding("contradicted", subject, why, source, 1, ", ".join(sorted(kinds)))
        elif len(models) > 1:
            why = f"different models of one kind, as {_example(models)}"
            yield finding("not_checkable", subject, why, source, 1, ", ".join(sorted(models)))
        else:
            yield finding("confirmed", subject, "one model of device", source, next(iter(models)))


def _by_size(context: SuiteContext) -> dict[int, list[Result]]:
    """Final runs with a card, by image size."""
    found: dict[int, list[Result]] = {}
    for result in results_of(context, searches=False):
        if result.card is not None:
            found.setdefault(result.cell.size, []).append(result)
    return found


def _values(results: list[Result], value: Callable[[dict[str, Any]], Any]) -> dict[str, str]:
    """Each distinct value, as text, with the first run that has it."""
    found: dict[str, str] = {}
    for result in results:
        found.setdefault(str(value(result.card or {})), result.name)
    return found


def _example(found: dict[str, str]) -> str:
    (one, first), (other, second) = list(found.items())[:2]
    return f"{one[:16]} ({first}) and {other[:16]} ({second})"


def _release(package: str, card: dict[str, Any]) -> str:
    """The version of a package in a card, without its build."""
    return str(card.get("packages", {}).get(package)).partition("+")[0]


def _model(card: dict[str, Any]) -> str:
    device = card.get("device", {})
    return str(card.get("host", {}).get("processor") if device.get("kind") == "cpu" else device.get("name"))

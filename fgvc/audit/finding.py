"""What an audit says: one finding for one statement that was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

#: confirmed: recomputed, and it agrees. contradicted: recomputed, and it cannot be so. not_checkable:
#: something that the check needs is not known, or it cannot tell either way; the explanation says which.
Verdict = Literal["confirmed", "contradicted", "not_checkable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
#: The keys of a finding in the JSON of an audit, in this order.
KEYS = ("check", "subject", "verdict", "published", "recomputed", "explanation", "source")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement, and whether it holds.

    Attributes:
        subject: what is looked at, in words that find it again: ``GLSim, Table 4: FFVT, average``.
        verdict: see `Verdict`.
        published: what is claimed; a number, a text, or None where nothing is printed.
        recomputed: what it was compared with; None where nothing could be recomputed.
        explanation: one or two sentences: why this verdict.
        source: where the claim stands: paper and table, or a file of the project.
        check: id of the check; the registry fills it in.
    """

    subject: str
    verdict: Verdict
    explanation: str
    source: str
    published: str | float | None = None
    recomputed: str | float | None = None
    check: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"'{self.verdict}' is no verdict: {', '.join(VERDICTS)}")

    def as_json(self) -> dict[str, Any]:
        """Exactly the keys of `KEYS`."""
        facts = asdict(self)
        return {key: facts[key] for key in KEYS}


def verdict_counts(findings: Iterable[Finding]) -> dict[Verdict, int]:
    """How many findings have each verdict, zeros included."""
    counted = Counter(finding.verdict for finding in findings)
    return {verdict: counted[verdict] for verdict in VERDICTS}

"""Which faces are pre-trained on: none too like a test face, no two too like one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.data.progress import Progress, quiet
from fgvc.errors import FgvcError
from fgvc.pretraining.faces import Face, Refusal, benchmark_faces
from fgvc.pretraining.outlines import Masks, all_masks, benchmark_masks, similarities

#: A face this similar to a test face is refused. Copies and relatives lie above 0.99 (Nimbus Roman and
#: FreeSerif against STIX), another Times at 0.95 (Doulos), independent designs of one genre below 0.935.
LIKE_A_TEST_FACE = 0.94
#: Of two faces this similar one is used: the two most similar test faces reach 0.903.
LIKE_ANOTHER_FACE = 0.91


@dataclass(frozen=True)
class Nearest:
    """The pre-training face most similar to a test face."""

    test_face: str
    face: str
    package: str
    similarity: float


@dataclass(frozen=True)
class Selection:
    """The faces to train on, what was refused and why, and the nearest face of each test face."""

    faces: tuple[Face, ...]
    refused: tuple[Refusal, ...]
    nearest: tuple[Nearest, ...]


def select(
    faces: Sequence[Face], refused: Sequence[Refusal], limit: int | None = None, progress: Progress = quiet
) -> Selection:
    """Choose among text faces by their outlines.

    Args:
        refused: what was refused before, for the report.
        limit: keep at most so many, evenly spaced (for a quick try).

    Faces with short names come first within a package, so that Regular, Bold and Italic stand for the weights
    between them. The order of the result, which numbers the classes, is by name. Raises FgvcError when fewer
    than two faces remain.
    """
    known = benchmark_faces()
    masks = all_masks(faces, progress)
    known_masks = benchmark_masks()
    out = list(refused)
    kept = _far_from_tests(faces, masks, known, known_masks, out)
    kept = _far_from_one_another(faces, masks, kept, out)
    kept.sort(key=lambda i: faces[i].name)
    if limit is not None and limit < len(kept):
        kept = [kept[round(i)] for i in np.linspace(0, len(kept) - 1, limit)]
    if len(kept) < 2:
        reason = f", the last because it is {out[-1].reason}" if out else ""
        raise FgvcError(
            f"{len(kept)} typeface(s) remain to train on; {len(out)} were refused{reason}",
            cure="at least two are needed; name more packages",
        )
    like = similarities([masks[i] for i in kept], known_masks)
    nearest = []
    for column, test_face in enumerate(known):
        best = int(like[:, column].argmax())
        face = faces[kept[best]]
        nearest.append(Nearest(test_face.name, face.name, face.package, float(like[best, column])))
    return Selection(tuple(faces[i] for i in kept), tuple(out), tuple(nearest))


def _far_from_tests(
    faces: Sequence[Face],
    masks: Sequence[Masks],
    known: Sequence[Face],
    known_masks: Sequence[Masks],
    refused: list[Refusal],
) -> list[int]:
    """Positions of the faces that are like no test face; the others are entered into ``refused``."""
    if not faces:
        return []
    like = similarities(masks, known_masks)
    kept = []
    for i, face in enumerate(faces):
        best = int(like[i].argmax())
        if like[i, best] >= LIKE_A_TEST_FACE:
            reason = f"too like the test face {known[best].name}"
            refused.append(Refusal(face.name, face.package, reason, float(like[i, best])))
        else:
            kept.append(i)
    return kept


def _far_from_one_another(
    faces: Sequence[Face], masks: Sequence[Masks], positions: Sequence[int], refused: list[Refusal]
) -> list[int]:
    """A subset of ``positions`` no two of which are too similar, simple names first."""
    if not positions:
        return []
    like = similarities([masks[i] for i in positions], [masks[i] for i in positions])
    ranks = sorted(range(len(positions)), key=lambda r: _simplicity(faces[positions[r]]))
    kept: list[int] = []
    for rank in ranks:
        best = max(kept, key=lambda other: like[rank, other], default=None)
        if best is not None and like[rank, best] >= LIKE_ANOTHER_FACE:
            face, other = faces[positions[rank]], faces[positions[best]]
            reason = f"too like {other.name}, which is used"
            refused.append(Refusal(face.name, face.package, reason, float(like[rank, best])))
        else:
            kept.append(rank)
    return [positions[rank] for rank in kept]


def _simplicity(face: Face) -> tuple[str, int, str, str]:
    return face.package, len(face.name.split()), face.name, face.path.name

"""The model card of pre-trained weights: Markdown made from the record of the run, nothing typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fgvc.pretraining.packages import EXCLUDED_FAMILIES
from fgvc.pretraining.selection import LIKE_A_TEST_FACE, LIKE_ANOTHER_FACE
from fgvc.provenance.durations import duration_text


def card_text(record: dict[str, Any]) -> str:
    """The card of ``record``, as `fgvc.pretraining.run.pretrain` writes it."""
    sections = [_summary, _use, _training, _likeness, _faces, _refused, _reproduce, _limits]
    return "\n\n".join(section(record) for section in sections) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _summary(record: dict[str, Any]) -> str:
    accuracy, faces = record["accuracy"], len(record["faces"])
    used = {face["package"] for face in record["faces"]}
    facts = [
        ("architecture", f"`{record['recipe']['architecture']}`, {record['parameters']:,} parameters"),
        ("trained to tell apart", f"{faces} typefaces from {len(used)} Debian packages"),
        (
            "top-1, centre crop",
            f"{accuracy['centre_pct']:.1f} % of {accuracy['pictures']} held-out pictures "
            f"(chance {100 / faces:.1f} %)",
        ),
        ("top-1, mean of five crops", f"{accuracy['five_crops_pct']:.1f} %"),
        (
            "training time",
            f"{duration_text(record['cpu_seconds'])} of processor time on {record['threads']} threads, "
            f"{duration_text(record['seconds'])} by the clock",
        ),
        ("file", f"{record['bytes']:,} bytes of half-precision safetensors, without a classifier"),
        ("SHA-256", f"`{record['sha256']}`"),
        ("licence", "as this project; the fonts keep theirs (below), none of them is contained"),
    ]
    intro = (
        f"# {record['weights']}\n\nThis card is written by `fgvc pretrain` from what it measured. The "
        "weights are a start for the dataset `typefaces`,\nwhose 21 faces they have not seen."
    )
    return f"{intro}\n\n{_table(('fact', 'value'), facts)}"


def _use(record: dict[str, Any]) -> str:
    side = record["recipe"]["crop_px"] // 16
    return (
        "## Use\n\n"
        "Inputs are RGB, normalised with mean 0.5 and standard deviation 0.5. The position embedding has a "
        f"{side} × {side} grid\nand is resized where the model is built for another image size. "
        f"`weights: {record['weights']}` in a variant loads them."
    )


def _training(record: dict[str, Any]) -> str:
    recipe = record["recipe"]
    text = (
        f"Each face draws {recipe['renders']} pictures of text as the dataset `typefaces` does: same words, "
        f"sizes, rotation. The last {recipe['held_out']} are held out.\nA step sees random crops of "
        f"{recipe['crop_px']} pixels of pictures resized to {recipe['side_px']}: the scale that fine-tuning "
        "at 224 sees. Colours and noise\nare drawn anew at each step. The matrices of the blocks learn by "
        "Muon, the rest by AdamW, both in one cycle of the learning rate."
    )
    rows = [(key.replace("_", " "), value) for key, value in recipe.items()]
    rows += [
        ("steps", record["steps"]),
        ("training pictures", record["train_pictures"]),
        ("top-1 of training crops, last epoch", f"{record['train_top1_pct']} %"),
        ("processor", record["host"]["processor"]),
        (
            "software",
            ", ".join(f"{k} {record['software'][k]}" for k in ("python", "torch", "timm", "pillow")),
        ),
        ("digest of faces and recipe", f"`{record['identity_sha256']}`"),
    ]
    return f"## Recipe\n\n{text}\n\n{_table(('what', 'value'), rows)}"


def _likeness(record: dict[str, Any]) -> str:
    text = (
        "Outlines of every letter are compared after size and position are made equal; the similarity of two "
        "faces is the mean Dice coefficient\n(1: identical). Faces that reach "
        f"{LIKE_A_TEST_FACE:.2f} with any test face are refused, and so are families that the test faces "
        f"descend from\n({', '.join(EXCLUDED_FAMILIES)}). The nearest face that was trained on:"
    )
    rows = [(n["test_face"], n["face"], n["package"], f"{n['similarity']:.3f}") for n in record["nearest"]]
    return f"## Similarity to the test faces\n\n{text}\n\n" + _table(
        ("test face", "nearest pre-training face", "package", "similarity"), rows
    )


def _faces(record: dict[str, Any]) -> str:
    rows = []
    for package in record["packages"]:
        names = [face["name"] for face in record["faces"] if face["package"] == package["name"]]
        licences = ", ".join(package["licences"]) or "see its copyright file"
        if names:
            rows.append((package["name"], package["version"], licences, len(names), ", ".join(names)))
    return (
        f"## Faces\n\n{len(record['faces'])} faces; licences as in `/usr/share/doc/PACKAGE/copyright`.\n\n"
        + (_table(("package", "version", "licences", "faces", "names"), rows))
    )


def _refused(record: dict[str, Any]) -> str:
    """Those like a test face one by one, the others by reason."""
    like_test = [r for r in record["refused"] if r["reason"].startswith("too like the test face")]
    like_another = [r for r in record["refused"] if r["reason"].startswith("too like") and r not in like_test]
    others: dict[str, list[str]] = {}
    for refusal in record["refused"]:
        if refusal["similarity"] is None:
            others.setdefault(refusal["reason"], []).append(refusal["name"])
    rows = [(r["name"], r["package"], r["reason"], f"{r['similarity']:.3f}") for r in like_test]
    lines = [f"* {reason}: {', '.join(names)}" for reason, names in sorted(others.items())]
    lines.append(
        f"* {LIKE_ANOTHER_FACE:.2f} or more similar to a face that is used: {len(like_another)} faces"
    )
    text = "\n".join(lines)
    table = _table(("face", "package", "reason", "similarity"), rows) + "\n\n" if rows else ""
    return f"## Refused\n\n{table}{text}"


def _reproduce(_record: dict[str, Any]) -> str:
    return (
        "## Reproduce\n\n"
        "On Debian with the packages above in these versions (`fgvc pretrain` names those that are "
        "missing):\n\n"
        "    fgvc pretrain\n\n"
        "The same versions, processor kind and number of threads give the same bytes, also after a kill; on "
        "another processor the last\nbits of a sum may differ, and with them the weights."
    )


def _limits(_record: dict[str, Any]) -> str:
    return (
        "## Limits\n\n"
        "* They know black-and-white strokes of Latin letters and nothing of photographs.\n"
        "* The test faces' genres (grotesque, Times-like, typewriter) are represented by other designs: a "
        "result with these weights\n  is transfer between typefaces, not training from scratch.\n"
        "* Held-out pictures show the words of the training pictures in other lines, sizes and colours; the "
        "accuracy above is of\n  faces that were trained on."
    )

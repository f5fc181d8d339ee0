"""Are data, splits and weights those that the records and the runs speak of?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fgvc.audit.context import SuiteContext
from fgvc.audit.finding import Finding
from fgvc.audit.own_results import Result, digest_finding, finding, read_object, results_of
from fgvc.audit.registry import suite_check
from fgvc.config.project import Project
from fgvc.data.images import hash_files
from fgvc.data.lists import Row
from fgvc.data.progress import quiet
from fgvc.data.records import DataIndex, check_digests, check_files, read_index
from fgvc.data.splits import PARTS, published_form, read_split
from fgvc.errors import FgvcError
from fgvc.provenance.digests import file_sha256, split_sha256, tree_sha256, value_sha256

#: Datasets up to this size are read whole; of larger ones the sizes of the files are compared.
REREAD_BYTES = 2**30


@suite_check(
    "own_data", title="Images are those that were recorded", inputs=("data/D.json", "data/D.csv", "data/D")
)
def own_data(context: SuiteContext) -> Iterator[Finding]:
    """data/D.json holds the digest of the list data/D.csv and of the whole tree; the list holds size and
    digest of each image. Checked, from the small to the large: the list against its digest; the tree's
    digest, recomputed from the list; and the images against the list, byte by byte up to 1 GiB, beyond
    that by size. Where a published or known-good digest is stated, the record says whether it is that. Not
    checkable: the images are not here.
    """
    for dataset in context.suite.datasets:
        yield from _data(context.project, dataset)


def _data(project: Project, dataset: str) -> Iterator[Finding]:
    shown = project.paths.shown(project.paths.data_record(dataset))
    if not project.paths.data_record(dataset).is_file():
        yield finding("not_checkable", f"data {dataset}", "the dataset is not here", shown)
        return
    try:
        index = read_index(project, dataset)
    except FgvcError as error:
        is_listed = project.paths.data_index(dataset).is_file()
        where = str(error.file) if error.file else shown
        yield finding(
            "contradicted" if is_listed else "not_checkable", f"data {dataset}: list", error.problem, where
        )
        return
    record = index.record
    pairs = [(e.path, e.sha256) for e in index.images] + list(record.support_files.items())
    tree = tree_sha256(pairs)
    same = (tree, len(index.images)) == (record.tree_sha256, record.images)
    yield finding(
        "confirmed" if same else "contradicted",
        f"data {dataset}: digest of the tree",
        f"of {len(index.images)} images as listed" if same else "the record is not of the listed images",
        shown,
        record.tree_sha256,
        tree,
    )
    yield _images(project, dataset, index)


def _images(project: Project, dataset: str, index: DataIndex) -> Finding:
    root = project.paths.data_dir(dataset)
    subject, shown = f"data {dataset}: images", project.paths.shown(root)
    if not root.is_dir():
        return finding("not_checkable", subject, "the images are not here (dvc pull)", shown)
    try:
        check_files(project, dataset, index)
        how = "each has its recorded size (more than 1 GiB, so they were not read)"
        if index.record.bytes <= REREAD_BYTES:
            files = [e.path for e in index.images] + list(index.record.support_files)
            check_digests(project, dataset, index, hash_files(root, files, quiet))
            how = "each has its recorded digest"
    except FgvcError as error:
        return finding("contradicted", subject, error.problem, str(error.file))
    return finding("confirmed", subject, f"{len(index.images)} images, {how}", shown)


@suite_check(
    "own_splits",
    title="Splits, and that train and test share no image",
    inputs=("results/splits", "data/D.csv", "results/runs/**/run.json"),
)
def own_splits(context: SuiteContext) -> Iterator[Finding]:
    """Each list of a split is held against its digests in split.json, and, where the dataset's file states
    the published digest, against that. Train and val, and train_val and test, must share no image, neither
    by path nor by the bytes of the files (digests of data/D.csv); train and val together must be
    train_val. Not checkable: the lists are not here.
    """
    for dataset in context.suite.datasets:
        record, wrong = read_object(context.project.paths.split_record(dataset))
        shown = context.project.paths.shown(context.project.paths.split_record(dataset))
        if record is None:
            yield finding(
                "contradicted" if wrong else "not_checkable",
                f"split of {dataset}",
                wrong or "the split is not here",
                shown,
            )
            continue
        yield from _lists(context.project, dataset, record)
        yield from _apart(context.project, dataset)


def _lists(project: Project, dataset: str, record: dict[str, Any]) -> Iterator[Finding]:
    for part in PARTS:
        path = project.paths.split_list(dataset, part)
        facts = record.get("parts", {}).get(part, {})
        shown = project.paths.shown(path)
        answer = digest_finding(path, shown, facts.get("file_sha256"), "split.json", "fgvc data split")
        yield answer
        if answer.verdict == "confirmed":
            yield from _list_facts(project, dataset, part, record, facts)
    names = project.paths.split_list(dataset, "classes")
    if names.is_file() and all(project.paths.split_list(dataset, p).is_file() for p in PARTS):
        lists = [file_sha256(project.paths.split_list(dataset, part)) for part in PARTS]
        whole = value_sha256([names.read_bytes().decode("utf-8", "replace"), *lists])
        same = whole == record.get("sha256")
        yield finding(
            "confirmed" if same else "contradicted",
            f"split of {dataset}: lists and class names together",
            "as recorded" if same else "a list, the class names or the record were changed",
            project.paths.shown(project.paths.split_record(dataset)),
            record.get("sha256"),
            whole,
        )


def _list_facts(
    project: Project, dataset: str, part: str, record: dict[str, Any], facts: dict[str, Any]
) -> Iterator[Finding]:
    """Rows and digests of one list, recomputed from its rows; and the digest that was published, if any."""
    shown = project.paths.shown(project.paths.split_list(dataset, part))
    rows = read_split(project, dataset, part)
    published = published_form(rows, str(record.get("image_root", ".")))
    again = {
        "rows": len(rows),
        "classes": len({c for c, _ in rows}),
        "sha256": split_sha256(rows),
        "list_sha256": split_sha256(published),
    }
    for key, value in again.items():
        if facts.get(key) != value:
            why = "split.json says otherwise than the list"
            yield finding("contradicted", f"{shown}: {key}", why, shown, facts.get(key), value)
    stated = project.dataset(dataset).expected
    expected = next((f.sha256 for name, f in stated.items() if name == part), None)
    if expected is None:
        return
    if expected == again["list_sha256"]:
        yield finding(
            "confirmed", f"{shown}: published digest", "the published list", shown, expected, expected
        )
    elif record.get("provenance") == "published":
        why = "the split is called published, and is not the published list"
        yield finding(
            "contradicted", f"{shown}: published digest", why, shown, expected, again["list_sha256"]
        )
    else:
        why = f"another split than the published one, and said so (provenance: {record.get('provenance')})"
        yield finding("confirmed", f"{shown}: published digest", why, shown, expected, again["list_sha256"])


def _apart(project: Project, dataset: str) -> Iterator[Finding]:
    folder = project.paths.shown(project.paths.splits_dir(dataset))
    try:
        rows = {part: read_split(project, dataset, part) for part in PARTS}
    except FgvcError as error:
        yield finding("not_checkable", f"split of {dataset}: parts", error.problem, folder)
        return
    try:
        digests = {e.path: e.sha256 for e in read_index(project, dataset).images}
    except FgvcError:
        digests = {}
    yield _disjoint(dataset, folder, ("train", rows["train"]), ("val", rows["val"]), digests)
    yield _disjoint(dataset, folder, ("train_val", rows["train_val"]), ("test", rows["test"]), digests)
    union = sorted(rows["train"] + rows["val"]) == sorted(rows["train_val"])
    why = "train and val together are train_val" if union else "train and val together are not train_val"
    yield finding("confirmed" if union else "contradicted", f"split of {dataset}: train_val", why, folder)


def _disjoint(
    dataset: str,
    folder: str,
    first: tuple[str, list[Row]],
    second: tuple[str, list[Row]],
    digests: dict[str, str],
) -> Finding:
    subject = f"split of {dataset}: {first[0]} and {second[0]} share no image"
    paths = [{path for _, path in rows} for _, rows in (first, second)]
    shared = sorted(paths[0] & paths[1])
    if shared:
        why = f"{len(shared)} images are in both, as {shared[0]}"
        return finding("contradicted", subject, why, folder, 0, len(shared))
    if not digests:
        why = "no path is in both; the images' digests are not here to compare their bytes"
        return finding("not_checkable", subject, why, folder, 0, 0)
    known = {digests.get(path) for path in paths[0]}
    same = sorted(path for path in paths[1] if path in digests and digests[path] in known)
    if same:
        why = f"{len(same)} files have the same bytes as one of {first[0]}, as {same[0]}"
        return finding("contradicted", subject, why, folder, 0, len(same))
    return finding("confirmed", subject, "neither by path nor by their bytes", folder, 0, 0)


@suite_check(
    "own_inputs",
    title="Runs were trained on these data, splits and weights",
    inputs=("results/runs/**/run.json", "results/splits", "data/weights"),
)
def own_inputs(context: SuiteContext) -> Iterator[Finding]:
    """The identity of each run names the digests of its image tree, of the list it was trained on, and of its
    pre-trained weights. They must be those of split.json and of the weights' record as they are here now.
    Not checkable: the records are not here.
    """
    for result in results_of(context):
        if result.card is not None:
            yield _trained_on(context.project, result, result.card.get("identity", {}))


def _trained_on(project: Project, result: Result, identity: dict[str, Any]) -> Finding:
    subject, source = f"{result.name}: data, split and weights", result.source("run.json")
    record, _ = read_object(project.paths.split_record(result.cell.dataset))
    weights = identity.get("weights")
    known = read_object(project.paths.weights_record(weights))[0] if weights else {"sha256": None}
    if record is None or known is None:
        return finding(
            "not_checkable", subject, "the record of the split or of the weights is not here", source
        )
    part = record.get("parts", {}).get(result.trained_on, {})
    pairs = {
        "tree_sha256": (identity.get("tree_sha256"), record.get("tree_sha256")),
        "split_sha256": (identity.get("split_sha256"), part.get("file_sha256")),
        "weights_sha256": (identity.get("weights_sha256"), known.get("sha256")),
    }
    wrong = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    if wrong:
        key = next(iter(wrong))
        why = f"it was trained on another {' and '.join(k.partition('_')[0] for k in wrong)} than is here now"
        return finding("contradicted", f"{subject} ({key})", why, source, *wrong[key])
    return finding("confirmed", subject, "it was trained on what is here now", source)


@suite_check(
    "own_weights", title="Pre-trained weights are those that were recorded", inputs=("data/weights",)
)
def own_weights(context: SuiteContext) -> Iterator[Finding]:
    """data/weights/B.json holds the digest of the tensors that training reads. Not checkable: they are not
    here."""
    names = {context.project.variant(m).weights for m in context.suite.methods}
    for name in sorted(n for n in names if n):
        path = context.project.paths.weights(name)
        record, _ = read_object(context.project.paths.weights_record(name))
        expected = record.get("sha256") if record else None
        shown = context.project.paths.shown(path)
        yield digest_finding(path, shown, expected, f"{name}.json", "fgvc weights fetch, or dvc pull")

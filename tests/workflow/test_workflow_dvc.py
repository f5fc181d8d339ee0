"""The DVC round trip with a local remote, offline: what is tracked, restored, compared, and run again."""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from dvckit import GIT, clone, commit, dvc, git, make_repository, pull
from workflowkit import (
    REPOSITORY,
    SIZE,
    Outcome,
    call,
    contents,
    copy_tree,
    counts,
    fgvc,
    identities,
    planned,
    read,
    snakemake,
)

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

NOTHING = "nothing to be done: everything asked for is there and up to date"
RUNS = f"results/runs/shapes/vit_tiny/{SIZE}"
#: All that stands on the pictures.
ALL_OF_SHAPES = {
    "split": 1,
    "stats": 1,
    "search": 4,
    "select_lr": 2,
    "train": 4,
    "evaluate": 4,
    "table": 2,
    "figure": 1,
}


@dataclass(frozen=True)
class Tracked:
    """A project at home, tracked in two commits, and its remote."""

    root: Path
    remote: Path
    said: Outcome
    first: str
    second: str
    untouched: bool


@pytest.fixture(scope="module")
def tracked(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """First without one run; then that one too, by the workflow's own target."""
    folder = tmp_path_factory.mktemp("dvc")
    root, remote = copy_tree(finished, folder / "home"), folder / "remote"
    make_repository(root, remote)
    commit(root, "The project")
    (root / RUNS / "seed10").rename(folder / "seed10")
    fgvc(root, "track", "--no-push").check()
    first = commit(root, "All but one run")
    (folder / "seed10").rename(root / RUNS / "seed10")
    files = [p for top in ("data", "results") for p in (root / top).rglob("*") if p.is_file()]
    files = [p for p in files if p.suffix in (".png", ".safetensors", ".parquet", ".csv", ".json")]
    files = [p for p in files if p.parent != root / "results"]
    before = identities(files)
    said = snakemake(root, "track").check()
    return Tracked(root, remote, said, first, commit(root, "All runs"), identities(files) == before)


@pytest.fixture(scope="module")
def elsewhere(tracked: Tracked) -> Path:
    """A clean clone, with what the remote has."""
    root = clone(tracked.root, tracked.root.with_name("elsewhere"))
    dvc(root, "pull", "--quiet")
    return root


# --- at home -----------------------------------------------------------------------------------------


def test_tracking_adds_and_pushes_and_says_so(tracked: Tracked) -> None:
    log = (tracked.root / "logs/track/default.log").read_text()
    assert re.search(r"tracked by DVC: 20 paths, [\d.]+ MB, 2 of them new", log), log
    sent = re.search(r"pushed to 'store': (\d+) files, ([\d,]+) bytes", log)
    assert sent, log
    there = [p for p in (tracked.remote / "files").rglob("*") if p.is_file()]
    lists = 1  # DVC's list of the folder data/shapes
    assert len(there) - lists <= int(sent[1]) <= len(there) - lists + 2  # equal pictures are stored once
    assert "git add data results dvc.yaml && git commit" in log
    assert tracked.said.lines[-1].startswith("Made:   results/tracked.json: pushed to 'store'; now: git add")
    assert "nothing, it has everything" in fgvc(tracked.root, "track").check().text
    assert git(tracked.root, "status", "--porcelain") == "", "git has all small files, and ignores the others"


def test_tracking_leaves_every_file_as_it_is(tracked: Tracked) -> None:
    """Jobs may be reading them, and the store of finished results shares their bytes."""
    assert tracked.untouched
    model = tracked.root / RUNS / "seed1/model.safetensors"
    assert model.stat().st_nlink == 2, "of results/ and state/; the cache has a copy"


def test_git_has_the_small_files_and_dvc_the_large_ones(tracked: Tracked) -> None:
    in_git = git(tracked.root, "ls-files", "data", "results").split()
    assert {Path(name).suffix for name in in_git} == {
        *(".json", ".dvc", ".csv", ".md", ".tex", ".pdf", ".png")
    }
    assert not [n for n in in_git if n.startswith("data/shapes/") or ("splits" in n and n.endswith(".csv"))]
    in_dvc = {name.removesuffix(".dvc") for name in in_git if name.endswith(".dvc")}
    assert in_dvc == set(read(tracked.root / "results/tracked.json")["files"])
    every = {str(p.relative_to(tracked.root)) for p in tracked.root.glob("results/**/*") if p.is_file()}
    assert every == {n for n in (*in_git, *in_dvc) if n.startswith("results/")}


def test_a_second_process_of_dvc_is_waited_for(tracked: Tracked) -> None:
    import zc.lockfile

    held = zc.lockfile.LockFile(str(tracked.root / ".dvc/tmp/lock"))
    try:
        from fgvc.errors import FgvcError
        from fgvc.tracking.dvc import Dvc

        said: list[str] = []
        with pytest.raises(FgvcError, match="another DVC process has held"):
            Dvc(tracked.root, said.append, wait_s=0).run("status")
        assert said == ["waiting: another DVC process is at work in this repository"]
    finally:
        held.close()


# --- in a clean clone --------------------------------------------------------------------------------


def test_a_clean_clone_has_everything_and_nothing_to_do(tracked: Tracked, elsewhere: Path) -> None:
    results = ("runs/**/*.*", "sweeps/**/*.*", "splits/**/*.*", "tables/*", "figures/*")
    assert contents(elsewhere, *results) == contents(tracked.root, *results)
    for path in (tracked.root / "data/shapes").rglob("*.png"):
        assert (elsewhere / path.relative_to(tracked.root)).read_bytes() == path.read_bytes()
    assert snakemake(elsewhere).check().lines[0] == NOTHING
    assert snakemake(elsewhere, f"{RUNS}/seed1/model.safetensors").check().lines[0] == NOTHING
    assert git(elsewhere, "status", "--porcelain") == ""


def test_without_dvc_the_tables_are_there_to_be_read(tracked: Tracked) -> None:
    root = clone(tracked.root, tracked.root.with_name("bare"))
    assert snakemake(root).check().lines[0] == NOTHING
    # Without the notes that git carries, time stamps alone would decide, and train again.
    shutil.rmtree(root / ".snakemake")
    (root / "results/provenance.json").unlink()
    assert counts(planned(root)).get("train") == 4


def test_f21_dvc_checkout_runs_nothing(elsewhere: Path) -> None:
    """A clone whose files come from dvc checkout, in any order and with any times, has nothing to do."""
    for path in [elsewhere / "data/shapes", *elsewhere.glob("results/**/*.safetensors")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    dvc(elsewhere, "checkout", "--quiet")
    assert planned(elsewhere) == []
    files = [p for top in ("data", "results") for p in (elsewhere / top).rglob("*") if p.is_file()]
    random.Random(0).shuffle(files)
    for number, path in enumerate(files):
        os.utime(path, (time.time() + number, time.time() + number))
    assert planned(elsewhere) == []


def test_an_edited_recipe_runs_again_in_a_clone_too(elsewhere: Path) -> None:
    file = elsewhere / "params/methods/vit_tiny.yaml"
    kept = file.read_text()
    try:
        file.write_text(kept.replace("epochs: 6", "epochs: 7"))
        assert counts(planned(elsewhere))["train"] == 2
        assert "recipe.epochs" in dvc(elsewhere, "params", "diff")
    finally:
        file.write_text(kept)


def test_a_dataset_that_changed_by_one_byte_runs_all_that_stands_on_it(
    tracked: Tracked, elsewhere: Path
) -> None:
    """At home; in the clone, when the change arrives there; and not after the way back."""
    home = tracked.root
    picture = home / "images/shapes/train/circle/000.png"
    changed = picture.read_bytes() + b"\n"
    picture.unlink()  # data/ holds the old one by hard link
    picture.write_bytes(changed)
    fgvc(home, "data", "fetch", "shapes", "--replace").check()
    assert counts(planned(home)) == ALL_OF_SHAPES
    said = fgvc(home, "track", "data").check().text
    assert re.search(r"pushed to 'store': 2 files", said), "the picture and its list; nothing else is new"
    commit(home, "One byte")
    pull(elsewhere)
    assert (elsewhere / "data/shapes/train/circle/000.png").read_bytes() == changed
    assert counts(planned(elsewhere)) == ALL_OF_SHAPES
    git(elsewhere, "checkout", "--quiet", tracked.second)
    dvc(elsewhere, "checkout", "--quiet")
    assert planned(elsewhere) == []
    git(home, "reset", "--quiet", "--hard", tracked.second)
    dvc(home, "checkout", "--quiet")
    assert planned(home) == []


def test_hard_links_into_the_cache_are_replaced_never_written_into(elsewhere: Path) -> None:
    """For those who choose them; the shipped configuration copies."""
    dvc(elsewhere, "config", "--local", "cache.type", "hardlink")
    dvc(elsewhere, "checkout", "--relink", "--quiet")
    file = elsewhere / "results/splits/shapes/train.csv"
    (twin,) = [p for p in (elsewhere / ".dvc/cache").rglob("*") if p.is_file() and p.samefile(file)]
    kept = twin.read_bytes()
    fgvc(elsewhere, "data", "split", "shapes").check()
    assert not file.samefile(twin) and twin.read_bytes() == kept == file.read_bytes()


# --- what DVC shows ----------------------------------------------------------------------------------


def test_dvc_shows_metrics_plots_and_experiments(tracked: Tracked) -> None:
    home = tracked.root
    assert dvc(home, "params", "diff", tracked.first, tracked.second).strip() == ""
    changed = dvc(home, "metrics", "diff", tracked.first, tracked.second)
    assert re.search(rf"shapes\.vit_tiny\.{SIZE}\.top1_pct\.n +1 +2 +1\b", changed), changed
    assert f"shapes.cnn_tiny.{SIZE}" not in changed
    shown = dvc(home, "exp", "show", "--csv")
    assert f"shapes.vit_tiny.{SIZE}.top1_pct.mean" in shown and "recipe.epochs" in shown
    said = dvc(home, "plots", "show", "--out", str(home.with_name("plots")))
    assert "failed" not in said.lower() and "warning" not in said.lower(), said
    page = (home.with_name("plots") / "index.html").read_text()
    for name in ("accuracy.csv", "history.csv"):
        assert name in page
    assert f"shapes/vit_tiny/{SIZE}/seed10" in page
    assert (home.with_name("plots") / "static").is_dir(), "the figures, as pictures"


def test_dvc_yaml_of_a_project_names_its_own_files(tracked: Tracked) -> None:
    named = yaml.safe_load((tracked.root / "dvc.yaml").read_text())
    assert "stages" not in named
    assert "params/methods/vit_tiny.yaml" in named["params"]
    assert not [n for n in named["params"] if not (tracked.root / n).is_file()]
    assert named["artifacts"]["shapes"] == {"path": "data/shapes", "type": "dataset"}
    assert "params/methods/vit_tiny.yaml" not in (REPOSITORY / "dvc.yaml").read_text()


def test_a_folder_without_dvc_is_told_what_to_do(copy: Path) -> None:
    said = call("fgvc", copy, "track", **GIT)
    assert said.status == 2 and "there is no DVC repository here" in said.text

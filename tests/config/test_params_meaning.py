"""What the files of params/ mean together: recipes and their bases, suites, aliases, grids, identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fgvc.config.counts import expected_rows
from fgvc.config.grid import Cell, cells, rate_search
from fgvc.config.identity import recipe_identity, recipe_sha256
from fgvc.config.paths import Paths, rate_text
from fgvc.config.project import Project
from fgvc.errors import FgvcError

ProjectFactory = Callable[..., Project]

SUITE: dict[str, Any] = {
    "title": "S",
    "description": "d",
    "datasets": ["typefaces"],
    "methods": ["vit_pico"],
    "image_sizes": [224],
    "seeds": [1, 10],
    "learning_rates": [0.01, 0.001],
    "tables": ["hw_stats"],
}
COPY = [
    "datasets/typefaces",
    "datasets/cub",
    "methods/vit_pico",
    "methods/cnn_lite0",
    "recipes/quick",
    "weights/tf_efficientnet_lite0.in1k",
    "weights/vit_pico_patch16_224.debian_faces",
    "tables/hw_stats",
]


@pytest.fixture
def make(project_factory: ProjectFactory) -> Callable[..., Project]:
    """``make(quick={…}, other={…})``: a project with suites of these changes."""

    def one(**suites: dict[str, Any]) -> Project:
        files = {f"params/suites/{name}.yaml": SUITE | changes for name, changes in suites.items()}
        return project_factory(copy=COPY, files=files)

    return one


# --- recipes --------------------------------------------------------------------------------------


def test_a_variant_starts_from_its_base_and_its_own_keys_win(make: Callable[..., Project]) -> None:
    project = make()
    base, own = project.recipe("quick"), project.variant("vit_pico").recipe
    assert (base.epochs, own.epochs) != (own.epochs, own.epochs)
    assert own.batch_size == 16 and own.optimizer == base.optimizer and own.warmup_steps == base.warmup_steps


def test_what_the_base_leaves_open_stays_open_for_the_preset(make: Callable[..., Project]) -> None:
    """A base of weak augmentation does not pin the weak values when a variant asks for strong."""
    project = make()
    base = project.file("recipe", "quick")
    text = "".join(
        line
        for line in base.read_text().splitlines(keepends=True)
        if not line.startswith(("label_smoothing", "dropout"))
    )
    base.write_text(text)
    method = project.file("method", "vit_pico")
    method.write_text(method.read_text().replace("epochs: 6", "augmentation: strong"))
    recipe = project.variant("vit_pico").recipe
    assert recipe.label_smoothing is None
    assert (recipe.resolved().label_smoothing, recipe.resolved().cutmix_alpha) == (0.1, 1.0)


def test_an_identity_holds_every_number_and_no_words(make: Callable[..., Project]) -> None:
    project = make()
    before = recipe_sha256(project, "typefaces", "vit_pico")
    identity = recipe_identity(project, "typefaces", "vit_pico")
    assert None not in identity["recipe"].values() or identity["recipe"]["ema_decay"] is None
    file = project.file("method", "vit_pico")
    text = file.read_text()
    for words in ("title: Another", "notes: some", "source: elsewhere"):
        key = words.split(":")[0]
        lines = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
        file.write_text("\n".join([*lines, words, ""]))
        assert recipe_sha256(Project(project.root), "typefaces", "vit_pico") == before
    for numbers in ("epochs: 7", "threads: 2", "ema_decay: 0.9", "dropout: 0.1", "precision: bf16"):
        key = numbers.split(":")[0]
        lines = [line for line in text.splitlines() if not line.strip().startswith(f"{key}:")]
        at = next(i for i, line in enumerate(lines) if "base: quick" in line)
        file.write_text("\n".join([*lines[: at + 1], f"  {numbers}", *lines[at + 1 :], ""]))
        assert recipe_sha256(Project(project.root), "typefaces", "vit_pico") != before, numbers


def test_writing_out_a_preset_changes_nothing(make: Callable[..., Project]) -> None:
    project = make()
    before = recipe_sha256(project, "typefaces", "vit_pico")
    file = project.file("method", "vit_pico")
    file.write_text(file.read_text().replace("epochs: 6", "epochs: 6\n  mixup_alpha: 0.0"))
    assert recipe_sha256(Project(project.root), "typefaces", "vit_pico") == before


# --- datasets -------------------------------------------------------------------------------------


def test_aliases_lead_to_our_names(make: Callable[..., Project]) -> None:
    project = make(quick={"datasets": ["cub200"]})
    assert project.canonical_dataset("cub200") == project.canonical_dataset("cub") == "cub"
    assert project.suite("quick").datasets == ["cub"]
    with pytest.raises(FgvcError, match="did you mean 'cub200'"):
        project.canonical_dataset("cub20O")


def test_an_alias_that_is_taken_is_refused(make: Callable[..., Project]) -> None:
    project = make()
    file = project.file("dataset", "typefaces")
    file.write_text(file.read_text() + "aliases: [cub]\n")
    with pytest.raises(FgvcError, match="the alias 'cub' is taken already") as caught:
        _ = project.aliases
    assert "typefaces.yaml" in str(caught.value)


def test_how_many_images_a_split_will_have(make: Callable[..., Project]) -> None:
    project = make()
    counts = {
        part: expected_rows(project, "typefaces", part) for part in ("train", "val", "train_val", "test")
    }
    assert counts["train_val"] == (counts["train"] or 0) + (counts["val"] or 0)
    assert expected_rows(project, "cub", "test") == 5794


# --- suites ---------------------------------------------------------------------------------------


def test_a_grid_is_every_combination(make: Callable[..., Project]) -> None:
    project = make(quick={"methods": ["vit_pico", "cnn_lite0"], "image_sizes": [224, 448]})
    found = cells(project, "quick")
    assert len(found) == len(set(found)) == 4
    assert cells(project, "quick", [448]) == [cell for cell in found if cell.size == 448]


def test_rates_are_searched_with_the_first_seed_in_ascending_order(make: Callable[..., Project]) -> None:
    project = make(quick={"learning_rates": [0.01, 0.001, 0.01]})
    search = rate_search(project, Cell("typefaces", "vit_pico", 224))
    assert (search.rates, search.seed, search.suite, search.is_searched) == ((0.001, 0.01), 1, "quick", True)


def test_rates_may_differ_by_method(make: Callable[..., Project]) -> None:
    project = make(
        quick={
            "methods": ["vit_pico", "cnn_lite0"],
            "learning_rates": {"vit_pico": [0.1, 0.2], "default": [0.3]},
        }
    )
    assert rate_search(project, Cell("typefaces", "vit_pico", 224)).rates == (0.1, 0.2)
    other = rate_search(project, Cell("typefaces", "cnn_lite0", 224))
    assert (other.rates, other.is_searched) == ((0.3,), False)


def test_a_cell_of_no_suite_takes_the_recipe_s_rate(make: Callable[..., Project]) -> None:
    project = make()
    search = rate_search(project, Cell("typefaces", "vit_pico", 224))
    assert search.rates == (project.variant("vit_pico").recipe.learning_rate,)
    assert search.suite is None and not search.is_searched


@pytest.mark.parametrize("change", [{"learning_rates": [0.5, 0.1]}, {"seeds": [10, 1]}])
def test_suites_that_disagree_about_a_shared_cell_are_refused(
    make: Callable[..., Project], change: dict[str, Any]
) -> None:
    """One path never means two experiments."""
    project = make(alpha={}, beta=change)
    with pytest.raises(FgvcError, match="suites 'alpha' and 'beta' search different") as caught:
        rate_search(project, Cell("typefaces", "vit_pico", 224))
    assert "typefaces/vit_pico/224" in str(caught.value) and "beta.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_suites_that_agree_share_their_cells(make: Callable[..., Project]) -> None:
    project = make(alpha={}, beta={"learning_rates": [0.001, 0.01], "seeds": [1, 2, 3], "title": "Other"})
    assert rate_search(project, Cell("typefaces", "vit_pico", 224)).suite == "alpha"
    other = make(alpha={}, beta={"learning_rates": [0.5], "image_sizes": [448]})
    assert rate_search(other, Cell("typefaces", "vit_pico", 448)).rates == (0.5,)


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.003, "0.003"), (1e-5, "1e-05"), (0.1 + 0.2, "0.3"), (1.0, "1"), (0.00125, "0.00125")],
)
def test_a_learning_rate_in_a_path(rate: float, text: str) -> None:
    assert rate_text(rate) == text


def test_state_mirrors_results_and_suites_have_their_own_folders(make: Callable[..., Project]) -> None:
    paths = make().paths
    run = paths.run_dir("cub", "vit_b16", 224, 1)
    assert paths.shown(run) == "results/runs/cub/vit_b16/224/seed1"
    assert paths.shown(paths.state_dir(run)) == "state/runs/cub/vit_b16/224/seed1"
    assert paths.shown(paths.table(None, "t")) == "results/tables/t"
    assert paths.shown(paths.table("sota", "t")) == "results/sota/tables/t"
    assert paths.shown(paths.root.parent / "x") == str(paths.root.parent / "x")
    relative = Paths(type(run)())
    assert str(relative.run_dir("cub", "vit_b16", 224, 1)) == "results/runs/cub/vit_b16/224/seed1"

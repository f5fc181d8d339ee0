"""Mistakes in params/ are refused before any work: what is wrong, file and line, key, nearest key, cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fgvc.config.project import Kind, Project
from fgvc.errors import FgvcError, UnknownNameError, nearest

ProjectFactory = Callable[..., Project]

COPY = [
    "datasets/typefaces",
    "datasets/cub",
    "methods/cnn_lite0",
    *(f"methods/{m}_pico" for m in ["vit", "transfg", "ffvt", "simtrans", "glsim"]),
    "recipes/quick",
    "suites/quick",
    "weights/tf_efficientnet_lite0.in1k",
    "weights/resnet101.a1h_in1k",
    "tables/sota_224",
    "tables/hw_stats",
    "tables/comparisons_224",
    "tables/costs",
    "tables/published_sota_224",
    "tables/sota_224_vs_published",
    "figures/acc_vs_flops_224",
    "figures/published_acc_vs_flops_224",
    "published/glsim_table4",
    "published/ffvt_quoted",
    "published/vpt_recalled",
    *(
        f"datasets/{d}"
        for d in ["dafb", "dogs", "flowers", "food", "inat17", "moe", "nabirds", "pets", "vegfru"]
    ),
    *(
        f"methods/{m}"
        for m in ["resnet101", "cal_resnet101", "vit_b16", "glsim_vit_b16", "transfg_vit_b16", "ffvt_vit_b16"]
    ),
    "recipes/glsim_medium",
    "weights/vit_base_patch16_224.orig_in21k",
]


@pytest.fixture
def project(project_factory: ProjectFactory) -> Project:
    return project_factory(copy=COPY, settings={"default_suite": "quick"})


@dataclass(frozen=True)
class Mistake:
    """``old`` → ``new`` in the file of one id; what the error must say, and of which key's line.

    ``line`` is the text whose line the error names; None where no line can be named.
    """

    kind: Kind
    name: str
    old: str
    new: str
    says: tuple[str, ...]
    line: str | None


def read(project: Project, kind: Kind, name: str) -> object:
    readers = {
        "dataset": project.dataset,
        "method": project.variant,
        "weights": project.weights,
        "recipe": project.recipe,
        "suite": project.suite,
        "table": project.table,
        "figure": project.figure,
        "published": project.published,
    }
    return readers[kind](name)


UNKNOWN_KEYS = [
    Mistake("dataset", "typefaces", "citation:", "citatoin:", ("'citatoin'", "'citation'"), "citatoin:"),
    Mistake("dataset", "cub", "train_fraction:", "train_fracton:", ("'train_fraction'",), "train_fracton:"),
    Mistake("dataset", "cub", "image_root:", "img_root:", ("'image_root'",), "img_root:"),
    Mistake("method", "vit_pico", "backbone:", "bakbone:", ("'bakbone'", "'backbone'"), "bakbone:"),
    Mistake("method", "vit_pico", "batch_size:", "batchsize:", ("'batchsize'", "'batch_size'"), "batchsize:"),
    Mistake("weights", "resnet101.a1h_in1k", "licence:", "license:", ("'licence'",), "license:"),
    Mistake("weights", "resnet101.a1h_in1k", "  sha256:", "  sha265:", ("'sha256'",), "  sha265:"),
    Mistake("recipe", "quick", "warmup_steps:", "warmup_step:", ("'warmup_steps'",), "warmup_step:"),
    Mistake("suite", "quick", "image_sizes:", "image_size:", ("'image_sizes'",), "image_size:"),
    Mistake("table", "sota_224", "image_size:", "img_size:", ("'image_size'",), "img_size:"),
    Mistake("table", "hw_stats", "caption:", "captoin:", ("'caption'",), "captoin:"),
    Mistake("figure", "acc_vs_flops_224", "caption:", "captions:", ("'caption'",), "captions:"),
    Mistake("published", "glsim_table4", "evidence:", "evidense:", ("'evidence'",), "evidense:"),
    Mistake("published", "glsim_table4", "reported_by:", "reportd_by:", ("'reported_by'",), "reportd_by:"),
    Mistake("published", "glsim_table4", "std: 0.06", "sdt: 0.06", ("'sdt'", "'std'"), "sdt: 0.06"),
    Mistake("published", "ffvt_quoted", "selection:", "selektion:", ("'selection'",), "selektion:"),
    Mistake("published", "ffvt_quoted", "{cub: 91.6", "{cub: {valeu: 91.6}", ("'value'",), "valeu:"),
    Mistake("table", "sota_224_vs_published", "margin:", "margn:", ("'margin'",), "margn:"),
]

WRONG_TYPES = [
    Mistake("dataset", "typefaces", "classes: 21", "classes: many", ("integer", "'many'"), "classes: many"),
    Mistake(
        "dataset",
        "typefaces",
        "horizontal_flip: false",
        "horizontal_flip: 7",
        ("boolean",),
        "horizontal_flip: 7",
    ),
    Mistake("method", "vit_pico", "epochs: 6", "epochs: six", ("integer", "'six'"), "epochs: six"),
    Mistake(
        "weights",
        "resnet101.a1h_in1k",
        "mean: [0.485, 0.456, 0.406]",
        "mean: [0.485, 0.456]",
        ("2",),
        "mean:",
    ),
    Mistake("recipe", "quick", "weight_decay: 0.05", "weight_decay: [0.05]", ("number",), "weight_decay:"),
    Mistake(
        "suite", "quick", "datasets: [typefaces]", "datasets: typefaces", ("list",), "datasets: typefaces"
    ),
    Mistake("table", "sota_224", "image_size: 224", "image_size: big", ("integer",), "image_size: big"),
    Mistake(
        "figure", "acc_vs_flops_224", "image_size: 224", "image_size: 22.4", ("integer",), "image_size: 22.4"
    ),
]

IMPOSSIBLE_VALUES = [
    Mistake("dataset", "typefaces", "classes: 21", "classes: 1", ("greater than 1",), "classes: 1"),
    Mistake(
        "dataset", "cub", "train_fraction: 0.8", "train_fraction: 1.5", ("less than 1",), "train_fraction:"
    ),
    Mistake(
        "dataset", "cub", "image_root: ", "image_root: ../", ("inside the dataset's folder",), "image_root:"
    ),
    Mistake(
        "dataset", "typefaces", "kind: generated\n  gen", "kind: generatd\n  gen", ("'generated'",), None
    ),
    Mistake("dataset", "typefaces", "train: 5,", "train: 0,", ("above 0",), None),
    Mistake("published", "glsim_table4", "std: 0.06", "std: -0.06", ("greater than or equal to 0",), None),
    Mistake("published", "glsim_table4", "  cub: {title", "  cup: {title", ("has a cell 'cub'",), None),
    Mistake("published", "ffvt_quoted", "  dogs: {title", "  dosg: {title", ("has a cell 'dogs'",), None),
    Mistake("published", "ffvt_quoted", "metric: top1\n", "", ("nothing says the metric of the cell",), None),
    Mistake(
        "published", "ffvt_quoted", "{cub: 91.6", "{cub: 91.63", ("91.63 of more than 1 decimals",), None
    ),
    Mistake(
        "published", "ffvt_quoted", "best_on_test", "best_on_tset", ("mean 'best_on_test'",), "selection:"
    ),
    Mistake(
        "published",
        "glsim_table4",
        "evidence: primary_repo_asset",
        "evidence: none",
        ("a number without evidence is no reference value", "kind: records"),
        None,
    ),
    Mistake("table", "sota_224_vs_published", "margin: 0.5", "margin: 0", ("greater than 0",), "margin:"),
    Mistake(
        "published",
        "glsim_table4",
        "variant: cal_resnet101",
        "variant: resnet101",
        ("two columns name the variant 'resnet101'",),
        None,
    ),
    Mistake("method", "vit_pico", "epochs: 6", "epochs: -6", ("greater than 0",), "epochs: -6"),
    Mistake("method", "vit_pico", "epochs: 6", "precision: fp61", ("fp16",), "precision: fp61"),
    Mistake("method", "vit_pico", "epochs: 6", "min_learning_rate: 1", ("larger than learning_rate",), None),
    Mistake("weights", "resnet101.a1h_in1k", "36d3f2aa        ", "36d3 ", ("match pattern",), "sha256:"),
    Mistake(
        "weights", "resnet101.a1h_in1k", "  sha256: 36d3f2aa ", "  bytes: 3 ", ("a digest is needed",), None
    ),
    Mistake(
        "weights", "resnet101.a1h_in1k", "format: timm", "format: tim", ("did you mean 'timm'",), "format:"
    ),
    Mistake(
        "recipe",
        "quick",
        "augmentation: weak",
        "augmentation: week",
        ("did you mean 'weak'",),
        "augmentation:",
    ),
    Mistake(
        "recipe", "quick", "optimizer: adamw", "optimizer: adamww", ("did you mean 'adamw'",), "optimizer:"
    ),
    Mistake("recipe", "quick", "weight_decay: 0.05", "weight_decay: .nan", ("finite",), "weight_decay:"),
    Mistake("suite", "quick", "seeds: [1, 10]", "seeds: [1, 1]", ("listed twice: 1",), "seeds:"),
    Mistake("suite", "quick", "seeds: [1, 10]", "seeds: []", ("at least 1",), "seeds:"),
    Mistake(
        "suite",
        "quick",
        "image_sizes: [224]",
        "image_sizes: [8]",
        ("greater than or equal to 16",),
        "image_sizes:",
    ),
    Mistake("suite", "quick", "[0.003, 0.001]", "{vit_pico: [0.1]}", ("cnn_lite0", "default"), None),
    Mistake("suite", "quick", "[0.003, 0.001]", "[]", ("learning_rates is empty",), None),
    Mistake("table", "sota_224", "kind: accuracy", "kind: acuracy", ("did you mean 'accuracy'",), "kind:"),
    Mistake(
        "table", "sota_224", "image_size: 224", "image_size: 224\nmetric: top2", ("top1_pct",), "metric:"
    ),
    Mistake(
        "figure",
        "acc_vs_flops_224",
        "kind: accuracy_vs_cost",
        "kind: accuracy_vs_costs",
        ("did you mean",),
        "kind:",
    ),
]

NAMES = [
    Mistake("suite", "quick", "vit_pico,", "vit_pcio,", ("no method", "did you mean 'vit_pico'"), "vit_pcio"),
    Mistake("suite", "quick", "[typefaces]", "[typefacs]", ("did you mean 'typefaces'",), "typefacs"),
    Mistake("suite", "quick", "[sota_224, ", "[sota_242, ", ("did you mean 'sota_224'",), "sota_242"),
    Mistake("suite", "quick", "[acc_vs_flops_224,", "[acc_vs_flop,", ("acc_vs_flops_224",), "acc_vs_flop,"),
    Mistake(
        "published",
        "glsim_table4",
        "dataset: dogs}",
        "dataset: dosg}",
        ("no dataset is called 'dosg'; did you mean 'dogs'", "rows.dogs.dataset"),
        "dataset: dosg}",
    ),
    Mistake(
        "published",
        "glsim_table4",
        "variant: vit_b16",
        "variant: vit_b61",
        ("no method is called 'vit_b61'; did you mean 'vit_b16'",),
        "variant: vit_b61",
    ),
    Mistake(
        "table",
        "published_sota_224",
        "glsim_table4",
        "glsim_tabel4",
        ("no published table is called 'glsim_tabel4'; did you mean 'glsim_table4'",),
        "glsim_tabel4",
    ),
    Mistake(
        "published",
        "ffvt_quoted",
        "variant: ffvt_vit_b16",
        "variant: ffvt_vit_b",
        ("no method is called 'ffvt_vit_b'; did you mean 'ffvt_vit_b16'",),
        "variant: ffvt_vit_b",
    ),
    Mistake(
        "table",
        "sota_224_vs_published",
        "[glsim_table4]",
        "[glsim_table4, ffvt_quotd]",
        ("no published table is called 'ffvt_quotd'; did you mean 'ffvt_quoted'",),
        "ffvt_quotd",
    ),
    Mistake(
        "table",
        "sota_224_vs_published",
        "[glsim_table4]",
        "[glsim_table4, vpt_recalled]",
        ("'vpt_recalled' holds nothing but numbers from memory", "never set beside ours"),
        "vpt_recalled",
    ),
    Mistake("method", "vit_pico", "base: quick", "base: quik", ("did you mean 'quick'",), "base: quik"),
    Mistake(
        "method",
        "cnn_lite0",
        "weights: tf_efficientnet_lite0.in1k",
        "weights: tf_efficientnet_lite0",
        ("did you mean 'tf_efficientnet_lite0.in1k'", "fgvc list weights"),
        "weights: tf_efficientnet_lite0",
    ),
]


@pytest.mark.parametrize(
    "mistake",
    [*UNKNOWN_KEYS, *WRONG_TYPES, *IMPOSSIBLE_VALUES, *NAMES],
    ids=lambda m: f"{m.kind} {m.new.strip()[:40]}",
)
def test_a_mistake_in_a_params_file(project: Project, mistake: Mistake) -> None:
    path = project.file(mistake.kind, mistake.name)
    text = path.read_text(encoding="utf-8")
    assert mistake.old in text
    text = text.replace(mistake.old, mistake.new, 1)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FgvcError) as caught:
        read(project, mistake.kind, mistake.name)
    said = str(caught.value)
    assert f"params/{path.parent.name}/{path.name}" in said
    for word in mistake.says:
        assert word in said
    assert len(said.splitlines()) <= 5
    if mistake.line is not None:
        number = next(i for i, line in enumerate(text.splitlines(), 1) if mistake.line in line)
        assert f"{path.name}:{number}" in said
        assert caught.value.key or isinstance(caught.value, UnknownNameError)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "cub"),
        ("method", "vit_pico"),
        ("weights", "resnet101.a1h_in1k"),
        ("recipe", "quick"),
        ("suite", "quick"),
        ("table", "sota_224"),
        ("figure", "acc_vs_flops_224"),
        ("published", "glsim_table4"),
    ],
)
class TestEveryKindOfFile:
    def test_a_key_given_twice(self, project: Project, kind: Kind, name: str) -> None:
        path = project.file(kind, name)
        text = path.read_text(encoding="utf-8")
        key = next(line.split(":")[0] for line in text.splitlines() if re.match(r"[a-z_]+:", line))
        path.write_text(text + f"\n{key}: again\n", encoding="utf-8")
        with pytest.raises(FgvcError, match=f"the key '{key}' is given twice") as caught:
            read(project, kind, name)
        assert caught.value.line == len(text.splitlines()) + 2
        assert "first on line" in str(caught.value) and "keep one of the two" in str(caught.value)

    def test_a_key_that_is_missing(self, project: Project, kind: Kind, name: str) -> None:
        path = project.file(kind, name)
        key = "epochs" if kind == "recipe" else "title"
        path.write_text(re.sub(rf"^{key}:.*\n", "", path.read_text(encoding="utf-8"), flags=re.M))
        with pytest.raises(FgvcError, match=f"the key '{key}' is missing") as caught:
            read(project, kind, name)
        assert path.name in str(caught.value)

    def test_broken_syntax(self, project: Project, kind: Kind, name: str) -> None:
        path = project.file(kind, name)
        text = path.read_text(encoding="utf-8")
        path.write_text(text + "\nseeds: [1, 2\n", encoding="utf-8")
        with pytest.raises(FgvcError, match="not valid YAML") as caught:
            read(project, kind, name)
        assert caught.value.line is not None and caught.value.line > len(text.splitlines())
        assert len(str(caught.value).splitlines()) <= 5

    @pytest.mark.parametrize("content", ["", "- a\n- b\n", "just words\n", "# only a comment\n"])
    def test_no_mapping(self, project: Project, kind: Kind, name: str, content: str) -> None:
        path = project.file(kind, name)
        path.write_text(content)
        with pytest.raises(FgvcError) as caught:
            read(project, kind, name)
        assert path.name in str(caught.value)

    def test_a_file_that_is_no_text(self, project: Project, kind: Kind, name: str) -> None:
        path = project.file(kind, name)
        path.write_bytes(b"\xff\xfe\x00title")
        with pytest.raises(FgvcError, match="cannot be read") as caught:
            read(project, kind, name)
        assert path.name in str(caught.value)

    def test_a_tag_that_would_run_code(self, project: Project, kind: Kind, name: str) -> None:
        path = project.file(kind, name)
        canary = project.root / "canary"
        path.write_text(f"title: !!python/object/apply:os.system ['touch {canary}']\n")
        with pytest.raises(FgvcError, match="not valid YAML"):
            read(project, kind, name)
        assert not canary.exists()

    def test_a_missing_file_is_answered_with_the_nearest(
        self, project: Project, kind: Kind, name: str
    ) -> None:
        with pytest.raises(UnknownNameError, match=f"did you mean '{re.escape(name)}'") as caught:
            read(project, kind, name + "x")
        plural = kind if kind in ("weights", "published") else f"{kind}s"
        assert f"fgvc list {plural}" in str(caught.value)
        for outside in (f"../{plural}/{name}", "", "."):
            with pytest.raises(UnknownNameError):
                read(project, kind, outside)

    def test_several_mistakes_are_told_one_at_a_time_and_counted(
        self, project: Project, kind: Kind, name: str
    ) -> None:
        path = project.file(kind, name)
        path.write_text(path.read_text(encoding="utf-8") + "\nnonsense: 1\nrubbish: 2\n", encoding="utf-8")
        with pytest.raises(FgvcError, match="'nonsense' is not known here") as caught:
            read(project, kind, name)
        assert "1 more complaint" in str(caught.value) and len(str(caught.value).splitlines()) <= 5


# --- the settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("devise: cpu\n", ("'devise'", "did you mean 'device'", "config.yaml:1")),
        ("device: gpu\n", ("'gpu' is not a possible value", "config.yaml:1", "'cuda'")),
        ("device: cpu\nloader_workers: some\n", ("loader_workers", "config.yaml:2")),
        ("network_timeout_s: 0\n", ("greater than 0", "config.yaml:1")),
        ("image_cache_gib: -1\n", ("greater than or equal to 0", "config.yaml:1")),
    ],
)
def test_mistakes_in_the_settings(project: Project, settings: str, says: tuple[str, ...]) -> None:
    (project.root / "params/config.yaml").write_text(settings)
    with pytest.raises(FgvcError) as caught:
        _ = Project(project.root).settings
    for word in says:
        assert word in str(caught.value)


def test_outside_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FGVC_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FgvcError, match="no project here") as caught:
        Project.find()
    assert "FGVC_PROJECT" in str(caught.value)


def test_a_project_is_found_from_below_and_by_name(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root / "params" / "suites")
    assert Project.find().root == project.root
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FGVC_PROJECT", str(project.root))
    assert Project.find().root == project.root


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("1.5e-3", 1.5e-3), ("1e1", 10.0), (".5", 0.5), ("1", 1.0)]
)
def test_numbers_are_read_as_everyone_expects(project: Project, text: str, value: float) -> None:
    """YAML 1.1 would take 1e-5 for a word."""
    path = project.file("recipe", "quick")
    path.write_text(path.read_text().replace("weight_decay: 0.05", f"weight_decay: {text}"))
    assert project.recipe("quick").weight_decay == value


# --- the error itself -----------------------------------------------------------------------------


def test_an_error_says_what_where_and_what_to_do() -> None:
    error = FgvcError("it is wrong", file="a.yaml", line=3, key="b.c", cure="do this\nor that")
    assert str(error).splitlines() == [
        "error: it is wrong",
        "  where: a.yaml:3, key 'b.c'",
        "  to do: do this",
        "         or that",
    ]
    assert str(FgvcError("it is wrong")) == "error: it is wrong"
    assert "key 'x'" in str(FgvcError("wrong", key="x"))


def test_the_nearest_name() -> None:
    assert nearest("Vit_Pico", ["cnn_lite0", "vit_pico"]) == "vit_pico"
    assert nearest("xyz", ["cnn_lite0", "vit_pico"]) is None
    assert nearest("x", []) is None


def test_long_lists_of_names_are_cut_and_say_where_all_are() -> None:
    error = UnknownNameError("method", "m", [f"name{i:02d}" for i in range(50)], listing="fgvc list methods")
    assert "and 38 more (all of them: fgvc list methods)" in str(error)
    assert "there is no table yet" in str(UnknownNameError("table", "t", []))

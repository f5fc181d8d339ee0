"""Mistakes: at most five lines, what is wrong, the nearest right name, and what lists the right ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from clikit import Said, Verb, change, fgvc, make_shipped, process, verbs

from fgvc.config.project import Project

VERBS = verbs()


def told(said: Said, status: int = 2) -> str:
    """The message, after a look at its form."""
    lines = said.err.splitlines()
    assert said.status == status and said.out == "", said
    assert 2 <= len(lines) <= 5, said.err
    assert lines[0].startswith("error: ") and len(lines[0]) > len("error: x")
    assert max(map(len, lines)) <= 240, "three lines of a terminal at most"
    for word in ("Traceback", 'File "', "defect", "None"):
        assert word not in said.err
    return said.err


def files(root: Path) -> set[Path]:
    return {p for p in root.rglob("*") if p.is_file()}


def refused(root: Path, command: str) -> str:
    """What is said of a command that must change nothing."""
    before = files(root)
    text = told(fgvc(root, *shlex.split(command)[1:]))
    assert files(root) == before
    return text


#: Command, what it must say, and the command that lists what there is.
NAMES = [
    ("fgvc trian", "has no verb 'trian'; did you mean 'train'?", "fgvc --help"),
    ("fgvc data spilt", "has no verb 'spilt'; did you mean 'split'?", "fgvc data --help"),
    ("fgvc weights fecth", "has no verb 'fecth'; did you mean 'fetch'?", "fgvc weights --help"),
    ("fgvc train cub vit_pico --sise 32", "no option '--sise'; did you mean '--size'?", "fgvc train --help"),
    ("fgvc train cub vit_pico --debgu", "did you mean '--debug'?", "fgvc train --help"),
    ("fgvc --halp", "did you mean '--help'?", "fgvc --help"),
    (
        "fgvc train flowrs vit_pico",
        "no dataset is called 'flowrs'; did you mean 'flowers'?",
        "fgvc list datasets",
    ),
    ("fgvc evaluate flowers103 vit_pico", "did you mean 'flowers102'?", "fgvc list datasets"),
    ("fgvc data split CUB", "no dataset is called 'CUB'; did you mean 'cub'?", "fgvc list datasets"),
    ("fgvc data fetch typeface", "did you mean 'typefaces'?", "fgvc list datasets"),
    (
        "fgvc train cub vit_picco",
        "no method is called 'vit_picco'; did you mean 'vit_pico'?",
        "fgvc list methods",
    ),
    ("fgvc select-lr cub vit_b61", "did you mean 'vit_b16'?", "fgvc list methods"),
    ("fgvc cost resnet", "no method is called 'resnet'; did you mean 'resnet101'?", "fgvc list methods"),
    ("fgvc plan soat", "no suite is called 'soat'; did you mean 'sota'?", "fgvc list suites"),
    (
        "fgvc table sota_224 --suite qick",
        "no suite is called 'qick'; did you mean 'quick'?",
        "fgvc list suites",
    ),
    ("fgvc table soat_224", "no table is called 'soat_224'; did you mean 'sota_224'?", "fgvc list tables"),
    ("fgvc figure acc_flops", "did you mean 'acc_vs_flops_", "fgvc list figures"),
    ("fgvc weights fetch resnet101.a1", "did you mean 'resnet101.a1h_in1k'?", "fgvc list weights"),
    ("fgvc weights fetch tf_eff", "did you mean 'tf_efficientnet_lite0.in1k'?", "fgvc list weights"),
    (
        "fgvc cost vit --backbone vit_bse_patch16_224 --size 224",
        "no backbone is called 'vit_bse_patch16_224'; did you mean 'vit_base_patch16_224'?",
        "fgvc list backbones",
    ),
    (
        "fgvc cost vitt --backbone vit_base_patch16_224",
        "no method class is called 'vitt'; did you mean 'vit'?",
        "fgvc list classes",
    ),
    ("fgvc list metods", "did you mean 'methods'?", None),
    ("fgvc list suite", "did you mean 'suites'?", None),
    ("fgvc describe grocery53", "did you mean 'grocery35'?", "fgvc list --help"),
    ("fgvc stages trian --raised x", "no stage is called 'trian'; did you mean 'train'?", None),
]


@pytest.mark.parametrize(("command", "says", "listing"), NAMES, ids=[c for c, *_ in NAMES])
def test_a_mistyped_name(shipped: Path, command: str, says: str, listing: str | None) -> None:
    text = refused(shipped, command)
    assert says in text.splitlines()[0]
    assert "to do: " in text
    guess = re.findall(r"did you mean '([^']+?)'?\?", text)[0]
    if listing is None:
        assert guess in text.splitlines()[1], "a short list is given whole"
    else:
        assert listing in text
        shown = fgvc(shipped, *shlex.split(listing)[1:]).check().out
        assert guess in shown or guess == "--debug" or listing.endswith("list --help"), "it lists the guess"


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("run", "train"),
        ("test", "evaluate"),
        ("flops", "cost"),
        ("download", "data fetch"),
        ("plot", "figure"),
        ("info", "doctor"),
        ("sweep", "select-lr"),
        # `audit` alone is a verb of its own.
        *((v.path[1], f"data {v.path[1]}") for v in VERBS if v.path[0] == "data" and v.path[1] != "audit"),
    ],
)
def test_a_word_that_newcomers_try(shipped: Path, word: str, verb: str) -> None:
    text = refused(shipped, f"fgvc {word}")
    assert f"did you mean '{verb}'?" in text
    assert tuple(verb.split()) in {v.path for v in VERBS}


def test_a_name_that_is_like_none_gets_the_list_without_a_guess(shipped: Path) -> None:
    text = refused(shipped, "fgvc train cub zzzzzz")
    assert "did you mean" not in text
    first = ", ".join(Project(shipped).names("method")[:4])
    assert first in text and "(all of them: fgvc list methods)" in text


@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.name)
def test_any_verb_answers_an_unknown_option_with_its_options(shipped: Path, verb: Verb) -> None:
    text = refused(shipped, f"fgvc {verb.name} --zzz")
    assert f"'fgvc {verb.name}' has no option '--zzz'" in text and f"fgvc {verb.name} --help" in text
    for option in (*verb.options, "--help"):
        assert option in text


@pytest.mark.parametrize(
    ("command", "says", "to_do"),
    [
        ("fgvc train", "Missing argument 'DATASET'", "fgvc train --help"),
        ("fgvc train cub", "Missing argument 'METHOD'", "fgvc train --help"),
        ("fgvc data add birds", "Missing argument 'PATH'", "fgvc data add --help"),
        ("fgvc weights fetch", "Missing argument 'WEIGHTS'", "fgvc weights fetch --help"),
        ("fgvc plan quick sota", "unexpected extra argument", "fgvc plan --help"),
        ("fgvc cost vit_pico --size", "Option '--size' requires an argument", ""),
        ("fgvc list --like", "Option '--like' requires an argument", ""),
        ("fgvc train cub vit_pico --size 7", "'--size'", "fgvc train --help"),
        ("fgvc train cub vit_pico --size big", "'--size'", "fgvc train --help"),
        ("fgvc train cub vit_pico --seed -1", "'--seed'", "fgvc train --help"),
        ("fgvc train cub vit_pico --seed 1.5", "'--seed'", "fgvc train --help"),
        ("fgvc train cub vit_pico --lr -1", "'--lr'", "fgvc train --help"),
        ("fgvc train cub vit_pico --lr fast", "'--lr'", "fgvc train --help"),
        ("fgvc train cub vit_pico --lr 0", "a learning rate of 0 is not possible", "above 0"),
        ("fgvc train cub vit_pico --lr inf", "a learning rate of inf is not possible", "such as 0.003"),
        ("fgvc train cub vit_pico --split test", "cannot be trained on", "train_val"),
        ("fgvc train cub vit_pico --split train", "needs --lr", "--lr 0.003"),
        ("fgvc evaluate cub vit_pico --batch-size 0", "'--batch-size'", "fgvc evaluate --help"),
        ("fgvc cost", "Missing argument 'METHOD'", "--all counts every variant"),
        ("fgvc cost --all vit_pico", "--all is every variant", ""),
        ("fgvc cost vit_pico resnet --size 224", "did you mean 'resnet101'?", "fgvc list methods"),
        ("fgvc cost vit_pico --classes 1", "'--classes'", "fgvc cost --help"),
        ("fgvc cost vit_pico --size 100", "not a multiple of the patch size 16", "use 96 or 112"),
        ("fgvc cost vit --backbone vit_pico_patch16_224 --write", "--write is for variants", "leave out"),
        ("fgvc list methods --md --csv", "exclude one another", ""),
        ("fgvc stages train", "say what the change does", "--no-effect"),
        ("fgvc data add Birds params", "'Birds' cannot be a dataset's name", "small letter"),
        ("fgvc data add birds nowhere", "there is no such folder", "nowhere"),
        ("fgvc data fetch cub --mirror nowhere", "is not a folder", "nowhere"),
    ],
)
def test_a_missing_argument_or_a_bad_value(shipped: Path, command: str, says: str, to_do: str) -> None:
    before = files(shipped)
    said = fgvc(shipped, *shlex.split(command)[1:])
    if "--mirror" not in command and command != "fgvc list methods --md --csv" and "--like" not in command:
        assert files(shipped) == before
    assert said.status == 2 and said.out == "" and len(said.err.splitlines()) <= 5
    assert says in said.err.splitlines()[0] and to_do in said.err and "Traceback" not in said.err


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "cuba", "cpu:x"])
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_device_that_is_not_here(ready: Path, cpu_only: None, verb: str, device: str) -> None:
    """In each verb that takes one, and before anything is made."""
    seed = "10" if verb == "evaluate" else "77"
    said = fgvc(
        ready,
        verb,
        "typefaces",
        "vit_pico",
        "--seed",
        seed,
        "--device",
        device,
        *(["--lr", "0.003"] * (seed == "77")),
    )
    text = told(said)
    assert f"'{device}'" in text and "--device auto" in text and "cpu" in text
    assert not (ready / "results/runs/typefaces/vit_pico/224/seed77").exists()


@pytest.mark.parametrize(
    ("command", "says", "to_do"),
    [
        ("data split typefaces", "data/typefaces.json", "fgvc data fetch typefaces"),
        ("data stats typefaces", "data/typefaces.json", "fgvc data fetch typefaces"),
        ("train typefaces vit_pico --lr 0.1", "split.json", "fgvc data split typefaces"),
        ("train typefaces vit_pico", "no learning rate was chosen", "--lr"),
        ("evaluate typefaces vit_pico", "seed1/run.json", "snakemake --cores 1 -- results/runs/typefaces"),
        (
            "select-lr typefaces vit_pico",
            "metrics.json",
            "fgvc train typefaces vit_pico --size 224 --lr 0.001 --split",
        ),
        ("table sota_224", "12 of 12 runs are missing", "--allow-missing"),
        ("figure acc_vs_flops_224", "12 of 12 runs are missing", "snakemake --cores all -- results/figures/"),
    ],
)
def test_a_step_before_the_one_that_it_needs(shipped: Path, command: str, says: str, to_do: str) -> None:
    text = told(fgvc(shipped, *command.split()))
    assert says in text and to_do in text.partition("to do: ")[2]
    assert not (shipped / "results").exists()


@pytest.mark.parametrize(
    "command", ["plan", "table sota_224", "train cub vit_b16", "describe cub", "list methods"]
)
def test_outside_a_project(tmp_path: Path, command: str) -> None:
    text = told(fgvc(tmp_path, *command.split()))
    assert "no project here" in text and str(tmp_path) in text and "FGVC_PROJECT" in text


def test_a_project_is_found_from_below_and_by_name(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fgvc(shipped, "list", "methods").check().out
    assert fgvc(shipped / "params" / "methods", "list", "methods").check().out == expected
    monkeypatch.setenv("FGVC_PROJECT", str(shipped))
    assert fgvc(tmp_path, "list", "methods").check().out == expected


def test_a_mistake_in_the_parameters_is_told_with_file_and_line(tmp_path: Path) -> None:
    root = make_shipped(tmp_path / "project")
    path = root / "params/methods/vit_pico.yaml"
    lines = path.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if "epochs" in text)
    path.write_text(path.read_text().replace("epochs:", "epocs:"))
    for command in (
        "list methods",
        "plan quick",
        "train typefaces vit_pico",
        "cost vit_pico",
        "describe vit_pico",
    ):
        text = told(fgvc(root, *command.split()))
        assert f"where: params/methods/vit_pico.yaml:{line}, key 'recipe.epocs'" in text, command
        assert "did you mean 'epochs'?" in text
    change(root, "suites/quick", methods=["vit_b61"])
    text = told(fgvc(root, "table", "sota_224"))
    assert "params/suites/quick.yaml:" in text and "did you mean 'vit_b16'?" in text


# --- defects, interruptions and tracebacks -----------------------------------------------------------


def test_debug_shows_the_traceback_of_a_mistake(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes = (["plan", "soat"], ["plan", "--sute"], ["plna"])
    for mistake in mistakes:
        plain = told(fgvc(shipped, *mistake))
        for arguments in ([*mistake, "--debug"], ["--debug", *mistake]):
            said = fgvc(shipped, *arguments)
            assert said.status == 2 and "Traceback (most recent call last)" in said.err
            assert said.err.endswith(plain), "the message stays the last on screen"
    monkeypatch.setenv("FGVC_DEBUG", "1")
    assert "Traceback" in fgvc(shipped, "plan", "soat").err


def test_a_defect_is_told_as_one(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("the gears jam\nbadly")

    monkeypatch.setattr("fgvc.cli.doctor.examine", broken)
    said = fgvc(shipped, "doctor")
    assert said.status == 1 and said.out == "" and len(said.err.splitlines()) <= 5
    assert said.err.startswith("error: unexpected RuntimeError: the gears jam\n")
    assert "this is a defect, not your mistake" in said.err and "--debug" in said.err
    assert "Traceback" not in said.err
    said = fgvc(shipped, "doctor", "--debug")
    assert said.status == 1 and "Traceback" in said.err and "in broken" in said.err


def test_an_interruption_is_no_defect(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fgvc.cli.doctor.examine", interrupted)
    said = fgvc(shipped, "doctor")
    assert (said.status, said.err.strip()) == (130, "interrupted")


def test_as_a_process(shipped: Path, tmp_path: Path) -> None:
    """The command that users have, with the status that shells see."""
    assert "did you mean 'train'?" in told(process(shipped, "trian"))
    assert "no project here" in told(process(tmp_path, "plan"))
    said = process(shipped, "train", "cub", "vit_picco", FGVC_DEBUG="1")
    assert said.status == 2 and "Traceback" in said.err and "did you mean 'vit_pico'?" in said.err

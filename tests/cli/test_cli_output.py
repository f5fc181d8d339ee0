"""What verbs print: whole names at 80 columns, everything in --json, --md and --csv; doctor and plan."""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from clikit import change, csv_rows, fgvc, make_shipped

from fgvc.cli.doctor import PACKAGES
from fgvc.cli.project import LISTS
from fgvc.config.project import Project

REPOSITORY = Path(__file__).resolve().parents[2]
SUITES = sorted(path.stem for path in (REPOSITORY / "params/suites").glob("*.yaml"))


def headings(text: str) -> list[str]:
    """The headings of a terminal table, of all its blocks: what stands above the dashes."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        if line and set(line) <= {"-", " "}:
            spans = [match.span() for match in re.finditer("-+", line)]
            found += [lines[number - 1][start:end].strip() for start, end in spans]
    return found


@pytest.mark.parametrize("what", LISTS)
def test_a_list_hides_nothing_in_any_style(ready: Path, what: str) -> None:
    rows = json.loads(fgvc(ready, "list", what, "--json").check().out)
    assert rows and all(row.keys() == rows[0].keys() for row in rows)
    keys, names = list(rows[0]), [row["name"] for row in rows]

    # On a terminal: every column, every name whole (it is what verbs take), no line too long.
    text = fgvc(ready, "list", what).check().out
    assert max(map(len, text.splitlines())) <= 80
    assert set(headings(text)) == set(keys)
    assert set(names) <= {line.partition(" ")[0] for line in text.splitlines()}

    assert [list(row) for row in csv_rows(fgvc(ready, "list", what, "--csv").check().out)] == [keys] * len(
        rows
    )
    same = [[str(value) for value in row.values()] for row in rows]
    assert [list(row.values()) for row in csv_rows(fgvc(ready, "list", what, "--csv").out)] == same
    markdown = fgvc(ready, "list", what, "--md").check().out.splitlines()
    assert len(markdown) == len(rows) + 2
    for line, row in zip(markdown[2:], rows, strict=True):
        for value in row.values():
            assert " ".join(str(value).split()) in line.replace("\\", "")


def test_a_list_of_many_long_names_stays_whole_and_its_errors_short(tmp_path: Path) -> None:
    root = make_shipped(tmp_path / "project")
    names = [f"vit_{'large_' * 5}with_many_words_and_number_{number:02d}_at_448" for number in range(40)]
    for name in names:
        shutil.copy(root / "params/methods/vit_pico.yaml", root / f"params/methods/{name}.yaml")
        change(root, f"methods/{name}", backbone_title=f"{'A long backbone title ' * 4}{name[-9:]}")
    text = fgvc(root, "list", "methods").check().out
    assert max(map(len, text.splitlines())) <= 80
    assert set(names) <= {line.partition(" ")[0] for line in text.splitlines()}
    assert {"class", "backbone", "group"} <= set(headings(text))

    said = fgvc(root, "train", "cub", names[0] + "x")
    lines = said.err.splitlines()
    assert len(lines) <= 5 and max(map(len, lines)) <= 240
    assert f"did you mean '{names[0]}'?" in lines[0] and "fgvc list methods" in said.err
    known = Project(root).names("method")
    shown = len(set(re.findall(r"\w+", lines[1])) & set(known))
    assert 0 < shown < len(known) and f"… and {len(known) - shown} more" in lines[1]


def test_like_keeps_the_names_that_contain_it(shipped: Path) -> None:
    rows = json.loads(fgvc(shipped, "list", "backbones", "--like", "PICO", "--json").check().out)
    assert {"name": "vit_pico_patch16_224"} in rows and all("pico" in row["name"].lower() for row in rows)
    assert json.loads(fgvc(shipped, "list", "datasets", "--like", "zzz", "--json").check().out) == []


def test_a_table_is_the_same_in_every_style(ready: Path) -> None:
    arguments = ("table", "sota_224", "--suite", "quick")
    rows = json.loads(fgvc(ready, *arguments, "--json").check().out)
    assert [(row["dataset"], row["method"], row["n"]) for row in rows] == [("typefaces", "vit_pico", 1)]
    (line,) = csv_rows(fgvc(ready, *arguments, "--csv").check().out)
    assert {key: str(value) for key, value in rows[0].items() if value is not None} == {
        key: value for key, value in line.items() if value != ""
    }
    number = f"{rows[0]['mean']:.2f}"
    text = fgvc(ready, *arguments).check().out
    assert number in text and max(map(len, text.splitlines())) <= 80
    assert number in fgvc(ready, *arguments, "--md").check().out


def test_the_account_of_the_stages_is_told_in_full(shipped: Path, tmp_path: Path) -> None:
    root = make_shipped(tmp_path / "project")
    (root / "workflow/stages.lock.json").unlink()
    text = fgvc(root, "stages").check().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    said = fgvc(root, "stages", "train", "--raised", "a test").check()
    assert said.out.startswith("train: version ")
    state = next(x for x in fgvc(root, "stages").check().out.splitlines() if x.startswith("train "))
    assert state.endswith("accounted for")


# --- doctor ------------------------------------------------------------------------------------------


def findings(root: Path, status: int = 0) -> dict[str, dict[str, str]]:
    said = fgvc(root, "doctor", "--json")
    assert said.status == status, said
    return {row["what"]: row for row in json.loads(said.out)}


def test_doctor_says_what_is_here(ready: Path, cpu_only: None) -> None:
    found = findings(ready)
    for name in PACKAGES:
        assert found[name]["found"] == metadata.version(name)
    assert found["device (auto)"]["found"].startswith("cpu") and found["device (auto)"]["to do"]
    assert found["project"]["found"] == str(ready)
    assert re.fullmatch(r"\d+ GB", found["free disk"]["found"])
    assert found["DVC remote"]["to do"] == "dvc init"
    text = fgvc(ready, "doctor").check().out
    assert max(map(len, text.splitlines())) <= 80
    assert headings(text) == ["state", "what", "found", "to do"]
    assert all(what in text for what in found)


def test_doctor_says_what_is_missing_and_how_to_get_it(
    ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version

    def without_timm(name: str) -> str:
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_timm)
    monkeypatch.setenv("FGVC_MIRROR", str(tmp_path / "nowhere"))
    found = findings(ready, status=1)
    missing = {what: row["to do"] for what, row in found.items() if row["state"] == "missing"}
    assert missing == {"timm": "make env", "mirror": "correct FGVC_MIRROR or params/config.yaml"}


def test_doctor_outside_a_project(tmp_path: Path) -> None:
    row = findings(tmp_path, status=1)["project"]
    assert row["state"] == "missing" and "no project here" in row["found"] and "FGVC_PROJECT" in row["to do"]


def test_doctor_names_the_dvc_remote(tmp_path: Path) -> None:
    root = make_shipped(tmp_path / "project")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    assert "dvc remote add" in findings(root)["DVC remote"]["to do"]
    with (root / ".dvc/config").open("a") as stream:
        stream.write("['remote \"store\"']\n    url = /somewhere/store\n")
    row = findings(root)["DVC remote"]
    assert row["state"] == "ok" and "store" in row["found"] and "/somewhere/store" in row["found"]


def test_doctor_warns_of_a_full_disk(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgvc.cli.doctor.LOW_DISK_GB", 1e9)
    row = findings(ready)["free disk"]
    assert row["state"] == "note" and "fgvc plan SUITE" in row["to do"]


# --- plan --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_the_plan_of_a_shipped_suite(shipped: Path, suite: str) -> None:
    lines = fgvc(shipped, "plan", suite).check().out.splitlines()
    assert len(lines) <= 20
    text = "\n".join(lines)
    first = re.fullmatch(rf"suite {suite}: (\d+) jobs to run, 0 done", lines[0])
    assert first
    to_run = [int(n) for n in re.findall(r"^  [a-z ]+?(\d+) to run", text, flags=re.M)]
    assert len(to_run) >= 10 and sum(to_run) == int(first[1])
    assert re.search(r"^training takes about \d[\d,]* (minutes|hours)", text, flags=re.M)
    assert "because: " in text and "downloads " in text
    assert re.search(r"^disk about [\d.]+ GB; free here \d+ GB", text, flags=re.M)


def test_the_plan_says_which_datasets_need_the_user(shipped: Path) -> None:
    text = fgvc(shipped, "plan", "sota").check().out
    assert "need you: " in text and "nabirds: gated" in text and "fgvc describe DATASET" in text


def test_the_plan_of_a_finished_suite(ready: Path) -> None:
    plan = json.loads(fgvc(ready, "plan", "quick", "--json").check().out)
    for kind in ("fetch", "split", "search", "select_lr", "train", "evaluate", "cost"):
        assert plan["jobs"][kind]["to_do"] == 0 and plan["jobs"][kind]["done"] > 0, kind
    assert "nothing left to train" in fgvc(ready, "plan", "quick").check().out


def test_a_method_is_described_as_it_was_written(shipped: Path) -> None:
    """Lines of its text stay lines, without quotes or escapes."""
    text = fgvc(shipped, "describe", "transfg").check().out
    assert "about: |-\n  All blocks but the last see every token" in text
    assert "\\n" not in text and "patch_stride: 12" in text


def test_costs_of_several_methods_and_sizes_come_in_one_list(shipped: Path) -> None:
    sizes = ("--size", "64", "--size", "32")
    records = json.loads(fgvc(shipped, "cost", "vit_pico", "cnn_lite0", *sizes, "--json").check().out)
    asked = [(record["method"], record["image_size"]) for record in records]
    assert asked == [(m, s) for m in ("vit_pico", "cnn_lite0") for s in (64, 32)]
    lines = fgvc(shipped, "cost", "vit_pico", *sizes).check().out.splitlines()
    assert [line.split(",")[0] for line in lines[::2]] == [
        f"vit_pico on vit_pico_patch16_224 at {s} px" for s in (64, 32)
    ]
    assert isinstance(
        json.loads(fgvc(shipped, "cost", "vit_pico", "--size", "64", "--json").check().out), dict
    )

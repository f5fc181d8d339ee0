"""A user's own table: which forms are read, and what is said to one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.audit.paper import read_paper
from fgvc.audit.rounding import Printed
from fgvc.config.project import Project
from fgvc.errors import FgvcError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Project(ROOT)


def write(folder: Path, text: str, name: str = "paper.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "cell",
    ["90.11 ± 0.17", "90.11±0.17", "90.11 +- 0.17", "90.11 (0.17)", "**90.11** ± 0.17", "90.11 ± 0.17 %"],
)
def test_a_cell_is_read_however_it_was_typed(cell: str, tmp_path: Path) -> None:
    table = read_paper(PROJECT, write(tmp_path, f"dataset,ViT\nCUB,{cell}\n"), seeds=3)
    (score,) = table.scores
    assert (score.value, score.std, score.images, score.runs) == (
        Printed(90.11, 2),
        Printed(0.17, 2),
        5794,
        3,
    )


def test_trailing_zeros_count_as_printed(tmp_path: Path) -> None:
    table = read_paper(PROJECT, write(tmp_path, "dataset,A,B\nCUB,81.00,81\n"))
    assert [score.value.decimals for score in table.scores] == [2, 0]


def test_both_ways_round_give_the_same_table(tmp_path: Path) -> None:
    upright = read_paper(
        PROJECT,
        write(tmp_path, "data,ViT,GLSim\nCUB,90.1,90.9\nDogs,91.3,92.0\nAverage,90.7,91.45\n", "a.csv"),
    )
    turned = read_paper(
        PROJECT, write(tmp_path, "x;CUB;Dogs;Avg.\nViT;90.1;91.3;90.7\nGLSim;90.9;92.0;91.45\n", "b.csv")
    )
    told = {(s.dataset, s.method): (s.value, s.images) for s in upright.scores}
    assert told == {(s.dataset, s.method): (s.value, s.images) for s in turned.scores}
    assert [(a.method, a.value, a.cells) for a in upright.averages] == [
        (a.method, a.value, a.cells) for a in turned.averages
    ]


def test_tidy_columns_are_read(tmp_path: Path) -> None:
    text = "Method,Dataset,Accuracy,Std,Seeds\nViT,cub_200_2011,90.11,0.17,3\nViT,Mine,80.0,,\n"
    table = read_paper(PROJECT, write(tmp_path, text), seeds=5)
    assert [(s.images, s.runs, s.std) for s in table.scores] == [
        (5794, 3, Printed(0.17, 2)),
        (None, 5, None),
    ]


def test_with_a_dataset_every_line_is_a_method(tmp_path: Path) -> None:
    file = write(tmp_path, "method,accuracy\nViT,90.11\nGLSim,90.93\n")
    table = read_paper(PROJECT, file, dataset="cub_200_2011")
    assert [(s.method, s.images) for s in table.scores] == [("ViT", 5794), ("GLSim", 5794)]


def test_test_images_can_be_said(tmp_path: Path) -> None:
    file = write(tmp_path, "dataset,ViT\nMine,90.11\n")
    assert read_paper(PROJECT, file).scores[0].images is None
    assert read_paper(PROJECT, file, test_images=321).scores[0].images == 321


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("dataset,ViT\nCUB,good\n", 2, "'good' is no accuracy"),
        ("dataset,ViT\nCUB,90.1\nDogs,190\n", 3, "more than 100 %"),
        ("dataset,ViT\nCUB,90.1,3\n", 2, "3 columns, the header 2"),
        ("dataset,ViT\nCUB,90.1\nCUB,90.2\n", 3, "stands twice (first on line 2)"),
        ("dataset,ViT\nCUB,0.901\n", 2, "shares, not percent"),
        ("method,accuracy,seeds\nViT,90.1,few\n", 2, "no number of runs"),
        ("just words\n", 1, "no table"),
        ("", 1, "no table"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(text: str, line: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(FgvcError) as caught:
        read_paper(PROJECT, write(tmp_path, text))
    assert caught.value.line == line and words in caught.value.problem
    assert caught.value.cure and str(tmp_path) in str(caught.value.file)


def test_a_table_without_a_number_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="holds no number"):
        read_paper(PROJECT, write(tmp_path, "dataset,ViT\nCUB,-\n"))
    with pytest.raises(FgvcError, match="does not exist"):
        read_paper(PROJECT, tmp_path / "nothing.csv")


def test_an_unknown_dataset_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match="did you mean 'cub'"):
        read_paper(PROJECT, write(tmp_path, "method,accuracy\nViT,90.1\n"), dataset="cubb")

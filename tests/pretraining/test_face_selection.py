"""Which faces are used: text faces only, no test face under any name, none twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fontkit import add_package, copy_of_a_test_face, make_font, rename
from fontTools.ttLib import TTFont

from fgvc.data.typefaces import FACES
from fgvc.errors import FgvcError
from fgvc.pretraining.faces import LETTERS, Face, Refusal, benchmark_faces, excluded_family, text_faces
from fgvc.pretraining.outlines import benchmark_masks, letter_masks, similarities
from fgvc.pretraining.packages import Package, installed_packages
from fgvc.pretraining.selection import LIKE_A_TEST_FACE, LIKE_ANOTHER_FACE, Selection, select


def selected(*files: Path, limit: int | None = None) -> Selection:
    return select(*text_faces([Package("fonts-any", "1", (), tuple(files))]), limit=limit)


def why(found: Selection | list[Refusal], name: str) -> str:
    refused = found.refused if isinstance(found, Selection) else found
    return next(refusal.reason for refusal in refused if refusal.name == name)


# --- the outline check ------------------------------------------------------------------------------


def test_a_copy_of_a_test_face_is_refused_whatever_it_is_called(
    tmp_path: Path, fonts: dict[str, Path]
) -> None:
    copy = copy_of_a_test_face(tmp_path / "Innocent.ttf")
    found = selected(copy, *fonts.values())
    assert [face.name for face in found.faces] == sorted(fonts)
    (refusal,) = found.refused
    assert (refusal.name, refusal.reason) == ("Harmless Grotesk", "too like the test face DejaVu Sans")
    assert refusal.similarity is not None and refusal.similarity > 0.999


@pytest.mark.parametrize("file", [file for _, file in FACES[::4]])
def test_a_moved_and_scaled_copy_is_refused_too(tmp_path: Path, file: str, fonts: dict[str, Path]) -> None:
    copy = make_font(tmp_path / "copy.ttf", file, "Copy", width=0.8, height=0.8, shift=300)
    found = selected(copy, *fonts.values())
    assert "Copy" not in [face.name for face in found.faces]
    assert why(found, "Copy").startswith("too like the test face ")


def test_similarity_knows_identity_scale_and_difference(tmp_path: Path, fonts: dict[str, Path]) -> None:
    sans = letter_masks(fonts["Narrow Sans"])
    larger = letter_masks(make_font(tmp_path / "l.ttf", "DejaVuSans.ttf", "L", width=0.54, height=1.2))
    serif = letter_masks(fonts["Narrow Serif"])
    like = similarities([sans, larger, serif], [sans, larger, serif])
    assert np.allclose(like, like.T) and np.allclose(np.diag(like), 1)
    assert like[0, 1] > 0.98 > 0.9 > like[0, 2]
    assert like.min() >= 0


def test_the_thresholds_part_the_test_faces_from_one_another() -> None:
    """No two of them are so alike that one of two such faces would be dropped."""
    masks = benchmark_masks()
    like = similarities(masks, masks) - np.eye(len(masks))
    assert len(masks) == 21
    assert 0.88 < like.max() < LIKE_ANOTHER_FACE < LIKE_A_TEST_FACE < 1


def test_each_test_face_is_reported_with_its_nearest(tmp_path: Path, fonts: dict[str, Path]) -> None:
    condensed = make_font(tmp_path / "c.ttf", "DejaVuSerif-Bold.ttf", "Condensed Serif", width=0.8)
    found = selected(condensed, *fonts.values())
    assert [nearest.test_face for nearest in found.nearest] == [name for name, _ in FACES]
    nearest = found.nearest[9]
    assert (nearest.test_face, nearest.face) == ("DejaVu Serif Bold", "Condensed Serif")
    expected = similarities([letter_masks(condensed)], benchmark_masks()[9:10]).item()
    assert nearest.similarity == pytest.approx(expected) and 0.75 < expected < LIKE_A_TEST_FACE


# --- the same face twice ---------------------------------------------------------------------------


def test_of_faces_that_are_alike_the_simplest_name_is_kept(tmp_path: Path, fonts: dict[str, Path]) -> None:
    again = tmp_path / "AAA.ttf"
    font = TTFont(fonts["Narrow Sans"])
    rename(font, "Another Foundry Sans", "Book")
    font.save(again)
    found = selected(again, *fonts.values())
    assert [face.name for face in found.faces] == sorted(fonts)
    assert why(found, "Another Foundry Sans Book") == "too like Narrow Sans, which is used"


def test_different_faces_of_one_name_are_told_apart_by_their_files(
    tmp_path: Path, fonts: dict[str, Path]
) -> None:
    files = []
    for number, path in enumerate(fonts.values()):
        font = TTFont(path)
        rename(font, "Untitled", "Regular")
        files.append(tmp_path / f"{number}.ttf")
        font.save(files[-1])
    names = [face.name for face in selected(*files).faces]
    assert names == ["Untitled (0.ttf)", "Untitled (1.ttf)", "Untitled (2.ttf)"]


def test_a_limit_keeps_evenly_spaced_faces(fonts: dict[str, Path]) -> None:
    found = selected(*fonts.values(), limit=2)
    assert [face.name for face in found.faces] == ["Narrow Sans", "Wide Mono"]


def test_fewer_than_two_faces_are_an_error_that_says_why(tmp_path: Path, fonts: dict[str, Path]) -> None:
    copy = copy_of_a_test_face(tmp_path / "Innocent.ttf")
    with pytest.raises(FgvcError, match=r"1 typeface.* too like the test face DejaVu Sans"):
        selected(copy, fonts["Wide Mono"])
    with pytest.raises(FgvcError, match="0 typeface"):
        selected()


# --- what is no text face --------------------------------------------------------------------------


def test_files_that_are_no_text_face_are_refused(tmp_path: Path, fonts: dict[str, Path]) -> None:
    def variant(name: str, letters: tuple[str, ...] = LETTERS, style: str = "Regular") -> Path:
        path = tmp_path / f"{name}{style}.ttf"
        return make_font(path, "DejaVuSans.ttf", name, width=0.5, letters=letters, style=style)

    broken = tmp_path / "Broken.ttf"
    broken.write_bytes(fonts["Wide Mono"].read_bytes()[:100])
    files = (
        broken,
        variant("Fancy Initials"),
        variant("Few", tuple(letter for letter in LETTERS if letter != "q")),
        variant("Slender", style="ExtraLight"),
        variant("STIX Two Text"),
        variant("Hackney"),
    )
    faces, refused = text_faces([Package("fonts-any", "1", (), files)])
    assert [face.name for face in faces] == ["Hackney"]
    assert why(refused, "Broken").startswith("unreadable: ")
    assert why(refused, "Fancy Initials") == "no text face"
    assert why(refused, "Few") == "lacks the letter q"
    assert why(refused, "Slender ExtraLight") == "thinner than a pixel"
    assert why(refused, "STIX Two Text") == "of an excluded family: STIX"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("DejaVu Sans Mono", "DejaVu"),
        ("Hack Bold", "Hack"),
        ("LM Roman 10 Bold", "LM Roman"),
        ("XITS-Italic", "XITS"),
        ("Bitstream Vera Sans", "Bitstream Vera"),
        ("cmu serif", "CMU"),
        ("Hackney", None),
        ("Elm Roman", None),
        ("Verajja", None),
        ("Computer Says No", None),
    ],
)
def test_excluded_families_are_known_by_whole_words(name: str, family: str | None) -> None:
    assert excluded_family(name) == family


def test_faces_know_their_package(debian: Path) -> None:
    faces, refused = text_faces(installed_packages(("fonts-narrow", "fonts-wide"), debian))
    assert [(face.name, face.package) for face in faces] == [
        ("Narrow Sans", "fonts-narrow"),
        ("Narrow Serif", "fonts-narrow"),
        ("Wide Mono", "fonts-wide"),
    ]
    assert refused == []


def test_the_letters_are_those_of_the_pictures() -> None:
    assert {"a", "z", "B", "W"} <= set(LETTERS) and " " not in LETTERS


def test_a_package_without_fonts_gives_no_face(tmp_path: Path) -> None:
    add_package(tmp_path, "fonts-empty")
    assert text_faces(installed_packages(("fonts-empty",), tmp_path)) == ([], [])


def test_the_benchmark_faces_are_files_that_exist() -> None:
    assert all(isinstance(face, Face) and face.path.is_file() for face in benchmark_faces())

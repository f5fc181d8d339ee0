"""Font packages as dpkg knows them: versions, licences, files, and what is said when some are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fontkit import add_package

from fgvc.errors import FgvcError
from fgvc.pretraining.faces import excluded_family
from fgvc.pretraining.packages import PACKAGES, installed_packages

NARROW_AND_WIDE = ("fonts-narrow", "fonts-wide")


def test_an_installed_package_is_known_with_version_licence_and_files(debian: Path) -> None:
    narrow, wide = installed_packages(NARROW_AND_WIDE, debian)
    assert (narrow.name, narrow.version, narrow.licences) == ("fonts-narrow", "2:1.5-3", ("OFL-1.1",))
    assert [path.name for path in narrow.files] == ["NarrowSans.ttf", "NarrowSerif.ttf"]
    assert all(path.is_relative_to(debian) for path in narrow.files)
    assert [path.name for path in wide.files] == ["WideMono.ttf"]


def test_missing_packages_are_one_error_with_the_command_that_installs_them(debian: Path) -> None:
    with pytest.raises(FgvcError) as caught:
        installed_packages(("fonts-lato", *NARROW_AND_WIDE, "fonts-roboto"), debian)
    said = str(caught.value)
    assert "2 of the 4 font packages are not installed" in said
    assert "apt-get install fonts-lato fonts-roboto" in said
    assert "fonts-narrow" not in said
    assert len(said.splitlines()) <= 5


def test_where_there_is_no_dpkg_every_package_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FgvcError, match=f"{len(PACKAGES)} of the {len(PACKAGES)} font packages"):
        installed_packages(PACKAGES, tmp_path)


def test_a_removed_package_whose_settings_remain_is_missing(tmp_path: Path) -> None:
    add_package(tmp_path, "fonts-gone", status="deinstall ok config-files")
    add_package(tmp_path, "fonts-broken", status="install ok half-installed")
    with pytest.raises(FgvcError, match="2 of the 2") as caught:
        installed_packages(("fonts-gone", "fonts-broken"), tmp_path)
    assert "apt-get install fonts-gone fonts-broken" in str(caught.value)


def test_a_link_to_a_font_is_not_a_second_font(tmp_path: Path, fonts: dict[str, Path]) -> None:
    add_package(tmp_path, "fonts-linked", {"a/Sans.ttf": fonts["Narrow Sans"]})
    link = tmp_path / "usr/share/fonts/a/Again.ttf"
    link.symlink_to("Sans.ttf")
    listing = tmp_path / "var/lib/dpkg/info/fonts-linked.list"
    listing.write_text(listing.read_text() + "/usr/share/fonts/a/Again.ttf\n/usr/share/doc/fonts-linked\n")
    (package,) = installed_packages(("fonts-linked",), tmp_path)
    assert [path.name for path in package.files] == ["Sans.ttf"]


def test_a_file_that_is_listed_and_gone_is_left_out(debian: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(debian, root)
    next(root.rglob("NarrowSans.ttf")).unlink()
    (narrow,) = installed_packages(("fonts-narrow",), root)
    assert [path.name for path in narrow.files] == ["NarrowSerif.ttf"]


@pytest.mark.parametrize(
    ("prose", "licences"),
    [
        ("Licensed under the SIL Open Font\n License, Version 1.0.", ("OFL",)),
        ("You may choose the GNU GPL or the OFL 1.1.", ("OFL-1.1", "GPL")),
        ("Placed in the public domain.", ("public-domain",)),
        ("All rights remain with the author.", ()),
    ],
)
def test_licences_are_read_from_prose_too(tmp_path: Path, prose: str, licences: tuple[str, ...]) -> None:
    add_package(tmp_path, "fonts-old", copyright_text=f"This package was debianised long ago.\n\n{prose}\n")
    assert installed_packages(("fonts-old",), tmp_path)[0].licences == licences


def test_no_listed_package_is_of_an_excluded_family() -> None:
    assert len(PACKAGES) == len(set(PACKAGES)) > 50
    assert list(PACKAGES) == sorted(PACKAGES)
    for package in PACKAGES:
        assert not excluded_family(package.replace("-", " ")), package
        assert not any(word in package for word in ("dejavu", "hack", "lmodern", "stix", "cmu", "vera"))

"""Debian's free font packages: which ones, where their files lie, their versions and licences.

The database of dpkg is read as files below a root, so that the packages of a chroot or of an unpacked
container serve as well as those of this machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fgvc.errors import FgvcError

#: What `fgvc pretrain` draws from. All are in Debian's main archive: free licences.
PACKAGES: tuple[str, ...] = tuple(
    """
    fonts-adf-accanthis fonts-adf-baskervald fonts-adf-gillius fonts-adf-libris fonts-adf-romande
    fonts-adf-universalis fonts-agave fonts-anonymous-pro fonts-arapey fonts-averia-serif-gwf fonts-b612
    fonts-cabin fonts-cantarell fonts-cardo fonts-century-catalogue fonts-clear-sans fonts-comfortaa
    fonts-comic-neue fonts-courier-prime fonts-crosextra-caladea fonts-crosextra-carlito fonts-dosis
    fonts-ebgaramond fonts-fanwood fonts-firacode fonts-freefont-otf fonts-gfs-artemisia fonts-gfs-didot
    fonts-gfs-neohellenic fonts-go fonts-goudybookletter fonts-inconsolata fonts-jetbrains-mono fonts-junicode
    fonts-jura fonts-karla fonts-lato fonts-league-spartan fonts-liberation fonts-lindenhill
    fonts-linuxlibertine fonts-manrope fonts-mononoki fonts-national-park fonts-oldstandard fonts-open-sans
    fonts-oxygen fonts-paratype fonts-play fonts-prociono fonts-quattrocento fonts-quicksand fonts-roboto-slab
    fonts-roboto-unhinted fonts-sil-andika fonts-sil-charis fonts-sil-doulos fonts-sil-gentium
    fonts-sil-gentium-basic fonts-tuffy fonts-urw-base35 fonts-vollkorn
    """.split()  # noqa: SIM905 -- a list of quoted names would be a page long
)

#: Families that share outlines with the test faces by descent; none of their packages is listed above, and
#: a face that names one of them is refused wherever it lies. Hack is derived from Bitstream Vera.
EXCLUDED_FAMILIES: tuple[str, ...] = (
    *("DejaVu", "Bitstream Vera", "Hack", "STIX", "XITS"),
    *("Computer Modern", "CMU", "Latin Modern", "LM Roman", "LM Sans", "LM Mono"),
)

#: Short names of licences, and the words that name them in copyright files of the old kind.
_IN_PROSE = {
    "OFL": "sil open font license",
    "OFL-1.1": " ofl 1.1",
    "GPL with exceptions": "general public license v.2 with the exceptions",
    "GPL": "gnu gpl",
    "public-domain": "public domain",
}
_FONT_SUFFIXES = (".otf", ".ttf")


@dataclass(frozen=True)
class Package:
    """An installed font package: name, version, short names of its licences, and its OpenType files."""

    name: str
    version: str
    licences: tuple[str, ...]
    files: tuple[Path, ...]


def installed_packages(names: tuple[str, ...], root: Path = Path("/")) -> list[Package]:
    """The packages of ``names`` as dpkg knows them, in this order.

    Args:
        root: of the Debian system whose packages are meant.

    Raises FgvcError naming all that are missing and the command that installs them.
    """
    versions = _versions(root)
    missing = [name for name in names if name not in versions]
    if missing:
        raise FgvcError(
            f"{len(missing)} of the {len(names)} font packages are not installed here, first: {missing[0]}",
            file=root / "var/lib/dpkg/status",
            cure=f"apt-get install {' '.join(missing)}",
        )
    return [Package(name, versions[name], _licences(root, name), _files(root, name)) for name in names]


def _versions(root: Path) -> dict[str, str]:
    """Versions of the installed packages."""
    status = root / "var/lib/dpkg/status"
    if not status.is_file():
        return {}
    found = {}
    for paragraph in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version): (.*)$", paragraph, re.M))
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields.get("Version", "")
    return found


def _files(root: Path, name: str) -> tuple[Path, ...]:
    """OpenType files of a package; links (one face under two names) are left out."""
    info = root / "var/lib/dpkg/info"
    listing = next((p for p in (info / f"{name}.list", info / f"{name}:all.list") if p.is_file()), None)
    lines = listing.read_text(encoding="utf-8").splitlines() if listing else []
    files = [root / line.lstrip("/") for line in lines if line.lower().endswith(_FONT_SUFFIXES)]
    return tuple(sorted(file for file in files if file.is_file() and not file.is_symlink()))


def _licences(root: Path, name: str) -> tuple[str, ...]:
    """Short names in the machine-readable copyright file, those of the packaging itself left out.

    Of a copyright file in prose, the licences that its words name.
    """
    path = root / "usr/share/doc" / name / "copyright"
    if not path.is_file():
        return ()
    text = path.read_text(encoding="utf-8", errors="replace")
    found: list[str] = []
    for paragraph in text.split("\n\n"):
        fields = dict(re.findall(r"^(Files|License):[ \t]*(.*)$", paragraph, re.M))
        licence = fields.get("License", "").strip()
        if fields.get("Files", "").strip() not in ("", "debian/*") and licence and licence not in found:
            found.append(licence)
    prose = " ".join(text.split()).casefold()
    return tuple(found) or tuple(short for short, words in _IN_PROSE.items() if words in prose)

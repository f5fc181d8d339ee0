"""How a file becomes the RGB picture that models see, and what is unusual about a file.

Everything that reads pictures (fetching, training, evaluation, the audit) decodes them here, so that what the
audit says of an unusual file is what happens to it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from fgvc.errors import FgvcError

#: What may be unusual about a file, and what `as_rgb` makes of it. The order is that of reports.
UNUSUAL = {
    "unreadable": "refused: fetching and training stop with the file's name, nothing takes its place",
    "changed": "used as it is now, though it is not the file that was fetched",
    "cmyk": "converted to RGB by formula; its colour profile is not applied",
    "16_bit": "the upper 8 of its 16 bits are kept",
    "palette": "each pixel gets its palette's colour",
    "alpha": "transparency is dropped: hidden colours show, nothing is blended",
    "grey": "the grey value is copied to the three channels",
    "exif_rotated": "used as stored; the EXIF orientation is not applied",
    "several_frames": "the first frame is used",
}

#: Pictures of pixels, told by their content (MPO, several JPEGs in one file, is among them). Other kinds are
#: opened by running programs (EPS: Ghostscript) or by guessing; what is only called .jpg must not get there.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_SIXTEEN_BIT_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """A file of one of `FORMATS`, opened and not decoded.

    Raises what Pillow raises for other content, and for a picture of more than 178,956,970 pixels (a
    decompression bomb), which its header says.
    """
    return Image.open(source, formats=FORMATS)


def as_rgb(image: Image.Image) -> Image.Image:
    """The first frame of an opened file as 8-bit RGB, pixels as stored.

    EXIF orientation is not applied and transparency is dropped, as in the code bases compared. Of 16-bit grey
    the upper byte is kept (Pillow alone would turn all but the darkest 1/256 white).

    Raises ValueError for 32-bit samples, whose range nobody states, and what Pillow raises for broken bytes.
    """
    if image.mode in _SIXTEEN_BIT_GREY:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        image.load()
        raise ValueError("it has 32-bit samples of unknown range; save it with 8 or 16 bits")
    return image.convert("RGB")


def decode(path: Path) -> Image.Image:
    """The image as RGB (see `as_rgb`).

    Raises FgvcError naming the file when it cannot be decoded; it is never replaced by another image.
    """
    try:
        with open_image(path) as image:
            return as_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder raises for broken bytes is the image's fault
        raise FgvcError(
            f"this image cannot be decoded: {failure(error)}",
            file=path,
            cure="restore the file (fgvc data fetch DATASET --verify finds every changed one)",
        ) from None


def look_at(data: bytes) -> tuple[Image.Image, list[str]]:
    """The picture in a file's bytes, decoded as `decode` does, and the keys of `UNUSUAL` that hold for it.

    Raises what Pillow raises for broken bytes, and ValueError as `as_rgb`.
    """
    with open_image(io.BytesIO(data)) as image:
        mode, is_deep = image.mode, _is_16_bit(image)
        has_frames = bool(getattr(image, "is_animated", False))
        picture = as_rgb(image)
        found = {
            "cmyk": mode == "CMYK",
            "16_bit": is_deep,
            "palette": mode in ("P", "PA"),
            "alpha": image.has_transparency_data or mode in ("LA", "La", "RGBA", "RGBa", "PA"),
            "grey": mode in ("1", "L", "LA", "La", *_SIXTEEN_BIT_GREY),
            "exif_rotated": image.getexif().get(_ORIENTATION, 1) not in (0, 1),
            "several_frames": has_frames,
        }
    return picture, [kind for kind, is_so in found.items() if is_so]


def failure(error: Exception) -> str:
    """Why a file could not be decoded, on one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image by its content"
    return " ".join(str(error).split()) or type(error).__name__


def _is_16_bit(image: Image.Image) -> bool:
    """Whether the file has 16 bits a sample; of colour Pillow shows the upper 8 only."""
    if image.mode in _SIXTEEN_BIT_GREY:
        return True
    if image.format == "PNG":
        return any("16B" in str(tile[3]) for tile in getattr(image, "tile", []))
    tags = getattr(image, "tag_v2", None)
    return tags is not None and max(tags.get(_BITS_PER_SAMPLE, (8,))) == 16

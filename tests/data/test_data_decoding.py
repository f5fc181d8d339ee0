"""What becomes of every kind of file: the pixels that a model sees, and what the audit calls it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from fgvc.data.decoding import UNUSUAL, decode, look_at
from fgvc.errors import FgvcError

RAMP = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
RED, BLUE = (200, 30, 40), (10, 20, 220)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def seen(data: bytes) -> tuple[np.ndarray, list[str]]:
    picture, unusual = look_at(data)
    assert picture.mode == "RGB"
    return np.asarray(picture), unusual


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_f08_16_bit_grey_keeps_its_upper_byte(form: str) -> None:
    """A grey picture of 16 bits is used with the upper 8, and the audit of pictures names it."""
    pixels, unusual = seen(encoded(Image.fromarray(RAMP), form))
    assert unusual == ["16_bit", "grey"]
    assert (pixels == (RAMP >> 8)[..., None]).all()


def png16(rgb: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write: header, one chunk of rows, end."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = rgb.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_f08_16_bit_colour_keeps_its_upper_byte() -> None:
    """A colour picture of 16 bits is used with the upper 8, and the audit of pictures names it."""
    deep = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)
    pixels, unusual = seen(png16(deep))
    assert unusual == ["16_bit"] and (pixels == deep >> 8).all()


def test_f08_cmyk_is_converted_by_formula() -> None:
    """A CMYK picture is converted to RGB by formula, and the audit of pictures names it."""
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 128, 51))
    pixels, unusual = seen(encoded(cmyk, "TIFF"))
    assert unusual == ["cmyk"]
    ink = np.array([0, 255, 128]) / 255
    assert np.abs(pixels[0, 0] - 255 * (1 - ink) * (1 - 51 / 255)).max() <= 1
    near, unusual = seen(encoded(cmyk, "JPEG", quality=95))
    assert unusual == ["cmyk"] and np.abs(near.astype(int) - pixels).max() <= 12


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1, 1, 0])
    pixels, unusual = seen(encoded(image, "PNG"))
    assert unusual == ["palette"] and pixels[0].tolist() == [list(RED), list(BLUE), list(BLUE), list(RED)]
    pixels, unusual = seen(encoded(image, "PNG", transparency=1))
    assert unusual == ["palette", "alpha"] and pixels[0, 1].tolist() == list(BLUE)


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped_and_not_blended(alpha: int) -> None:
    pixels, unusual = seen(encoded(Image.new("RGBA", (4, 4), (*RED, alpha)), "PNG"))
    assert unusual == ["alpha"] and (pixels == RED).all()
    pixels, unusual = seen(encoded(Image.new("LA", (4, 4), (90, alpha)), "PNG"))
    assert unusual == ["alpha", "grey"] and (pixels == 90).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_f08_the_exif_orientation_is_not_applied(orientation: int) -> None:
    """A picture with an EXIF orientation is used as stored, as in the code bases compared, and the audit of
    pictures names it."""
    image = Image.new("RGB", (16, 8), RED)
    image.paste(BLUE, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, unusual = seen(encoded(image, "PNG", exif=exif))
    assert unusual == ([] if orientation == 1 else ["exif_rotated"])
    assert (pixels == np.asarray(image)).all()
    assert ("exif_rotated" in seen(encoded(image, "JPEG", exif=exif))[1]) == (orientation != 1)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_counts(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE, RED)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    pixels, unusual = seen(data)
    assert "several_frames" in unusual
    assert np.abs(pixels.astype(int) - RED).max() <= 16, "near the colour of the first, in a lossy form"


def test_an_ordinary_file_is_not_unusual() -> None:
    for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        assert seen(encoded(Image.new("RGB", (9, 9), RED), form))[1] == []


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_samples_of_32_bits_are_refused(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "deep.tif"
    path.write_bytes(encoded(Image.fromarray(RAMP.astype(kind)), "TIFF"))
    with pytest.raises(FgvcError, match="32-bit samples of unknown range") as caught:
        decode(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d[:-40], lambda _: b""])
def test_f08_a_truncated_picture_is_refused_by_its_name(
    tmp_path: Path, form: str, damage: Callable[[bytes], bytes]
) -> None:
    """A picture that is cut off anywhere, or empty, is an error that names the file; it is never filled up
    with grey and never replaced by another."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = damage(encoded(Image.fromarray(noise), form))
    path = tmp_path / "cut"
    path.write_bytes(data)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(FgvcError, match="cannot be decoded") as caught:
        decode(path)
    assert caught.value.file == str(path)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        look_at(data)


def test_decoding_and_looking_show_the_same_pixels(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (32, 48, 4), dtype=np.uint8)
    for mode, form in (("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "PNG")):
        path = tmp_path / mode
        image = Image.fromarray(noise[..., :3]).convert(mode) if mode != "RGBA" else Image.fromarray(noise)
        path.write_bytes(encoded(image, form))
        assert (np.asarray(decode(path)) == np.asarray(look_at(path.read_bytes())[0])).all()


def test_every_kind_says_what_the_loader_does() -> None:
    assert all(text and text[0].islower() for text in UNUSUAL.values())

"""How a picture of any size becomes a student's input: the same in training and in use."""

import io
from contextlib import suppress
from pathlib import PurePath

from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000  # a larger picture is an attack or a mistake, whatever its file size
# Pillow would try fifty formats, some of them by starting other programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM")
FORMAT_NAMES = "JPEG, PNG, GIF, BMP, WebP or PNM"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".pgm", ".ppm"})
DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})  # grey, 0..65535


def is_picture_name(path: PurePath) -> bool:
    """By its ending; not the `._photo.jpg` that macOS puts beside a photo.jpg."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_picture(content: bytes) -> Image.Image:
    """Open, not yet decode, one of FORMATS; of a moving picture the first frame."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


def upright(picture: Image.Image) -> Image.Image:
    """As people see it: turned as its camera says, and 16 bits scaled to 8, where Pillow would cut them off at 255."""
    picture.load()
    with suppress(Exception):  # a camera's notes may be damaged in any way; the picture is what counts
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode in DEEP_MODES:
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return picture


def fit_picture(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Cut the middle to the aspect of `height` x `width`, then scale; a picture that fits is returned as it is."""
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)

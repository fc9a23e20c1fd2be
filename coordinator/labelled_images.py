"""Images from files, folders and zips of CLASS/*.png, decoded one at a time."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_agent.console.exit_codes import UserError
from edge_agent.console.picture import MAX_PIXELS, fit_picture

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm", ".ppm"})
MAX_IMAGE_BYTES = 50_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """Name and class folder of an image that has not been read yet."""

    name: str
    class_name: str


class LabelledImages:
    """The test split of a data set: `PATH/test/CLASS/*` or `PATH/CLASS/*`, a folder or a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path) if path.is_file() and zipfile.is_zipfile(path) else None
        if self._zip is None and not path.is_dir():
            raise UserError(f"{path}: expected a folder or zip of test/CLASS/*.png")
        names = [PurePosixPath(name) for name in self._names() if PurePosixPath(name).suffix.lower() in SUFFIXES]
        split = [name for name in names if len(name.parts) >= 3 and name.parts[-3] == "test"]
        chosen = split or [name for name in names if len(name.parts) >= 2 and "train" not in name.parts[:-2]]
        self.images = [LabelledImage(str(name), name.parts[-2]) for name in sorted(chosen, key=lambda n: n.parts[-2:])]
        if not self.images:
            raise UserError(f"{path}: no images; expected test/CLASS/*.png")

    def read(self, image: LabelledImage) -> bytes:
        """Content of the image's file."""
        if self._zip is not None:
            return self._zip.read(image.name)
        return (self.path / image.name).read_bytes()

    def _names(self) -> Iterator[str]:
        if self._zip is not None:
            yield from self._zip.namelist()
        else:
            yield from (str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file())


def decode_image(content: bytes, shape: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    """Decode and fit to `shape` (height, width, channels): centre-cropped to its aspect, then resized. -> uint8."""
    height, width, channels = shape
    if len(content) > MAX_IMAGE_BYTES:
        raise UserError(f"{name}: {len(content)} bytes; expected an image of at most {MAX_IMAGE_BYTES}")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0].replace("<_io.BytesIO object at", "content at")
        raise UserError(f"{name}: not an image that can be read ({reason.split(' content at')[0]})") from None
    return np.asarray(fit_picture(picture, height, width), np.uint8).reshape(height, width, channels)

"""Images from files, folders and zips of CLASS/*.png, decoded one at a time."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_agent.console.exit_codes import UserError
from edge_agent.console.picture import FORMAT_NAMES, MAX_PIXELS, fit_picture, is_picture_name, open_picture, upright

MAX_IMAGE_BYTES = 50_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns before it refuses; ours, below, refuses at once


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """Name and class folder of an image that has not been read yet."""

    name: str
    class_name: str


class LabelledImages:
    """The test split of a data set: `PATH/test/CLASS/*` or `PATH/CLASS/*`, a folder or a zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise UserError(f"{path}: No such file or directory; expected a folder or zip of test/CLASS/*.png")
        self._zip = _opened_zip(path)
        if self._zip is None and not path.is_dir():
            raise UserError(f"{path}: neither a folder nor a zip; expected test/CLASS/*.png in one of them")
        names = [name for name in map(PurePosixPath, self._names()) if is_picture_name(name)]
        split = [name for name in names if len(name.parts) >= 3 and name.parts[-3] == "test"]
        chosen = split or [name for name in names if len(name.parts) >= 2 and "train" not in name.parts[:-2]]
        self.images = [LabelledImage(str(name), name.parts[-2]) for name in sorted(chosen, key=lambda n: n.parts[-2:])]
        if not self.images:
            self.close()
            raise UserError(f"{path}: no images; expected test/CLASS/*.png")

    def read(self, image: LabelledImage) -> bytes:
        """Content of the image's file."""
        try:
            if self._zip is not None:
                return self._zip.read(image.name)
            return (self.path / image.name).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path / image.name}: {error.strerror or error}") from None
        except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            # RuntimeError: encrypted, or packed by a method that zipfile does not know.
            raise UserError(f"{self.path}: {image.name}: {error}; expected a whole zip without password") from None

    def close(self) -> None:
        """Close the zip."""
        if self._zip is not None:
            self._zip.close()

    def _names(self) -> Iterator[str]:
        if self._zip is not None:
            yield from self._zip.namelist()
        else:
            yield from (str(file.relative_to(self.path)) for file in self.path.rglob("*") if file.is_file())


def _opened_zip(path: Path) -> zipfile.ZipFile | None:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path}: a damaged zip ({error})") from None


def _check_size(opened: Image.Image, name: str) -> None:
    if opened.width * opened.height > MAX_PIXELS:
        raise UserError(
            f"{name}: {opened.width} x {opened.height}; expected at most {MAX_PIXELS // 10**6} million pixels"
        )


def decode_image(content: bytes, shape: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    """Decode and fit to `shape` (height, width, channels): centre-cropped to its aspect, then resized. -> uint8."""
    height, width, channels = shape
    if len(content) > MAX_IMAGE_BYTES:
        raise UserError(f"{name}: {len(content)} bytes; expected an image of at most {MAX_IMAGE_BYTES}")
    try:
        with open_picture(content) as opened:
            _check_size(opened, name)
            picture = upright(opened).convert("RGB" if channels == 3 else "L")
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{name}: not an image that can be read; expected {FORMAT_NAMES}") from None
    except Exception as error:  # noqa: BLE001 (Pillow raises whatever broken bytes lead to)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{name}: not an image that can be read ({reason})") from None
    return np.asarray(fit_picture(picture, height, width), np.uint8).reshape(height, width, channels)

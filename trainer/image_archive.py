"""A folder or a zip file that holds SPLIT/CLASS/IMAGE."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.console.exit_codes import UserError
from edge_agent.console.picture import MAX_PIXELS, fit_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
GREY_MODES = {"1", "L", "I", "I;16", "F"}


@dataclass(frozen=True)
class ImageArchive:
    """Names of all images by (split, class), sorted; `zipped` is None for a folder."""

    path: Path
    names: dict[tuple[str, str], tuple[str, ...]]
    folders: frozenset[tuple[str, str]]
    zipped: zipfile.ZipFile | None

    @classmethod
    def open(cls, path: Path) -> "ImageArchive":
        """List the archive; UserError if there is no train/ and test/ in it."""
        if not path.exists():
            raise UserError(f"data set {path}: does not exist; expected a folder, a zip file, cifar10 or digits")
        zipped = None
        if path.is_dir():
            entries = [file.relative_to(path).as_posix() for file in path.glob("t*/*/*")]
            folders = [folder.relative_to(path).as_posix() for folder in path.glob("t*/*") if folder.is_dir()]
        else:
            zipped = _open_zip(path)
            entries = zipped.namelist()
            folders = [name.rstrip("/") for name in entries if name.endswith("/")]
        names: dict[tuple[str, str], list[str]] = {}
        for entry in entries:
            pure = PurePosixPath(entry)
            if len(pure.parts) == 3 and pure.suffix.lower() in SUFFIXES:
                names.setdefault((pure.parts[0], pure.parts[1]), []).append(entry)
        empty = {(p.parts[0], p.parts[1]) for p in map(PurePosixPath, folders) if len(p.parts) == 2}
        archive = cls(path, {key: tuple(sorted(v)) for key, v in names.items()}, frozenset(empty | set(names)), zipped)
        for split in ("train", "test"):
            if not archive.classes(split):
                raise UserError(f"data set {path}: no images in {split}/; expected {split}/CLASS/*.png")
        return archive

    def classes(self, split: str) -> tuple[str, ...]:
        """Class folders of a split in alphabetical order, empty ones included."""
        return tuple(sorted(name for part, name in self.folders if part == split))

    def files(self, split: str, class_name: str) -> tuple[str, ...]:
        """Image files of one class, sorted by name."""
        return self.names.get((split, class_name), ())

    def read(self, name: str) -> bytes:
        """Bytes of one file; a damaged zip entry gives bytes that are no image."""
        try:
            return self.zipped.read(name) if self.zipped else (self.path / name).read_bytes()
        except (OSError, zipfile.BadZipFile, EOFError):
            return b""


def decode_image(content: bytes, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
    """Pixels (height, width, 1 or 3), uint8, cut and scaled to `size` (height, width); None if it is no image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            converted = image.convert("L" if image.mode in GREY_MODES else "RGB")
            if size is not None:
                converted = fit_picture(converted, *size)
            pixels = np.asarray(converted, np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise UserError(f"data set {path}: neither a folder nor a readable zip file") from None

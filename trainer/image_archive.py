"""A folder or a zip file that holds SPLIT/CLASS/IMAGE."""

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.console.exit_codes import UserError
from edge_agent.console.picture import MAX_PIXELS, fit_picture, is_picture_name, open_picture, upright

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
GREY_MODES = {"1", "L"}


@dataclass(frozen=True)
class ImageArchive:
    """Names of all images by (split, class), sorted; `zipped` is None for a folder."""

    path: Path
    names: dict[tuple[str, str], tuple[str, ...]]
    folders: frozenset[tuple[str, str]]
    zipped: zipfile.ZipFile | None

    @classmethod
    def open(cls, path: Path) -> "ImageArchive":
        """List the archive; UserError if there is no train/ and test/ in it, or in its only folder."""
        if not path.exists():
            raise UserError(f"data set {path}: does not exist; expected a folder, a zip file, cifar10 or digits")
        zipped = None
        if path.is_dir():
            path = _inner_folder(path)
            entries = [file.relative_to(path).as_posix() for file in path.glob("t*/*/*")]
            folders = [folder.relative_to(path).as_posix() for folder in path.glob("t*/*") if folder.is_dir()]
        else:
            zipped = _open_zip(path)
            entries = zipped.namelist()
            folders = [name.rstrip("/") for name in entries if name.endswith("/")]
        outer = _outer_folder(entries) if zipped else ()
        names: dict[tuple[str, str], list[str]] = {}
        for entry in entries:
            parts = _inside(entry, outer)
            if len(parts) == 3 and is_picture_name(PurePosixPath(entry)):
                names.setdefault((parts[0], parts[1]), []).append(entry)
        empty = {(p[0], p[1]) for p in (_inside(folder, outer) for folder in folders) if len(p) == 2}
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
        with open_picture(content) as opened:
            image = upright(opened)
            converted = image.convert("L" if image.mode in GREY_MODES else "RGB")
            if size is not None:
                converted = fit_picture(converted, *size)
            pixels = np.asarray(converted, np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _inner_folder(path: Path) -> Path:
    """Whoever unpacks a zip often gets a folder in a folder."""
    inner = [folder.parent for folder in path.glob("*/train") if folder.is_dir()]
    return inner[0] if len(inner) == 1 and not (path / "train").is_dir() else path


def _outer_folder(entries: list[str]) -> tuple[str, ...]:
    """The folder around train/ and test/ that a file manager puts into a zip."""
    tops = {parts[0] for parts in (PurePosixPath(entry).parts for entry in entries) if parts[1:2] == ("train",)}
    has_train = any(entry.startswith("train/") for entry in entries)
    return tuple(tops) if len(tops) == 1 and not has_train else ()


def _inside(entry: str, outer: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of a path below `outer`; () for what lies beside it."""
    parts = PurePosixPath(entry).parts
    return parts[len(outer) :] if parts[: len(outer)] == outer else ()


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError):
        raise UserError(f"data set {path}: neither a folder nor a readable zip file") from None

"""A folder of picture files, in the order of their names."""

from pathlib import Path

from edge_agent.frame_sources.frame_source import Image, Shape, SourceError, fit
from edge_agent.frame_sources.pictures import decode_picture, encode_jpeg

# Those of console/picture.py, which needs Pillow.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".pgm", ".ppm"})


class ImageFolder:
    """Every picture once, or again and again; files that can't be read are passed over."""

    live = False

    def __init__(self, location: str, shape: Shape, repeat: bool) -> None:
        self._folder = Path(location)
        self._shape = shape
        self._repeat = repeat
        if not self._folder.is_dir():
            raise SourceError(f"{location}: expected a folder of pictures")
        self._waiting = self._files()
        if not self._waiting:
            raise SourceError(f"{location}: no pictures; expected files such as {', '.join(sorted(SUFFIXES)[:4])}")
        self._last: Image | None = None

    def read(self) -> Image | None:
        """The next picture, fitted."""
        if not self._waiting:
            if not self._repeat:
                return None
            self._waiting = self._files()
            if not self._waiting:
                raise SourceError(f"{self._folder}: the pictures are gone")
        path = self._waiting.pop()
        try:
            self._last = decode_picture(path.read_bytes(), str(path), 2 * max(self._shape[:2]))
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from None
        return fit(self._last, self._shape)

    def picture(self, width: int) -> bytes | None:
        """The last picture."""
        return encode_jpeg(self._last, width) if self._last is not None else None

    def close(self) -> None:
        """Nothing is open between two pictures."""

    def _files(self) -> list[Path]:
        return sorted((p for p in self._folder.rglob("*") if p.suffix.lower() in SUFFIXES), reverse=True)

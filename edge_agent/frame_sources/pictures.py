"""JPEG and PNG files to arrays and back, with Pillow, which only some sources need."""

import io
from typing import Any

import numpy as np

from edge_agent.frame_sources.frame_source import Image, SourceError

PILLOW_LINE = "pip install 'pillow>=10', or apt install python3-pil"
MAX_PIXELS = 50_000_000  # a larger one is an attack or a mistake, whatever its file size


def pillow() -> Any:
    """Pillow's Image module; SourceError with the line that installs it."""
    try:
        import PIL.Image
    except ImportError:
        raise SourceError(f"reading picture files needs Pillow: {PILLOW_LINE}") from None
    return PIL.Image


def decode_picture(content: bytes, name: str, smallest: int) -> Image:
    """Pixels of a picture file, RGB or grey; JPEG may come scaled down to not less than `smallest` pixels a side."""
    pil_image = pillow()
    from edge_agent.console.picture import open_picture, upright

    try:
        with open_picture(content) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise SourceError(f"{name}: {opened.width} x {opened.height} pixels; expected at most {MAX_PIXELS}")
            opened.draft("RGB", (smallest, smallest))
            picture = upright(opened)
            picture = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
            pixels = np.asarray(picture, np.uint8)
    except (OSError, ValueError, SyntaxError, pil_image.DecompressionBombError) as error:
        raise SourceError(f"{name}: not a picture that can be read ({str(error).splitlines()[0][:100]})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def encode_jpeg(image: Image, width: int, quality: int = 80) -> bytes:
    """A JPEG of `image` (height, width, 1 or 3 channels), not wider than `width`."""
    pil_image = pillow()
    picture = pil_image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if picture.width > width:
        picture = picture.resize((width, max(1, picture.height * width // picture.width)), reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()

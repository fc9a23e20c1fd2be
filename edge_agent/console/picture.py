"""How a picture of any size becomes a student's input: the same in training and in use."""

from PIL import Image

MAX_PIXELS = 50_000_000  # a larger picture is an attack or a mistake, whatever its file size


def fit_picture(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Cut the middle to the aspect of `height` x `width`, then scale; a picture that fits is returned as it is."""
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)

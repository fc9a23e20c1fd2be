"""Data sets and images: found, fitted, or refused with one line that names the file."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coordinator.labelled_images import LabelledImages, decode_image
from edge_agent.console.exit_codes import UserError
from edge_agent.console.picture import MAX_PIXELS, SUFFIXES
from edge_agent.frame_sources import image_folder
from edge_agent.frame_sources.pictures import decode_picture
from trainer.image_archive import decode_image as decode_for_training

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")


def encoded(image_format: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, image_format)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, name in (("train", "cat"), ("test", "cat"), ("test", "dog")):
        (tmp_path / "set" / split / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "set" / split / name / f"{number}.png").write_bytes(encoded("PNG"))
    (tmp_path / "set" / "test" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path / "set"


@pytest.fixture
def archive(folder: Path) -> Path:
    path = folder.parent / "set.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for file in sorted(folder.rglob("*.*")):
            zipped.write(file, file.relative_to(folder))
    return path


@pytest.fixture
def images(request: pytest.FixtureRequest) -> Iterator[LabelledImages]:
    opened = LabelledImages(request.getfixturevalue(request.param))
    yield opened
    opened.close()


@pytest.mark.parametrize("images", ["folder", "archive"], indirect=True)
def test_folder_and_zip_give_the_same_test_split(images: LabelledImages) -> None:
    assert [(image.name, image.class_name) for image in images.images] == [
        ("test/cat/0.png", "cat"), ("test/cat/1.png", "cat"), ("test/dog/0.png", "dog"), ("test/dog/1.png", "dog"),
    ]  # fmt: skip
    assert images.read(images.images[0]) == encoded("PNG")


def test_places_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test" / "cat").mkdir(parents=True)
    (tmp_path / "file.zip").write_bytes(b"PK but not really")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file.zip", tmp_path / "empty.zip"):
        with pytest.raises(UserError, match=str(path)) as caught:
            LabelledImages(path)
        assert "expected" in str(caught.value)


def test_a_damaged_zip_member_is_named(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    at = content.index(b"IDAT", content.index(b"test/cat/0.png"))
    content[at + 20] ^= 0xFF
    archive.write_bytes(content)
    opened = LabelledImages(archive)
    try:
        with pytest.raises(UserError, match=r"test/cat/0\.png: Bad CRC"):
            opened.read(opened.images[0])
    finally:
        opened.close()


def test_an_image_that_vanished_is_named(folder: Path) -> None:
    opened = LabelledImages(folder)
    (folder / "test/cat/0.png").unlink()
    with pytest.raises(UserError, match=r"cat/0\.png: No such file"):
        opened.read(opened.images[0])


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize(("size", "mode"), [((8, 8), "RGB"), ((31, 7), "L"), ((1, 1), "RGB"), ((300, 200), "L")])
@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 24, 3)])
def test_any_size_and_channels_are_fitted(
    image_format: str, size: tuple[int, int], mode: str, shape: tuple[int, int, int]
) -> None:
    image = decode_image(encoded(image_format, size, mode), shape, "x")
    assert image.shape == shape
    assert image.dtype == np.uint8


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(decode_image(buffer.getvalue(), (8, 8, 3), "x"), pixels)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1"])
def test_other_colour_modes_are_converted(mode: str) -> None:
    assert decode_image(encoded("PNG", mode=mode), (8, 8, 3), "x").shape == (8, 8, 3)


@pytest.mark.parametrize(
    "content", [b"", b"GIF", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"P6 1000000 1000000 255\n", b"text"]
)
def test_what_is_no_image_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^photo\.png: ") as caught:
        decode_image(content, (8, 8, 3), "photo.png")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("image_format", FORMATS)
def test_truncated_images_are_refused(image_format: str) -> None:
    content = encoded(image_format, (64, 64))
    for length in range(0, len(content) // 2, max(1, len(content) // 40)):
        with pytest.raises(UserError):
            decode_image(content[:length], (8, 8, 3), "x")


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=80)
def test_damaged_images_raise_only_user_errors(image_format: str, data: st.DataObject) -> None:
    content = bytearray(encoded(image_format, (16, 16)))
    for position in data.draw(st.lists(st.integers(0, min(len(content), 200) - 1), min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    with suppress(UserError):
        assert decode_image(bytes(content), (8, 8, 1), "x").shape == (8, 8, 1)


def as_everywhere(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as trainer, coordinator and agent decode it, which must be the same."""
    trained = decode_for_training(content, shape[:2])
    assert trained is not None
    answered = decode_image(content, shape, "x")
    seen = decode_picture(content, "x", 1024)
    assert np.array_equal(trained, answered)
    assert np.array_equal(seen, decode_image(content, seen.shape, "x"))
    return answered


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    deep = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    assert np.array_equal(as_everywhere(buffer.getvalue(), (16, 16, 1))[:, :, 0], deep >> 8)
    pgm = b"P5 16 16 65535\n" + deep.astype(">u2").tobytes()
    assert np.array_equal(as_everywhere(pgm, (16, 16, 1))[:, :, 0], deep >> 8)


def test_a_phone_held_upright_gives_an_upright_picture() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6] = 255
    turned = Image.fromarray(pixels)
    notes = turned.getexif()
    notes[0x0112] = 6  # orientation: turn by 90 degrees, clockwise
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=notes)
    assert np.array_equal(as_everywhere(buffer.getvalue(), (12, 8, 3)), np.rot90(pixels, -1))


def test_of_a_moving_picture_and_of_a_phones_two_the_first_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for image_format in ("GIF", "MPO"):
        buffer = io.BytesIO()
        frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
        red, _, blue = decode_image(buffer.getvalue(), (8, 8, 3), "x")[4, 4]
        assert red > 250 > 5 > blue


@pytest.mark.parametrize("image_format", ["TIFF", "ICO", "PCX"])
def test_formats_that_nobody_asked_for_are_refused(image_format: str) -> None:
    with pytest.raises(UserError, match="expected JPEG, PNG"):
        decode_image(encoded(image_format, (16, 16)), (8, 8, 3), "x")


def test_all_programs_take_the_same_endings() -> None:
    assert image_folder.SUFFIXES == SUFFIXES


def test_a_decompression_bomb_is_not_unpacked() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(UserError, match="pixels"):
        decode_image(buffer.getvalue(), (8, 8, 3), "x")

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.datasets import load_dataset, split_order


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def coloured(seed: int, size: tuple[int, int] = (9, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_folder(root: Path, per_class: int = 12, classes: tuple[str, ...] = ("bird", "cat")) -> Path:
    for split, count in (("train", per_class), ("test", 3)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03}.png").write_bytes(
                    png(coloured(1000 * label + number + 500 * (split == "test")))
                )
    return root


def test_folder_and_zip_give_the_same_arrays(tmp_path):
    root = write_folder(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(root).as_posix())
    from_folder, from_zip = load_dataset(str(root)), load_dataset(str(tmp_path / "set.zip"))
    assert from_folder.image_shape == (9, 7, 3)
    assert from_folder.classes == ("bird", "cat")
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(from_folder, split).images, getattr(from_zip, split).images)
        assert np.array_equal(getattr(from_folder, split).labels, getattr(from_zip, split).labels)


def test_validation_is_the_last_tenth_of_the_permuted_files(tmp_path):
    dataset = load_dataset(str(write_folder(tmp_path, per_class=20)))
    files = [coloured(1000 * label + number) for label in range(2) for number in range(20)]
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(dataset.validation.images, np.stack(files)[order[-4:]])
    assert np.array_equal(dataset.train.images, np.stack(files)[order[:-4]])
    assert np.array_equal(split_order(40, 0), order)


def test_digits_are_split_without_overlap_and_in_class_order():
    dataset = load_dataset("digits")
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [1293, 144, 360]
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.train.images.max() == 255
    assert np.all(np.diff(dataset.test.labels) >= 0)
    scaled = load_dataset("digits", image_size=(24, 32))
    assert scaled.image_shape == (24, 32, 1)
    np.testing.assert_array_equal(scaled.test.labels, dataset.test.labels)


def shrink_one(root: Path) -> None:
    (root / "train/cat/000.png").write_bytes(png(coloured(1, (5, 7))))


def empty_a_class(root: Path) -> None:
    for file in (root / "train/cat").iterdir():
        file.unlink()


def damage_a_class(root: Path) -> None:
    for file in (root / "train/cat").iterdir():
        file.write_bytes(b"no")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shrink_one, ["train/cat/000.png", "7x5", "--image-size"]),
        (empty_a_class, ["train/cat", "no image"]),
        (damage_a_class, ["12 of 24", "train/cat/000.png"]),
        (lambda root: (root / "test/dog").mkdir(), ["test/dog"]),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, words):
    root = write_folder(tmp_path / "set")
    change(root)
    with pytest.raises(UserError) as trouble:
        load_dataset(str(root))
    assert all(word in str(trouble.value) for word in words), str(trouble.value)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"1 class folder.*at least 2"):
        load_dataset(str(write_folder(tmp_path, classes=("cat",))))


def test_few_unreadable_images_are_skipped_and_listed(tmp_path):
    root = write_folder(tmp_path, per_class=60)
    (root / "train/bird/007.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    dataset = load_dataset(str(root))
    assert dataset.unreadable == ("train/bird/007.png",)
    assert len(dataset.train) + len(dataset.validation) == 119


def test_other_sizes_are_scaled_on_request(tmp_path):
    root = write_folder(tmp_path)
    (root / "train/cat/000.png").write_bytes(png(coloured(1, (50, 70))))
    assert load_dataset(str(root), image_size=(16, 12)).image_shape == (16, 12, 3)


def test_grey_images_stay_grey_and_mix_into_colour(tmp_path):
    root = write_folder(tmp_path)
    grey = np.full((9, 7), 77, np.uint8)
    (root / "test/cat/000.png").write_bytes(png(grey))
    test = load_dataset(str(root)).test
    assert np.array_equal(test.images[3], np.repeat(grey[..., None], 3, axis=2))
    for file in root.rglob("*.png"):
        file.write_bytes(png(grey))
    assert load_dataset(str(root)).image_shape == (9, 7, 1)


def test_one_coloured_image_makes_all_coloured(tmp_path):
    root = write_folder(tmp_path)
    grey = np.full((9, 7), 77, np.uint8)
    for file in root.rglob("*.png"):
        file.write_bytes(png(grey))
    (root / "train/cat/011.png").write_bytes(png(coloured(1)))
    dataset = load_dataset(str(root))
    assert dataset.image_shape == dataset.test.images.shape[1:] == (9, 7, 3)
    assert np.all(dataset.test.images == 77)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_folder_around_train_and_test_is_looked_into(tmp_path, zipped):
    root = write_folder(tmp_path / "outer/set")
    (root / "train/cat/._000.png").write_bytes(b"what macOS puts beside a picture")
    place = root.parent
    if zipped:
        place = tmp_path / "set.zip"
        with zipfile.ZipFile(place, "w") as archive:
            archive.mkdir("__MACOSX")
            for file in sorted(root.rglob("*.png")):
                archive.write(file, f"set/{file.relative_to(root)}")
                archive.writestr(f"__MACOSX/set/{file.relative_to(root).parent}/._{file.name}", b"notes")
    expected, found = load_dataset(str(root)), load_dataset(str(place))
    assert found.classes == expected.classes
    assert found.unreadable == ()
    for split in ("train", "validation", "test"):
        assert np.array_equal(getattr(found, split).images, getattr(expected, split).images)


def test_cifar10_needs_its_variable(monkeypatch):
    monkeypatch.delenv("NONN_CIFAR10", raising=False)
    with pytest.raises(UserError, match="NONN_CIFAR10 is not set") as trouble:
        load_dataset("cifar10")
    assert trouble.value.exit_code == ExitCode.CONFIGURATION


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_a_path_that_is_no_data_set_is_refused(tmp_path, content):
    path = tmp_path / "set.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"set\.zip"):
        load_dataset(str(path))

"""Labelled images as arrays: folders, zips, CIFAR-10 by its path, scikit-learn's digits."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.picture import FORMAT_NAMES, fit_picture
from trainer.image_archive import ImageArchive, decode_image

VALIDATION_SHARE = 0.1
DIGITS_TEST_IMAGES = 360  # a fifth of scikit-learn's 1,797
MAX_UNREADABLE_SHARE = 0.01


@dataclass(frozen=True)
class Split:
    """images: (n, height, width, channels), uint8; labels: (n,), int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64] | slice) -> "Split":
        """Return the images at `indices`."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class ImageDataset:
    """Three splits; whatever is chosen is chosen on validation, test is for `evaluate` alone."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    unreadable: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load_dataset(spec: str, image_size: tuple[int, int] | None = None, split_seed: int = 0) -> ImageDataset:
    """Read `digits`, `cifar10` (at $NONN_CIFAR10) or a folder or zip of train/CLASS/*.png and test/CLASS/*.png."""
    if spec == "digits":
        return _digits(image_size, split_seed)
    if spec == "cifar10":
        location = os.environ.get("NONN_CIFAR10")
        if not location:
            raise UserError(
                "data set cifar10: NONN_CIFAR10 is not set; "
                "expected the folder or zip with train/CLASS/*.png and test/CLASS/*.png",
                ExitCode.CONFIGURATION,
            )
        return _from_archive("cifar10", Path(location), image_size, split_seed)
    return _from_archive(Path(spec).stem, Path(spec), image_size, split_seed)


def split_order(images: int, seed: int) -> NDArray[np.int64]:
    """Order of the training files; its last tenth is the validation split.

    >>> split_order(4, seed=0).tolist()
    [2, 0, 1, 3]
    """
    return np.random.default_rng(seed).permutation(images)


def _from_archive(name: str, path: Path, image_size: tuple[int, int] | None, seed: int) -> ImageDataset:
    archive = ImageArchive.open(path)
    classes = archive.classes("train")
    if len(classes) < 2:
        raise UserError(f"{path}: {len(classes)} class folder(s) in train/, expected at least 2")
    unknown = sorted(set(archive.classes("test")) - set(classes))
    if unknown:
        raise UserError(f"{path}: test/{unknown[0]} has no folder of that name in train/")
    unreadable: list[str] = []
    reader = _Reader(archive, classes, image_size, unreadable)
    decoded = [reader.read(split) for split in ("train", "test")]
    training, test = (_stacked(images, labels, reader.channels) for images, labels in decoded)
    order = split_order(len(training), seed)
    held_out = max(len(classes), round(len(training) * VALIDATION_SHARE))
    if len(training) <= held_out:
        raise UserError(f"{path}: {len(training)} training images are too few for {len(classes)} classes")
    return ImageDataset(
        name, classes, training.take(order[:-held_out]), training.take(order[-held_out:]), test, tuple(unreadable)
    )


@dataclass
class _Reader:
    """Decodes one split after the other; the first image fixes the size of all, one in colour their channels."""

    archive: ImageArchive
    classes: tuple[str, ...]
    image_size: tuple[int, int] | None
    unreadable: list[str]
    size: tuple[int, int] | None = None
    channels: int = 1

    def read(self, split: str) -> tuple[list[NDArray[np.uint8]], list[int]]:
        """Images (height, width, 1 or 3) and their labels."""
        images, labels, bad = [], [], []
        for label, class_name in enumerate(self.classes):
            names = self.archive.files(split, class_name)
            if not names:
                raise UserError(f"{self.archive.path}: {split}/{class_name} holds no image ({FORMAT_NAMES})")
            for name in names:
                image = decode_image(self.archive.read(name), self.image_size)
                if image is None:
                    bad.append(name)
                    continue
                images.append(self._checked(image, name))
                labels.append(label)
        self._check_share(split, bad, len(images) + len(bad))
        return images, labels

    def _checked(self, image: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        height, width, channels = image.shape
        self.size = self.size or (height, width)
        if (height, width) != self.size:
            raise UserError(
                f"{self.archive.path}: {name} is {width}x{height}, the first image {self.size[1]}x{self.size[0]}; "
                "expected --image-size H,W to scale all, such as --image-size 32,32"
            )
        self.channels = max(self.channels, channels)
        return image

    def _check_share(self, split: str, bad: list[str], total: int) -> None:
        self.unreadable.extend(bad)
        if len(bad) > MAX_UNREADABLE_SHARE * total:
            raise UserError(
                f"{self.archive.path}: {len(bad)} of {total} images in {split}/ can't be read (limit 1 %), "
                f"among them {', '.join(bad[:3])}"
            )


def _stacked(images: list[NDArray[np.uint8]], labels: list[int], channels: int) -> Split:
    """Grey images among coloured ones become three equal channels."""
    alike = [image if image.shape[2] == channels else np.repeat(image, channels, axis=2) for image in images]
    return Split(np.stack(alike), np.array(labels, np.int64))


def _digits(image_size: tuple[int, int] | None, seed: int) -> ImageDataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError(
            "data set digits: scikit-learn is not installed; expected pip install scikit-learn", ExitCode.UNAVAILABLE
        ) from None
    scans = load_digits()
    pictures = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    height, width = image_size or pictures.shape[1:]
    images = np.stack([np.asarray(fit_picture(Image.fromarray(one), height, width)) for one in pictures])[..., None]
    labels = scans.target.astype(np.int64)
    shuffled = split_order(len(labels), seed)
    test, training = np.sort(shuffled[-DIGITS_TEST_IMAGES:]), shuffled[:-DIGITS_TEST_IMAGES]
    test = test[np.argsort(labels[test], kind="stable")]  # by class, the order that the same images have as files
    validation = round(len(training) * VALIDATION_SHARE)
    whole = Split(images, labels)
    return ImageDataset(
        "digits",
        tuple(str(digit) for digit in scans.target_names),
        whole.take(training[:-validation]),
        whole.take(training[-validation:]),
        whole.take(test),
    )

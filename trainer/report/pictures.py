"""Bitmaps for the page: the F matrix ordered by partition, and the images that each partition likes most."""

import base64
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.console.exit_codes import UserError
from trainer.datasets import load_dataset
from trainer.filter_graph import normalise_activations
from trainer.partition import Partition
from trainer.report.facts import RunFacts
from trainer.report.palette import rgb, student_colour

GREY = (128, 128, 128)
MATRIX_PIXELS = 512  # enough for one pixel per filter of a VGG
LIKED_PER_STUDENT = 18
LIKED_IN_ALL = 120  # so that many students do not make a page of many megabytes
THUMBNAIL_PIXELS = 96


@dataclass(frozen=True)
class LikedImage:
    """An image as a data URI, its class, and the share of its activity that falls into the partition."""

    uri: str
    label: str
    share: float


def matrix_picture(matrix: NDArray[np.float64], partition: Partition) -> str:
    """F as a data URI: filters by student, strongest first; a student's own block in its colour, the rest grey.

    Weight is opacity (square root of F / its 99.5th percentile), so the picture works on any background.
    """
    degrees = matrix.sum(axis=1)
    order = np.concatenate([sorted(part, key=lambda f: -degrees[f]) for part in partition.filters]).astype(np.intp)
    student_of = np.array(partition.student_of)[order]
    ordered = matrix[np.ix_(order, order)]
    positive = ordered[ordered > 0]
    top = float(np.percentile(positive, 99.5)) if positive.size else 1.0
    opacity = np.sqrt(np.clip(ordered / top, 0, 1))
    colours = np.array([rgb(student_colour(s)) for s in range(partition.students)], np.uint8)
    same = student_of[:, None] == student_of[None, :]
    pixels = np.empty((*ordered.shape, 4), np.uint8)
    pixels[..., :3] = np.where(same[..., None], colours[student_of][:, None, :], np.array(GREY, np.uint8))
    pixels[..., 3] = np.round(opacity * 255)
    picture = Image.fromarray(pixels, "RGBA")
    if len(matrix) < MATRIX_PIXELS // 2:
        scale = MATRIX_PIXELS // len(matrix)
        picture = picture.resize((len(matrix) * scale,) * 2, Image.Resampling.NEAREST)
    return data_uri(picture)


def data_uri(picture: Image.Image) -> str:
    """PNG inlined."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def liked_images(facts: RunFacts) -> tuple[list[list[LikedImage]], str]:
    """Per student its favourite validation images, or nothing and the reason."""
    if facts.partition is None:
        return [], "the filters are not partitioned yet"
    activations = validation_activations(facts.path / "activations")
    if activations is None:
        return [], "the teacher's validation activities are missing"
    settings = facts.configuration
    size = settings.get("image_size")
    try:
        dataset = load_dataset(
            str(settings.get("dataset")), tuple(size) if size else None, settings.get("split_seed", 0)
        )
    except UserError as error:
        return [], str(error)
    facts.classes = facts.classes or dataset.classes
    if len(dataset.validation) != len(activations) or activations.shape[1] != len(facts.partition.student_of):
        return [], "the data set has changed since the teacher saw it"
    return favourites(activations, facts.partition, dataset.validation, dataset.classes), ""


def favourites(
    activations: NDArray[np.floating], partition: Partition, split: Any, classes: tuple[str, ...]
) -> list[list[LikedImage]]:
    """Images of which the largest share of activity falls to each student; no class more than a third of them."""
    shares = partition_shares(activations, partition)
    count = max(4, min(LIKED_PER_STUDENT, LIKED_IN_ALL // partition.students))
    chosen = []
    for student in range(partition.students):
        taken: dict[int, int] = {}
        picked: list[LikedImage] = []
        for index in np.argsort(-shares[:, student], kind="stable"):
            label = int(split.labels[index])
            if len(picked) == count:
                break
            if taken.get(label, 0) < max(1, -(-count // 3)):
                taken[label] = taken.get(label, 0) + 1
                picked.append(LikedImage(thumbnail(split.images[index]), classes[label], float(shares[index, student])))
        chosen.append(picked)
    return chosen


def partition_shares(activations: NDArray[np.floating], partition: Partition) -> NDArray[np.float64]:
    """Share of each image's activity per student, (images, students); zero for an image without activity.

    >>> from trainer.partition import partition_filters
    >>> halves = partition_filters(np.zeros((2, 2)), 2, "contiguous")
    >>> partition_shares(np.array([[4.0, 4.0], [0.0, 0.0]]), halves).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    activity = normalise_activations(activations).astype(np.float64)
    sums = np.stack([activity[:, list(part)].sum(axis=1) for part in partition.filters], axis=1)
    total = sums.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    return shares


def thumbnail(image: NDArray[np.uint8]) -> str:
    """An image (height, width, channels), uint8, as a data URI of at most 96 pixels a side."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return data_uri(picture)


def validation_activations(folder: Path) -> NDArray[np.float32] | None:
    """The teacher's validation activities, (images, filters), from its shards; None unless all can be read."""
    files = sorted(folder.glob("validation-*.npz"))
    parts = []
    for file in files:
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                parts.append(arrays["activities"].astype(np.float32))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
    return np.concatenate(parts) if parts else None

"""The held-out images as files, and the offline answers in the files' order."""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.datasets import ImageDataset
from trainer.npz_file import read_arrays, write_arrays


def write_heldout(dataset: ImageDataset, answers: Path, archive: Path, expected: Path) -> int:
    """Write test images to `archive` (zip of test/CLASS/*.png), `answers` reordered to `expected`; return their number.

    answers: .npz of p<mask>: (images, classes), float32, in the data set's order.
    """
    order = np.argsort(dataset.test.labels, kind="stable")
    with zipfile.ZipFile(archive, "w") as file:
        for index in order:
            name = f"test/{dataset.classes[dataset.test.labels[index]]}/{index:05}.png"
            file.writestr(name, _png(dataset.test.images[index]))
    arrays = read_arrays(answers)
    write_arrays(expected, **{name: array[order] for name, array in arrays.items() if name.startswith("p")})
    return len(order)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()

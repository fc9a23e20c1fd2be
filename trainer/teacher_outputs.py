"""The teacher's answers to a fixed set of images, computed once and kept in shards."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.exit_codes import UserError
from trainer.litert_batches import pooled_and_logits
from trainer.npz_file import read_arrays, write_arrays
from trainer.teacher_model import Teacher
from trainer.tflite_conversion import convert_float_network
from trainer.worker_pool import open_pool

SHARD_IMAGES = 2_500  # about 15 s of a WRN-40-4: what a kill can cost
KERAS_BATCH = 128
AUTO_LIMIT_S = 60.0  # a conversion and a second process pay only beyond this
PARITY_IMAGES = 256
MIN_AGREEMENT = 0.99  # of the quantised teacher's classes with Keras; WRN-40-4 reaches 1.0


@dataclass(frozen=True)
class Outputs:
    """activities: (n, filters), float16, >= 0; logits: (n, classes), float16."""

    activities: NDArray[np.float16]
    logits: NDArray[np.float16]


Run = Callable[[NDArray[np.uint8]], Outputs]
Progress = Callable[[int], None]
ImageRange = Callable[[int, int], NDArray[np.uint8]]


def run_with_keras(teacher: Teacher, images: NDArray[np.uint8]) -> Outputs:
    """Outputs in float32 by TensorFlow. images: (n, height, width, channels), uint8."""
    import tensorflow as tf

    forward = tf.function(lambda pixels: teacher.network(pixels, training=False), reduce_retracing=True)
    parts = [
        [np.asarray(part, np.float16) for part in forward(tf.cast(images[start : start + KERAS_BATCH], tf.float32))]
        for start in range(0, len(images), KERAS_BATCH)
    ]
    return Outputs(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


@contextmanager
def teacher_runner(
    teacher: Teacher, engine: str, sample: NDArray[np.uint8], total_images: int, folder: Path, workers: int
) -> Iterator[tuple["Runner", dict[str, object]]]:
    """Choose an engine, check it against Keras on `sample`, and give back what runs it and how it was chosen."""
    sample = sample[:PARITY_IMAGES]
    local: Run = lambda images: run_with_keras(teacher, images)  # noqa: E731
    run_with_keras(teacher, sample[:KERAS_BATCH])
    started = time.perf_counter()
    expected = run_with_keras(teacher, sample)
    keras_rate = len(sample) / (time.perf_counter() - started)
    chosen: dict[str, object] = {"engine": "keras", "keras_images_per_s": round(keras_rate, 1)}
    if engine == "keras" or (engine == "auto" and total_images / keras_rate < AUTO_LIMIT_S):
        yield Runner(local, None, None), chosen
        return
    artifact = folder / "teacher.dynamic.tflite"
    if not artifact.exists():
        convert_float_network(teacher.network, sample.shape[1:], "dynamic", artifact)
    chosen["engine"] = "tflite"
    chosen["agreement"] = agreement = _agreement(artifact, sample, expected, teacher.filters)
    if agreement < MIN_AGREEMENT:
        if engine == "tflite":
            raise UserError(f"teacher: the tflite engine agrees with Keras on {agreement:.1%} of images; use keras")
        yield Runner(local, None, None), {**chosen, "engine": "keras"}
        return
    with open_pool(workers) as pool:
        try:
            yield Runner(local, pool, (artifact, teacher.filters)), chosen
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class Runner:
    """Runs the teacher here (`local`) or in the processes of `pool`."""

    local: Run
    pool: ProcessPoolExecutor | None
    artifact: tuple[Path, int] | None

    def fill_shards(self, folder: Path, name: str, images: int, cut: ImageRange, progress: Progress) -> None:
        """Compute the shards of `name` that are not on disk yet. cut(start, stop) gives the images, uint8."""
        waiting: dict[Future[tuple[NDArray[np.float16], NDArray[np.float16]]], tuple[Path, int]] = {}
        for file, start, stop in shard_files(folder, name, images):
            if file.exists():
                progress(stop - start)
                continue
            if self.pool is None or self.artifact is None:
                outputs = self.local(cut(start, stop))
                write_arrays(file, activities=outputs.activities, logits=outputs.logits)
                progress(stop - start)
                continue
            while len(waiting) >= 4:  # two in work, two ready: shards of images are not piled up in memory
                _store_finished(waiting, progress)
            future = self.pool.submit(pooled_and_logits, *self.artifact, cut(start, stop))
            waiting[future] = file, stop - start
        while waiting:
            _store_finished(waiting, progress)


def _store_finished(
    waiting: dict[Future[tuple[NDArray[np.float16], NDArray[np.float16]]], tuple[Path, int]], progress: Progress
) -> None:
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        file, count = waiting.pop(future)
        activities, logits = future.result()
        write_arrays(file, activities=activities, logits=logits)
        progress(count)


def shard_files(folder: Path, name: str, images: int) -> Iterator[tuple[Path, int, int]]:
    """File, first and end image of every shard of `name`."""
    for number, start in enumerate(range(0, images, SHARD_IMAGES)):
        yield folder / f"{name}-{number:04d}.npz", start, min(start + SHARD_IMAGES, images)


def read_outputs(folder: Path, name: str, images: int) -> Outputs:
    """Join the shards of `name`; UserError names the one that is missing or damaged."""
    shards = [read_arrays(file) for file, _, _ in shard_files(folder, name, images)]
    joined = Outputs(
        np.concatenate([shard["activities"] for shard in shards]), np.concatenate([shard["logits"] for shard in shards])
    )
    if len(joined.logits) != images:
        raise UserError(f"{folder}: {name} holds {len(joined.logits)} answers, expected {images}; delete the folder")
    return joined


def _agreement(artifact: Path, sample: NDArray[np.uint8], expected: Outputs, filters: int) -> float:
    _, logits = pooled_and_logits(artifact, filters, sample)
    return float(np.mean(logits.argmax(1) == expected.logits.argmax(1)))

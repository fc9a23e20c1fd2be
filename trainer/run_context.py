"""What the stages of one run share: its directory, and its data set once it has been read."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.progress import say
from trainer.run_directory import RunDirectory

if TYPE_CHECKING:
    from trainer.datasets import ImageDataset


@dataclass
class RunContext:
    """`threads`: CPU threads to use, 0 for all."""

    run: RunDirectory
    threads: int = 0
    strategy: Any = None  # of tf.distribute, for the training of students

    @cached_property
    def dataset(self) -> "ImageDataset":
        """The data set, read once per program."""
        from trainer.datasets import load_dataset

        settings = self.run.configuration
        dataset = load_dataset(settings.dataset, settings.image_size, settings.split_seed)
        for name in dataset.unreadable:
            say(f"skipped {name}: not a readable image")
        return dataset

    @property
    def workers(self) -> int:
        """CPU cores to fill with single-threaded work."""
        return self.threads or os.cpu_count() or 1


def quiet_tensorflow(within: int = 0, beside: int = 0) -> None:
    """Import TensorFlow without chatter; threads `within` an operation, operations `beside` each other (0: all)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        with contextlib.suppress(RuntimeError):  # already started, in a program that runs many stages
            tf.config.threading.set_intra_op_parallelism_threads(within)
            tf.config.threading.set_inter_op_parallelism_threads(beside)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """C++ libraries write to descriptor 2 themselves; what Python raises still comes through."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

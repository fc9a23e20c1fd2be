"""Curves for TensorBoard (`tensorboard --logdir RUN`), written by TensorFlow itself."""

from pathlib import Path
from types import TracebackType
from typing import Self

import tensorflow as tf


class CurveLog:
    """One scalar per value and pass."""

    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, entry: dict[str, float]) -> None:
        """Write the values of one pass."""
        # tf.summary.scalar would need the tensorboard package; only who looks at the curves must have that.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class=1,  # DATA_CLASS_SCALAR of tensorflow/core/framework/summary.proto
        )
        with self._writer.as_default():
            for name, value in entry.items():
                if name != "pass":
                    tf.summary.write(name, tf.constant(value, tf.float32), int(entry["pass"]), metadata)
        self._writer.flush()

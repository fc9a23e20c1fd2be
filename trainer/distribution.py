"""More than one processor or machine: tf.distribute strategies, each worker taking its share of every batch."""

import json
import os
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from edge_agent.console.exit_codes import ExitCode, UserError

Distribution = Literal["none", "mirrored", "multiworker"]


def open_strategy(distribution: Distribution) -> Any:
    """Open it before any other TensorFlow work; `multiworker` reads TF_CONFIG, UserError if that is no cluster."""
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy(_logical_devices())
    if distribution == "multiworker":
        _check_cluster(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: Any) -> bool:
    """Tell whether this process is the one that validates and writes."""
    resolver = getattr(strategy, "cluster_resolver", None)
    return resolver is None or resolver.task_id in (None, 0)


def share(strategy: Any, tensors: Sequence[Any]) -> tuple[Any, ...]:
    """Split every tensor of a global batch along its first axis, one equal part per replica."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return tuple(tf.constant(tensor) for tensor in tensors)
    rows = len(tensors[0]) // replicas

    def part(tensor: Any) -> Any:
        def rows_of(context: Any) -> Any:
            start = context.replica_id_in_sync_group * rows
            return tf.constant(tensor[start : start + rows])

        return strategy.experimental_distribute_values_from_function(rows_of)

    return tuple(part(tensor) for tensor in tensors)


def check_batch(strategy: Any, batch: int) -> None:
    """UserError unless the batch can be shared evenly."""
    replicas = strategy.num_replicas_in_sync
    if batch % replicas:
        raise UserError(
            f"batch {batch} can't be shared evenly among {replicas} replicas; expected a multiple of {replicas}",
            ExitCode.CONFIGURATION,
        )


def _logical_devices() -> list[str]:
    """All GPUs; without one, two logical CPUs, which show that it works and gain nothing."""
    if tf.config.list_physical_devices(
        "GPU"
    ):  # asking for logical ones would start the context, too early for what follows
        return [device.name for device in tf.config.list_logical_devices("GPU")]
    cpu = tf.config.list_physical_devices("CPU")[0]
    if not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _check_cluster(text: str) -> None:
    try:
        content = json.loads(text)
        own_address = content["cluster"]["worker"][int(content["task"]["index"])]
        int(own_address.rpartition(":")[2])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG: {error}; expected "
            '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}',
            ExitCode.CONFIGURATION,
        ) from None

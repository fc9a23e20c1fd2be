"""Stage `partition`: validation activities -> filter graph -> balanced communities."""

import time
from typing import Any

import numpy as np

from trainer.filter_graph import filter_activation_matrix, normalise_activations
from trainer.npz_file import write_arrays
from trainer.partition import Partition, partition_filters
from trainer.run_context import RunContext
from trainer.run_directory import read_json, write_json
from trainer.stages.activations import validation_outputs


def run(context: RunContext) -> dict[str, Any]:
    """Write partition.json and graph.npz (F matrix, activity per class and filter)."""
    settings, stage = context.run.configuration, context.run.stage("partition")
    before = context.run.stage("activations").results()
    stage.claim({
        "students": settings.students, "partition": settings.partition, "top_k": settings.top_k,
        "seed": settings.seed, "filters": before["filters"], "teacher_validation": before["validation_accuracy"],
    })  # fmt: skip
    if stage.finished:
        return stage.results()
    started = time.perf_counter()
    activities = normalise_activations(validation_outputs(context).activities.astype(np.float32), settings.top_k)
    labels = context.dataset.validation.labels
    by_class = np.stack([
        activities[labels == label].mean(axis=0) if np.any(labels == label) else np.zeros(activities.shape[1])
        for label in range(len(context.dataset.classes))
    ])  # fmt: skip
    matrix = filter_activation_matrix(activities)
    partition = partition_filters(matrix, settings.students, settings.partition, settings.seed, by_class)
    write_arrays(stage.folder / "graph.npz", matrix=matrix, activity=by_class.astype(np.float32))
    write_json(stage.folder / "partition.json", partition.to_dict())
    results = {
        "sizes": list(partition.sizes), "modularity": partition.modularity, "balance": partition.balance,
        "communities": partition.communities, "note": partition.note,
    }  # fmt: skip
    stage.finish(results, time.perf_counter() - started)
    return results


def read_partition(context: RunContext) -> Partition:
    """Return the partition that the stage wrote."""
    context.run.stage("partition").results()
    return Partition.from_dict(read_json(context.run.path / "partition" / "partition.json"))

"""The manifest of an export, and the small files that it lists."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import write_atomically
from edge_agent.protocol.filter_edges import encode_edges
from edge_agent.protocol.manifest import Artifact, Codec, Golden, InputShape, Manifest, Student, file_entry
from trainer.artifacts import ExportedStudent
from trainer.filter_graph import load_filter_graph, strongest_edges
from trainer.golden import golden_image, golden_tolerance
from trainer.litert_batches import features_of
from trainer.network_cost import network_cost
from trainer.run_context import RunContext
from trainer.stages.export_files import Exported
from trainer.stages.partition import read_partition
from trainer.tvm_export.outcome import CompiledStudent, ExportedModules


def make_manifest(
    context: RunContext, folder: Path, exported: Exported,
    modules: list[ExportedModules], codecs: list[Codec], accuracies: dict[int, float],
) -> Manifest:  # fmt: skip
    """Describe what lies in `folder`, head included, and write the golden input and the graph beside it."""
    settings, dataset = context.run.configuration, context.dataset
    partition, before = read_partition(context), context.run.stage("activations").results()
    pixels = golden_image(dataset.image_shape, settings.seed)
    write_atomically(folder / "golden-input.bin", pixels.tobytes())
    edges = encode_edges(strongest_edges(load_filter_graph(context.run.path / "partition" / "graph.npz")[0]))
    write_atomically(folder / "graph.json", edges)
    height, width, channels = dataset.image_shape
    students = tuple(
        _student(
            index, settings.student_networks()[index], partition.filters[index], *pair,
            modules[index].compiled if modules else (), codecs[index], pixels,
        )
        for index, pair in enumerate(exported)
    )  # fmt: skip
    return Manifest(
        schema=Manifest.schema_for(students),
        name=settings.name,
        version=settings.version,
        created=datetime.now(UTC).replace(microsecond=0),
        teacher=Path(settings.teacher).stem,
        classes=dataset.classes,
        input=InputShape.model_validate({"height": height, "width": width, "channels": channels}),
        filters=before["filters"],
        students=students,
        head=file_entry(PurePosixPath("head.npz"), (folder / "head.npz").read_bytes()),
        golden_input=file_entry(PurePosixPath("golden-input.bin"), pixels.tobytes()),
        graph=file_entry(PurePosixPath("graph.json"), edges),
        metrics={
            "validation_accuracy": accuracies[(1 << settings.students) - 1],
            "teacher_validation_accuracy": before["validation_accuracy"],
            "teacher_parameters": before["parameters"],
        },
    )


def _student(
    index: int, network: str, filters: tuple[int, ...], student: Any, files: list[ExportedStudent],
    compiled: Sequence[CompiledStudent], codec: Codec, pixels: NDArray[np.uint8],
) -> Student:  # fmt: skip
    golden = np.asarray(student(pixels[None].astype(np.float32), training=False))[0]
    answers = [features_of(file.path, pixels[None]).real()[0] for file in files]
    steps = [file.feature_step for file in files if file.feature_step is not None]
    return Student(
        index=index,
        network=network,
        filters=filters,
        width=len(filters),
        parameters=sum(int(np.prod(w.shape)) for w in student.trainable_weights),
        macs=network_cost(student).macs,
        artifacts=(*(_artifact(file) for file in files), *(_compiled_artifact(module) for module in compiled)),
        codec=codec,
        golden=Golden(
            features=tuple(float(value) for value in golden), tolerance=golden_tolerance(golden, answers, steps)
        ),
    )


def _artifact(file: ExportedStudent) -> Artifact:
    entry = file_entry(PurePosixPath(file.path.name), file.path.read_bytes())
    return Artifact.model_validate({**entry.model_dump(), "engine": "tflite", "precision": file.precision})


def _compiled_artifact(module: CompiledStudent) -> Artifact:
    entry = file_entry(PurePosixPath(module.path.name), module.path.read_bytes())
    return Artifact.model_validate({
        **entry.model_dump(), "engine": "tvm", "precision": "float32", "target": module.target,
        "engine_version": module.engine_version,
    })  # fmt: skip

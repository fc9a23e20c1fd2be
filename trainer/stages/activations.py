"""Stage `activations`: the teacher's outputs for every augmented view and for the validation split."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from trainer.augmentation import AugmentedViews
from trainer.progress import progress_bar, say
from trainer.run_context import RunContext
from trainer.run_directory import file_hash
from trainer.stages.teacher import teacher_file
from trainer.teacher_model import load_teacher
from trainer.teacher_outputs import Outputs, read_outputs, teacher_runner


def view_plan(context: RunContext) -> AugmentedViews:
    """Return the run's augmented views: the same for teacher and students."""
    settings = context.run.configuration
    pad = min(settings.crop_pad, min(context.dataset.image_shape[:2]) - 1)
    return AugmentedViews.draw(settings.views, len(context.dataset.train), pad, settings.flip, settings.view_seed)


def run(context: RunContext) -> dict[str, Any]:
    """Fill the shards that are missing; returns the stage's results."""
    settings, stage = context.run.configuration, context.run.stage("activations")
    file = teacher_file(context)
    stage.claim({
        "teacher": file_hash(file), "lconv": settings.lconv, "dataset": settings.dataset,
        "train_images": len(context.dataset.train), "views": settings.views, "crop_pad": settings.crop_pad,
        "flip": settings.flip, "seed": settings.view_seed, "split_seed": settings.split_seed,
    })  # fmt: skip
    if stage.finished:
        return stage.results()
    started = time.perf_counter()
    teacher = load_teacher(file, settings.lconv, context.dataset.image_shape)
    dataset, plan = context.dataset, view_plan(context)
    total = settings.views * len(dataset.train) + len(dataset.validation)
    engine = settings.teacher_engine
    with (
        teacher_runner(teacher, engine, dataset.validation.images, total, stage.folder, context.workers) as (
            runner,
            chosen,
        ),
        progress_bar("teacher outputs", total) as advance,
    ):
        say(f"teacher outputs: {total} images with {chosen['engine']}")
        report = lambda count: advance(count, "")  # noqa: E731
        validation = dataset.validation.images
        runner.fill_shards(stage.folder, "validation", len(validation), lambda a, b: validation[a:b], report)
        for view in range(settings.views):
            cut = lambda a, b, v=view: plan.cut(dataset.train.images, v, np.arange(a, b))  # noqa: E731
            runner.fill_shards(stage.folder, f"view{view}", len(dataset.train), cut, report)
    answers = validation_outputs(context)
    accuracy = float(np.mean(answers.logits.argmax(1) == dataset.validation.labels))
    results = {
        **chosen, "lconv": teacher.lconv, "filters": teacher.filters, "parameters": teacher.parameters,
        "validation_accuracy": accuracy, "images": total,
    }  # fmt: skip
    stage.finish(results, time.perf_counter() - started)
    return results


def validation_outputs(context: RunContext) -> Outputs:
    """Teacher outputs for the validation split."""
    return read_outputs(_folder(context), "validation", len(context.dataset.validation))


def training_outputs(context: RunContext) -> list[Outputs]:
    """Teacher outputs for the training split, one entry per view."""
    views = range(context.run.configuration.views)
    return [read_outputs(_folder(context), f"view{view}", len(context.dataset.train)) for view in views]


def _folder(context: RunContext) -> Path:
    return context.run.path / "activations"

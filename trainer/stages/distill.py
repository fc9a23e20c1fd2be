"""Stage `distill`: train the joint network of K students against the cached teacher."""

from typing import Any

import keras
import tensorflow as tf

from trainer.distillation import BatchMaker, DistillationStep, Validator
from trainer.distribution import check_batch, is_chief
from trainer.progress import say
from trainer.run_context import RunContext
from trainer.run_directory import Stage, write_json
from trainer.stages.activations import training_outputs, view_plan
from trainer.stages.partition import read_partition
from trainer.student_network import JointPlan, build_joint, pixel_statistics
from trainer.training_curves import CurveLog
from trainer.training_loop import LoopPlan, train

TRAINING_KEYS = (
    "seed", "student", "students", "passes", "small_passes", "batch", "rate", "weight_decay", "temperature",
    "label_weight", "transfer_weight", "failout", "bfloat16", "views", "crop_pad", "flip",
)  # fmt: skip


def joint_plan(context: RunContext) -> JointPlan:
    """What the joint network of this run looks like."""
    mean, deviation = pixel_statistics(context.dataset.train.images)
    return JointPlan(
        context.run.configuration.student_networks(),
        read_partition(context).sizes,
        context.dataset.image_shape,
        len(context.dataset.classes),
        mean,
        deviation,
    )


def run(context: RunContext) -> dict[str, Any]:
    """Train or go on training; writes joint.weights.h5 and history.json."""
    settings, stage = context.run.configuration, context.run.stage("distill")
    partition = read_partition(context)
    content = settings.model_dump(mode="json")
    stage.claim({**{key: content[key] for key in TRAINING_KEYS}, "partition": [list(p) for p in partition.filters]})
    if stage.finished:
        return stage.results()
    return _train(context, stage, [list(part) for part in partition.filters])


def _train(context: RunContext, stage: Stage, partitions: list[list[int]]) -> dict[str, Any]:
    settings = context.run.configuration
    strategy = context.strategy or tf.distribute.get_strategy()
    check_batch(strategy, settings.batch)
    keras.utils.set_random_seed(settings.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if settings.bfloat16 else "float32")
    try:
        with strategy.scope():
            joint = build_joint(joint_plan(context), any_size=settings.small_passes > 0)
            step = DistillationStep(joint, partitions, settings, strategy)
    finally:
        keras.config.set_dtype_policy("float32")
    batches = BatchMaker(context.dataset.train, view_plan(context), training_outputs(context), settings)
    validator = Validator(joint, context.dataset.validation)
    say(f"distill: {settings.passes} passes of {batches.steps_per_pass} steps, {joint.count_params()} parameters")
    with CurveLog(stage.folder / "logs") as curves:
        plan = LoopPlan(
            "distill", settings.passes, batches.steps_per_pass, batches,
            lambda batch, number: step(batch, number, batches.steps_per_pass),
            validator, step.variables, stage.folder, is_chief(strategy),
        )  # fmt: skip
        state = train(plan, curves.add)
    results = {"passes": settings.passes, "steps": state.step, **state.history[-1]}
    if plan.writes:
        joint.save_weights(stage.folder / "joint.weights.h5")
        write_json(stage.folder / "history.json", state.history)
        stage.finish(results, state.seconds)
    return results


def trained_joint(context: RunContext) -> Any:
    """Return the trained joint network in float32, for images of the run's size."""
    context.run.stage("distill").results()
    joint = build_joint(joint_plan(context))
    joint.load_weights(context.run.path / "distill" / "joint.weights.h5")
    return joint

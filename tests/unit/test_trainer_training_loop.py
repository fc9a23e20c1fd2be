import os
import signal

import keras
import numpy as np
import pytest

from edge_agent.console.exit_codes import ExitCode, UserError
from trainer.augmentation import AugmentedViews
from trainer.configuration import RunConfiguration
from trainer.datasets import Split
from trainer.distillation import BatchMaker, DistillationStep, Validator
from trainer.student_network import JointPlan, build_joint
from trainer.teacher_outputs import Outputs
from trainer.training_loop import LoopPlan, train

SETTINGS = RunConfiguration(
    dataset="none", teacher="none", student=("cnn-4",), students=2, passes=3, batch=16, rate=0.05
)
STEPS = 4


def make_plan(folder, rate: float = 0.05, stop_at: int | None = None) -> LoopPlan:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * 16, 6, 6, 1), dtype=np.uint8)
    labels = (images.mean(axis=(1, 2, 3)) > 127).astype(np.int64)
    split = Split(images, labels)
    outputs = Outputs(rng.random((len(images), 6)).astype(np.float16), (4 * np.eye(2)[labels]).astype(np.float16))
    settings = SETTINGS.model_copy(update={"rate": rate})
    keras.utils.set_random_seed(1)
    joint = build_joint(JointPlan(("cnn-4", "cnn-4"), (3, 3), (6, 6, 1), 2, (127.0,), (70.0,)))
    step = DistillationStep(joint, [[0, 1, 2], [3, 4, 5]], settings)
    batches = BatchMaker(split, AugmentedViews.draw(1, len(images), 1, flip=True, seed=0), [outputs], settings)

    def take(batch, number):
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return step(batch, number, STEPS)

    folder.mkdir(exist_ok=True)
    return LoopPlan("distill", 3, STEPS, batches, take, Validator(joint, split), step.variables, folder)


def weights_of(plan: LoopPlan) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in plan.variables]


def test_an_interrupted_training_ends_like_one_that_ran_through(tmp_path):
    through = make_plan(tmp_path / "a")
    state = train(through)
    with pytest.raises(KeyboardInterrupt):
        train(make_plan(tmp_path / "b", stop_at=6))
    resumed = make_plan(tmp_path / "b")
    continued = train(resumed)
    assert continued.step == state.step == 3 * STEPS
    for expected, got in zip(weights_of(through), weights_of(resumed), strict=True):
        assert np.allclose(expected, got, atol=1e-5)
    for one, other in zip(state.history, continued.history, strict=True):
        assert one.keys() == other.keys()
        assert one["val_accuracy"] == other["val_accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_a_finished_training_takes_no_step_more(tmp_path):
    train(make_plan(tmp_path))
    again = make_plan(tmp_path)
    before = train(again).history
    assert len(before) == 3


def test_a_loss_that_explodes_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"became (nan|inf) at step \d+; the last checkpoint is kept") as trouble:
        train(make_plan(tmp_path, rate=1e30))
    assert trouble.value.exit_code == ExitCode.FAILED


def test_training_learns_something(tmp_path):
    history = train(make_plan(tmp_path)).history
    assert history[-1]["loss"] < history[0]["loss"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(make_plan(tmp_path))
    plan = make_plan(tmp_path)
    plan.variables.pop()
    with pytest.raises(UserError, match="checkpoint of another network"):
        train(plan)

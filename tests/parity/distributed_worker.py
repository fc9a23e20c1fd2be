"""One worker of test_distribution.py: takes a few distillation steps and prints the losses and a weight."""

import json
import sys

DISTRIBUTION = sys.argv[1]


def main() -> None:
    from trainer.run_context import quiet_tensorflow

    quiet_tensorflow(2, 4)
    import keras
    import numpy as np

    from trainer.augmentation import AugmentedViews
    from trainer.configuration import RunConfiguration
    from trainer.datasets import Split
    from trainer.distillation import BatchMaker, DistillationStep
    from trainer.distribution import is_chief, open_strategy
    from trainer.student_network import JointPlan, build_joint
    from trainer.teacher_outputs import Outputs

    strategy = open_strategy(DISTRIBUTION)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 2, 64)
    outputs = Outputs(rng.random((64, 6)).astype(np.float16), rng.normal(0, 3, (64, 2)).astype(np.float16))
    settings = RunConfiguration(
        dataset="none", teacher="none", student=("cnn-4", "cnn-4-6"), students=2, passes=2, batch=16, rate=0.05
    )
    keras.utils.set_random_seed(1)
    with strategy.scope():
        joint = build_joint(JointPlan(settings.student, (3, 3), (8, 8, 1), 2, (127.0,), (70.0,)))
        step = DistillationStep(joint, [[0, 1, 2], [3, 4, 5]], settings, strategy)
    plan = AugmentedViews.draw(1, 64, 1, flip=True, seed=0)
    batches = BatchMaker(Split(images, labels), plan, [outputs], settings)
    losses = [float(step(batches(number), number, 4)["loss"]) for number in range(6)]
    weight = float(np.sum(np.abs(joint.get_layer("student1_bridge").get_weights()[0])))
    if is_chief(strategy):
        print(json.dumps({"replicas": strategy.num_replicas_in_sync, "losses": losses, "weight": weight}))


if __name__ == "__main__":
    main()

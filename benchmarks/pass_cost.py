"""What one pass over 45,000 training images costs here: teachers in float32 and mixed bfloat16, students distilled.

    python benchmarks/pass_cost.py [--teachers wrn-40-4,vgg19,airbench] [--students 2xwrn-16-1,2xvgg11] [--seconds 15]

Each row is a process of its own and takes whole training steps (augmentation, forward, backward, update) on random
images of 32 x 32 x 3 for the time given, after a warm-up that compiles. Prints Markdown.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
from training import CLASSES, IMAGES, SIDE, DistillationBench, steps_per_second

BATCH, PASS_IMAGES = 128, 45_000
PRECISIONS = ("float32", "bfloat16")


def main() -> int:
    """Measure all rows, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", default="wrn-40-4,vgg19,airbench", metavar="NAMES")
    parser.add_argument("--students", default="2xwrn-16-1,2xvgg11", metavar="KxNAMES")
    parser.add_argument("--seconds", type=float, default=15.0, metavar="S")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps({"rate": measure(arguments.row, arguments.seconds)}))
        return 0
    rows = [f"{name}:{precision}" for name in arguments.teachers.split(",") for precision in PRECISIONS if name]
    rows += [f"{name}:float32" for name in arguments.students.split(",") if name]
    print(f"batch {BATCH}, {os.cpu_count()} cores, {arguments.seconds:g} s for each row\n")
    print("| training | arithmetic | images/s | minutes for a pass of 45,000 |\n|---|---|---|---|")
    for row in rows:
        command = [sys.executable, __file__, "--row", row, "--seconds", str(arguments.seconds)]
        rate = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["rate"]
        name, precision = row.split(":")
        shown = "float32" if precision == "float32" else "mixed bfloat16"
        print(f"| {name} | {shown} | {rate:,.0f} | {PASS_IMAGES / rate / 60:.1f} |", flush=True)
    return 0


def measure(row: str, seconds: float) -> float:
    """Images/s of one row, in this process."""
    from trainer.run_context import quiet_tensorflow

    name, precision = row.split(":")
    count, _, student = name.partition("x")
    is_student = count.isdigit()
    quiet_tensorflow(*((1, os.cpu_count() or 1) if is_student else (0, 0)))
    step = DistillationBench((student,) * int(count), BATCH).step if is_student else teacher(name, precision)
    return BATCH * steps_per_second(step, seconds)


def teacher(name: str, precision: str) -> Callable[[int], float]:
    """One training step of a teacher as the stage `teacher` takes it; returns the loss."""
    import keras

    from trainer.configuration import RunConfiguration
    from trainer.datasets import Split
    from trainer.networks import catalogue
    from trainer.teacher_training import TeacherBatches, TeacherStep

    rng, bfloat16 = np.random.default_rng(0), precision == "bfloat16"
    images = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, IMAGES)
    settings = RunConfiguration(dataset="cifar10", teacher=name, batch=BATCH, bfloat16=bfloat16, teacher_rate=0.01)
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    network = catalogue.classifier(name, images.shape[1:], CLASSES, [120.0] * 3, [60.0] * 3)
    batches = TeacherBatches(Split(images, labels), settings)
    step = TeacherStep(network, settings, batches.steps_per_pass)
    return lambda number: float(step(batches(number), number)["loss"])


if __name__ == "__main__":
    sys.exit(main())

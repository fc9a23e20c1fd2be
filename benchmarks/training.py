"""Images per second of the distillation, against plain `model.fit` on the same networks, and what limits it.

    python benchmarks/training.py [--student wrn-16-1] [--students 2] [--teacher wrn-40-4] [--rounds 3] [--json FILE]

Each row is a process of its own (TensorFlow fixes its threads at start); the rows take turns for `rounds` rounds and
the median counts. Images are random: their values do not change the time. `model.fit` trains the same joint network on
labels only, so it has less to compute than distillation. The last rows say where the time goes: making batches,
the teacher's forward pass that cached outputs save, and the share of the machine's float32 matrix product.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDE, CLASSES, BATCH, IMAGES = 32, 10, 64, 4096
WARM_UP_STEPS = 3
ROW_SECONDS = 8.0
KINDS = {
    "distill": "distillation, one thread a trunk (what nonn-trainer does)",
    "distill-default": "distillation, TensorFlow's own threads",
    "fit": "plain model.fit, same networks, labels only",
    "batches": "making batches only",
    "teacher": "the teacher's forward pass alone, Keras",
    "product": "float32 matrix product, GFLOP/s",
}


def main() -> int:
    """Run all rows in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="wrn-16-1", metavar="NAME")
    parser.add_argument("--students", type=int, default=2, metavar="K")
    parser.add_argument("--teacher", default="wrn-40-4", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments)))
        return 0
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    macs = 0
    for _ in range(arguments.rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", kind]
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            rates[kind].append(answer["rate"])
            macs = answer.get("macs", macs)
    report(rates, macs, arguments)
    return 0


def report(rates: dict[str, list[float]], macs: int, arguments: argparse.Namespace) -> None:
    """Print the table; ratios are of the medians."""
    median = {kind: statistics.median(values) for kind, values in rates.items()}
    title = f"{arguments.students} x {arguments.student} from {arguments.teacher}, batch {BATCH}"
    print(f"{title}, {os.cpu_count()} cores, n = {arguments.rounds}\n")
    print("| | images/s | against model.fit |")
    print("|---|---|---|")
    for kind, text in KINDS.items():
        if kind != "product":
            print(f"| {text} | {median[kind]:,.0f} | {median[kind] / median['fit']:.2f}x |")
    # Backward costs twice the forward pass; two operations a multiply-accumulate.
    gflops = median["distill"] * macs * 2 * 3 / 1e9
    print(f"\nDistillation computes {gflops:.0f} GFLOP/s, {gflops / median['product']:.0%} of a large float32 product.")
    uncached = 1 / (1 / median["distill"] + 1 / median["teacher"])
    print(f"With the teacher in every pass it would be {uncached:.0f} images/s: cached outputs are")
    print(f"{median['distill'] / uncached:.1f}x as fast from the second use of a view on.")
    print(f"Making batches takes {median['distill'] / median['batches']:.1%} of one core, in a thread of its own.")
    if arguments.json:
        content = {"title": title, "rates": rates, "median": median, "macs": macs, "gflops": gflops}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """One row, in this process."""
    from trainer.run_context import quiet_tensorflow

    cores = os.cpu_count() or 1
    quiet_tensorflow(*((1, cores) if arguments.worker == "distill" else (0, 0)))
    if arguments.worker == "product":
        return {"rate": product_gflops()}
    if arguments.worker == "teacher":
        return {"rate": teacher_rate(arguments.teacher)}
    return distillation_rate(arguments)


def steps_per_second(step: Callable[[int], Any], seconds: float = ROW_SECONDS) -> float:
    """Whole steps in about that time, at least one, after a warm-up that compiles."""
    for number in range(WARM_UP_STEPS):
        step(number)
    started, done = time.perf_counter(), 0
    while not done or time.perf_counter() - started < seconds:
        step(WARM_UP_STEPS + done)
        done += 1
    return done / (time.perf_counter() - started)


def product_gflops(side: int = 2048) -> float:
    """Speed of TensorFlow's matrix product, all threads."""
    import tensorflow as tf

    left = tf.random.normal((side, side))
    multiply = tf.function(lambda: tf.linalg.matmul(left, left))
    return steps_per_second(lambda _: float(multiply()[0, 0])) * 2 * side**3 / 1e9


def teacher_rate(name: str) -> float:
    """Images/s of the teacher's inference."""
    import tensorflow as tf

    from trainer.networks import catalogue

    network = catalogue.classifier(name, (SIDE, SIDE, 3), CLASSES, [120.0] * 3, [60.0] * 3)
    forward = tf.function(lambda pixels: network(pixels, training=False))
    images = tf.random.uniform((BATCH, SIDE, SIDE, 3), 0, 255)
    return BATCH * steps_per_second(lambda _: float(forward(images)[0, 0]))


def distillation_rate(arguments: argparse.Namespace) -> dict[str, float]:
    """Images/s of the training, of model.fit on the same network, or of making batches alone."""
    bench = DistillationBench((arguments.student,) * arguments.students, BATCH)
    if arguments.worker == "fit":
        return {"rate": bench.model_fit_rate()}
    if arguments.worker == "batches":
        return {"rate": BATCH * steps_per_second(bench.batches)}
    return {"rate": BATCH * steps_per_second(bench.step), "macs": bench.macs}


class DistillationBench:
    """The stage `distill` on random images, with cached outputs of a teacher of 256 filters."""

    def __init__(self, networks: tuple[str, ...], batch: int) -> None:
        from trainer.augmentation import AugmentedViews
        from trainer.configuration import RunConfiguration
        from trainer.datasets import Split
        from trainer.distillation import BatchMaker, DistillationStep
        from trainer.student_network import JointPlan, build_joint
        from trainer.teacher_outputs import Outputs

        filters, rng = 256, np.random.default_rng(0)
        partitions = [part.tolist() for part in np.array_split(np.arange(filters), len(networks))]
        widths = tuple(len(part) for part in partitions)
        self._joint = build_joint(JointPlan(networks, widths, (SIDE, SIDE, 3), CLASSES, (120.0,) * 3, (60.0,) * 3))
        self._images = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
        self._labels = rng.integers(0, CLASSES, IMAGES)
        settings = RunConfiguration(
            dataset="cifar10", teacher="wrn-40-4", student=networks, students=len(networks), batch=batch, views=1
        )
        outputs = Outputs(
            rng.random((IMAGES, filters)).astype(np.float16), rng.normal(size=(IMAGES, CLASSES)).astype(np.float16)
        )
        views = AugmentedViews.draw(1, IMAGES, settings.crop_pad, settings.flip, 0)
        self.batches = BatchMaker(Split(self._images, self._labels), views, [outputs], settings)
        self._take = DistillationStep(self._joint, partitions, settings)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image, all students."""
        from trainer.network_cost import network_cost

        return network_cost(self._joint).macs

    def step(self, number: int) -> float:
        """One training step; returns its loss."""
        return float(self._take(self.batches(number), number, 1000)["loss"])

    def model_fit_rate(self, steps: int = 40) -> float:
        """Images/s of Keras' own loop on the same network, labels only."""
        import keras

        network = keras.Model(self._joint.input, self._joint.outputs[0])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True), loss)
        images, labels = self._images, self._labels
        network.fit(images[: BATCH * WARM_UP_STEPS], labels[: BATCH * WARM_UP_STEPS], BATCH, verbose=0)
        started = time.perf_counter()
        network.fit(images[: BATCH * steps], labels[: BATCH * steps], BATCH, verbose=0)
        return BATCH * steps / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())

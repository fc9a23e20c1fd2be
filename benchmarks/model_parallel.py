"""Latency of a frame: K students on K processes, on one, the teacher alone, and the teacher cut layer by layer.

    python benchmarks/model_parallel.py DEPLOYMENT --teacher FILE.keras [--frames 50] [--rounds 5] [--json FILE]

One broker (mosquitto, loopback), one frame in flight, LiteRT float32 and one thread for every network; the processes of
all arrangements are up at once and asked in turns. The students run in the agents and the coordinator that people use.
The teacher runs in bare workers: a frame comes in by MQTT, the first part's feature map goes to the second worker over
the same broker, as in the usual model-parallel baseline, and the scores go back. Split points: middle and end of
each group of blocks with one size of feature map. On one machine all processes share the cores: this shows what is
computed, sent and waited for, not what a Pi would take.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from fleet_processes import FleetProcesses

from coordinator.frame_client import FrameClient
from coordinator.settings import ClientSettings
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink

PATIENCE_S = 120.0
WARM_UP = 5


@dataclass(frozen=True)
class Part:
    """One piece of the teacher in a worker of its own."""

    file: Path
    topic_in: str
    topic_out: str


@dataclass
class Arrangement:
    """One way of answering a frame; `sent_bytes`: the frame and what goes between devices, without headers."""

    name: str
    memory_bytes: int  # largest artifact on one device
    sent_bytes: int
    times_ms: list[float]


Way = tuple[Arrangement, Callable[[], None]]


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", nargs="?", type=Path, metavar="DEPLOYMENT")
    parser.add_argument("--teacher", type=Path, metavar="FILE.keras")
    parser.add_argument("--frames", type=int, default=50, help="of each arrangement in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="float32", help="of the students")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", nargs=4, metavar=("PORT", "FILE", "IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        port, file, topic_in, topic_out = arguments.worker
        return work(int(port), Part(Path(file), topic_in, topic_out))
    if arguments.deployment is None or arguments.teacher is None:
        parser.error("expected DEPLOYMENT and --teacher")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    report(found, arguments)
    return 0


def work(port: int, part: Part) -> int:
    """A worker: tensors in, tensors out, float32."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(part.file), num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    link = MqttLink(BrokerSettings(port=port), part.topic_in.replace("/", "-"), [(part.topic_in, 0)])
    is_first = part.topic_in.endswith("frame")
    while True:
        for event in link.poll(1.0):
            if isinstance(event, Message):
                tensor = np.frombuffer(event.payload, np.uint8 if is_first else np.float32)
                interpreter.set_tensor(source["index"], tensor.reshape(source["shape"]).astype(np.float32, copy=False))
                interpreter.invoke()
                link.publish(Outgoing(part.topic_out, interpreter.get_tensor(target["index"]).tobytes()))


def measure(arguments: argparse.Namespace, folder: Path) -> list[Arrangement]:
    """All arrangements in turns."""
    shape = open_deployment(arguments.deployment).manifest.input
    image = np.random.default_rng(0).integers(0, 256, (shape.height, shape.width, shape.channels)).astype(np.uint8)
    pieces = cut_teacher(arguments.teacher, image.shape, folder)
    with ExitStack() as stack:
        ways, port = students_ways(arguments, image, folder, stack)
        ways += teacher_ways(pieces, image, port, stack)
        for arrangement, job in ways:
            for _ in range(WARM_UP):
                job()
            print(f"{arrangement.name}: ready", file=sys.stderr)
        for _ in range(arguments.rounds):
            for arrangement, job in ways:
                for _ in range(arguments.frames):
                    started = time.perf_counter()
                    job()
                    arrangement.times_ms.append(1000 * (time.perf_counter() - started))
    return [arrangement for arrangement, _ in ways]


def students_ways(
    arguments: argparse.Namespace, image: NDArray[np.uint8], folder: Path, stack: ExitStack
) -> tuple[list[Way], int]:
    """One agent for each student, and one agent for all; the port of the first one's broker."""
    manifest = open_deployment(arguments.deployment).manifest
    sizes = [
        next(artifact for artifact in student.artifacts if artifact.precision == arguments.precision).size_bytes
        for student in manifest.students
    ]
    students, ports = len(sizes), list[int]()
    ways: list[Way] = []
    each = [str(number) for number in range(students)]
    for groups in (each, [",".join(each)]):
        fleet = stack.enter_context(
            FleetProcesses(folder / f"fleet-{len(groups)}", arguments.deployment, persistence=False)
        )
        fleet.start_broker()
        fleet.start_coordinator("--deadline-ms", "10000")
        for number, group in enumerate(groups):
            fleet.start_agent(f"pi-{number}", group, "--precision", arguments.precision, "--engine", "tflite")
        client = FrameClient(ClientSettings(broker=BrokerSettings(port=fleet.port)), "split")
        stack.callback(client.close)
        client.wait_for_site(PATIENCE_S, all_students=True)
        name = f"{students} students in {len(groups)} process{'es' if len(groups) > 1 else ''}"
        memory = max(sizes) if len(groups) > 1 else sum(sizes)
        sent = image.nbytes + sum(manifest.widths)
        ways.append((Arrangement(name, memory, sent, []), partial(classify, client, image)))
        ports.append(fleet.port)
    return ways, ports[0]


def teacher_ways(
    pieces: list[tuple[str, list[Part], int]], image: NDArray[np.uint8], port: int, stack: ExitStack
) -> list[Way]:
    """The teacher's parts in workers of their own."""
    probe = stack.enter_context(open_probe(port))
    ways: list[Way] = []
    for name, parts, between in pieces:
        for part in parts:
            command = [sys.executable, __file__, "--worker", str(port), str(part.file), part.topic_in, part.topic_out]
            stack.callback(subprocess.Popen(command).kill)
        memory = max(part.file.stat().st_size for part in parts)
        arrangement = Arrangement(name, memory, image.nbytes + between, [])
        ways.append((arrangement, partial(ask, probe, parts, image.tobytes())))
    return ways


def classify(client: FrameClient, image: NDArray[np.uint8]) -> None:
    """One frame through the fleet."""
    (answer,) = client.classify(iter([image]), 1)
    if answer.prediction.missing:
        raise RuntimeError(f"students {answer.prediction.missing} did not answer")


@contextmanager
def open_probe(port: int) -> Iterator[MqttLink]:
    """Return a link that hears the answers of the bare workers."""
    link = MqttLink(BrokerSettings(port=port), "probe", [("split/+/answer", 0)])
    while not any(isinstance(event, Connected) for event in link.poll(0.1)):
        pass
    link.poll(0.3)
    yield link
    link.close()


def ask(probe: MqttLink, parts: list[Part], frame: bytes) -> None:
    """Send a frame to a chain of workers and wait for its answer; a worker that is not up yet is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        probe.publish(Outgoing(parts[0].topic_in, frame))
        again = time.monotonic() + 10
        while time.monotonic() < again:
            if any(isinstance(event, Message) and event.topic == parts[-1].topic_out for event in probe.poll(0.5)):
                return
    raise RuntimeError(f"no answer on {parts[-1].topic_out}")


def cut_teacher(path: Path, image_shape: tuple[int, ...], folder: Path) -> list[tuple[str, list[Part], int]]:
    """The teacher whole, and in two parts at every split point: (name, parts, bytes between them)."""
    from trainer.run_context import quiet_tensorflow

    quiet_tensorflow()
    import keras

    from trainer.tflite_conversion import to_tflite

    loaded = keras.models.load_model(path, compile=False)
    pixels = keras.Input(image_shape, name="pixels")
    network = keras.models.clone_model(loaded, input_tensors=pixels)  # with every shape known
    network.set_weights(loaded.get_weights())
    whole = folder / "teacher.tflite"
    whole.write_bytes(to_tflite(network, image_shape, "float32", None))
    found = [("teacher in one process", [Part(whole, "split/whole/frame", "split/whole/answer")], 0)]
    for number, layer in enumerate(split_points(network)):
        tensor = layer.output
        shape = tuple(tensor.shape[1:])
        fraction = weights_until(network, layer) / network.count_params()
        files = [folder / f"part-{number}-{side}.tflite" for side in (0, 1)]
        files[0].write_bytes(to_tflite(keras.Model(network.inputs[0], tensor), image_shape, "float32", None))
        files[1].write_bytes(to_tflite(keras.Model(tensor, network.outputs[0]), shape, "float32", None))
        base = f"split/{number}"
        parts = [Part(files[0], f"{base}/frame", f"{base}/map"), Part(files[1], f"{base}/map", f"{base}/answer")]
        name = f"teacher in 2, {fraction:.0%} of weights first, {'x'.join(map(str, shape))} between"
        found.append((name, parts, 4 * int(np.prod(shape))))
        print(f"cut: {name}", file=sys.stderr)
    return found


def split_points(network: Any) -> list[Any]:
    """Additions of residual blocks (else pools): the middle and the last of each feature map's size."""
    wanted = ("Add",) if any(type(layer).__name__ == "Add" for layer in network.layers) else ("MaxPooling2D",)
    last: dict[tuple[int, ...], list[Any]] = {}
    for layer in network.layers:
        if type(layer).__name__ in wanted:
            last.setdefault(tuple(layer.output.shape[1:]), []).append(layer)
    points = []
    for layers in last.values():
        points += [layers[len(layers) // 2 - 1], layers[-1]] if len(layers) > 2 else [layers[-1]]
    return points[:-1]  # after the last block there is nothing left to share


def weights_until(network: Any, last: Any) -> int:
    """Number of weights up to a layer, in the order of the layers."""
    count = 0
    for layer in network.layers:
        count += layer.count_params()
        if layer is last:
            break
    return count


def report(found: list[Arrangement], arguments: argparse.Namespace) -> None:
    """Print the table, and the file for the results page."""
    base = statistics.median(found[0].times_ms)
    rows = [
        {
            "name": a.name,
            "p50_ms": statistics.median(a.times_ms),
            "p95_ms": float(np.percentile(a.times_ms, 95)),
            "of_first": statistics.median(a.times_ms) / base,
            "sent_bytes": a.sent_bytes,
            "memory_bytes": a.memory_bytes,
        }
        for a in found
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, load average {os.getloadavg()[0]:.1f}, {len(found[0].times_ms)} frames each\n")
    print("| arrangement | p50 ms | p95 ms | of the first | bytes sent a frame | largest artifact on a device, bytes |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['name']} | {row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {row['of_first']:.2f}x "
              f"| {row['sent_bytes']:,} | {row['memory_bytes']:,} |")  # fmt: skip
    cuts = [row["of_first"] for row in rows if row["name"].startswith("teacher in 2")]
    if cuts:
        print(f"\nBest cut: {min(cuts):.2f}x of the time of {found[0].name}.")
    if arguments.json:
        content = {"machine": machine, "frames": len(found[0].times_ms), "precision": arguments.precision, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

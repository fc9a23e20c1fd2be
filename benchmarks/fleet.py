"""Fleet latency, throughput and capacity against a bare paho floor measured beside them.

    python benchmarks/fleet.py [--deployment DIR] [--frames 300] [--only latency throughput capacity cost]
                               [--students 1 2 4 8] [--networks wrn-16-1 wrn-28-2] [--json FILE]

latency     frame in -> answer out, minus the interpreter, by K; floor: bare paho clients passing the same bytes
throughput  frames/s end to end with one agent a student; floor: the students in bare loops on the same cores
capacity    features/s that one coordinator merges; floor: a bare paho subscriber that counts the same messages
cost        CPU time of the coordinator for each frame, by sources and devices

A JSON file keeps what other runs have put there: the parts may be measured one by one.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

sys.path.insert(0, str(Path(__file__).parent))
from bench_deployment import make_deployment
from fleet_processes import REPOSITORY, FleetProcesses

from coordinator.frame_client import FrameClient
from coordinator.settings import ClientSettings
from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.feature_message import FeatureMessage, encode_features
from edge_agent.protocol.frame_message import FrameMessage, encode_frame
from edge_agent.protocol.link import Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.topics import SiteTopics
from edge_agent.student_slot import open_student

FRAME_BYTES = 3096  # 32 x 32 x 3 and the header
WARM_UP = 30
Row = dict[str, Any]


def main() -> int:
    """Measure what was asked for and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path, help="real students for throughput [untrained ones, 32 x 32 x 3]")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--students", type=int, nargs="*", default=[1, 2, 4, 8], help="K for the latency table")
    parser.add_argument("--networks", nargs="*", default=["wrn-16-1"], help="untrained students for throughput")
    parser.add_argument("--window", type=int, default=64, help="frames in flight for throughput")
    parser.add_argument("--json", type=Path, help="write the figures here too, beside those of other parts")
    parser.add_argument("--only", nargs="*", default=["latency", "throughput", "capacity", "cost"])
    arguments = parser.parse_args()
    for name in arguments.only:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, scheduling "
            f"{_scheduling()}, Python {platform.python_version()}, paho {_version('paho-mqtt')}, commit {_commit()}"
        )
        print(f"{machine}\n")
        rows = {"latency": latency, "throughput": throughput, "capacity": capacity, "cost": cost}[name](arguments)
        if arguments.json:
            known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
            known[name] = {"machine": machine, "rows": rows}
            write_atomically(arguments.json, (json.dumps(known, indent=1) + "\n").encode())
    return 0


def latency(arguments: argparse.Namespace) -> list[Row]:
    """Table by K: the fleet beside the floor."""
    rows: list[Row] = []
    print(
        "| K | floor p50 ms | floor p95 | in -> out less inference p50 | p95 | ratio p50 |\n|---|---|---|---|---|---|"
    )
    for students in arguments.students:
        with tempfile.TemporaryDirectory() as folder:
            deployment = make_deployment(Path(folder) / "deployment", students)
            with FleetProcesses(Path(folder) / "fleet", deployment.path, persistence=False) as fleet:
                fleet.start_broker()
                workers = _start_floor_workers(fleet.port, students, deployment.manifest.widths)
                floor = _floor_gather(fleet.port, students, arguments.frames)
                _stop(workers)
                ours = _fleet_latency(fleet, students, arguments.frames)
        f50, f95 = np.percentile(floor, (50, 95))
        o50, o95 = np.percentile(ours, (50, 95))
        print(f"| {students} | {f50:.2f} | {f95:.2f} | {o50:.2f} | {o95:.2f} | {o50 / f50:.2f} |", flush=True)
        rows.append({"students": students, "frames": arguments.frames, "floor_ms": [f50, f95], "fleet_ms": [o50, o95]})
    print()
    return rows


def _fleet_latency(fleet: FleetProcesses, students: int, frames: int) -> list[float]:
    """Milliseconds from sending a frame to its answer at the sender, without the last student's interpreter."""
    client, info = _start(fleet, students)
    image = np.random.default_rng(0).integers(0, 256, (info.height, info.width, info.channels)).astype(np.uint8)
    answers = list(client.classify((image for _ in range(frames + WARM_UP)), 1))
    client.close()
    fleet.stop_all()
    return [
        1000 * a.round_trip_s - a.prediction.latency_ms.student for a in answers[WARM_UP:] if not a.prediction.missing
    ]


def _floor_gather(port: int, students: int, frames: int) -> list[float]:
    """The same round with bare paho: publish a frame, wait until all workers have answered, publish the answer.

    The gatherer passes an answer of 430 bytes at QoS 1 back to itself, as a coordinator's client gets it.
    """
    client = _bare_client(f"floor-{os.getpid()}")
    seen = {"features": 0, "answer": 0}

    def on_message(_client: mqtt.Client, _user: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == "floor/answer":
            seen["answer"] += 1
            return
        seen["features"] += 1
        if seen["features"] % students == 0:
            client.publish("floor/answer", bytes(430), 1)

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe([("floor/feature/#", 0), ("floor/answer", 1)])
    _loop_until(client, lambda: False, 0.5)
    times = []
    for number in range(frames + WARM_UP):
        started = time.perf_counter()
        client.publish("floor/frame", bytes(FRAME_BYTES))
        _loop_until(client, lambda wanted=number + 1: seen["answer"] >= wanted, 2.0)
        times.append(1000 * (time.perf_counter() - started))
    client.disconnect()
    return times[WARM_UP:]


def _start_floor_workers(port: int, students: int, widths: tuple[int, ...]) -> list[multiprocessing.Process]:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=floor_worker, args=(port, i, widths[i] + 28), daemon=True) for i in range(students)
    ]
    for worker in workers:
        worker.start()
    time.sleep(2.0 + students)
    return workers


def floor_worker(port: int, number: int, reply_bytes: int) -> None:
    """Answers every frame with as many bytes as a student's features have."""
    client = _bare_client(f"floor-worker-{number}")
    client.on_message = lambda c, _user, _message: c.publish(f"floor/feature/{number}", bytes(reply_bytes))
    client.connect("127.0.0.1", port)
    client.subscribe("floor/frame")
    client.loop_forever()


def throughput(arguments: argparse.Namespace) -> list[Row]:
    """Frames a second with as many agents as students, against the students alone."""
    return [_throughput(arguments, network) for network in arguments.networks]


def _throughput(arguments: argparse.Namespace, network: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        if arguments.deployment:
            deployment = open_deployment(arguments.deployment)
        else:
            deployment = make_deployment(Path(folder) / "deployment", 2, network)
        students = len(deployment.manifest.students)
        bare = _bare_frames_per_s(deployment, students)  # and once more behind: machines change their speed
        with FleetProcesses(Path(folder) / "fleet", deployment.path, persistence=False) as fleet:
            fleet.start_broker()
            client, info = _start(fleet, students, "--mailbox-frames", str(2 * arguments.window))
            image = np.random.default_rng(0).integers(0, 256, (info.height, info.width, info.channels)).astype(np.uint8)
            frames = max(100, int(bare * 5))
            programs = {name: psutil.Process(program.pid) for name, program in fleet.running.items()}
            programs["sender"] = psutil.Process()
            before = {name: sum(program.cpu_times()[:2]) for name, program in programs.items()}
            machine = psutil.cpu_times()
            started = time.perf_counter()
            # Numbers alone are kept: answers by the ten thousand would cost the sender more and more.
            answers = client.classify((image for _ in range(frames)), arguments.window)
            times_ms = [answer.prediction.latency_ms.student for answer in answers]
            answered = len(times_ms)
            ours = answered / (time.perf_counter() - started)
            spent = {name: sum(program.cpu_times()[:2]) - before[name] for name, program in programs.items()}
            idle, elsewhere = _not_ours(machine, psutil.cpu_times(), sum(spent.values()))
            client.close()
        bare = (bare + _bare_frames_per_s(deployment, students)) / 2
        if arguments.deployment:
            network = deployment.manifest.students[0].network
    print(f"throughput, {students} agents ({network}), {arguments.window} frames in flight: bare loops {bare:.0f} "
          f"frames/s, fleet {ours:.0f} frames/s, {100 * ours / bare:.0f} % (goal 70 %)")  # fmt: skip
    shares = ", ".join(f"{name} {1e6 * seconds / answered:.0f}" for name, seconds in sorted(spent.items()))
    students_part = students * 1e6 / bare / (1e6 * sum(spent.values()) / answered)
    print(f"CPU of a frame, us: {shares}: {students_part:.0%} of it students; a student alone {1e6 / bare:.0f}, "
          f"in the fleet {1e3 * np.median(times_ms):.0f}; {idle:.0%} of the machine idle, {elsewhere:.0%} taken by the "
          "kernel and by others\n", flush=True)  # fmt: skip
    cpu_us = {name: 1e6 * seconds / answered for name, seconds in spent.items()}
    return {"network": network, "students": students, "bare_per_s": bare, "fleet_per_s": ours, "cpu_us": cpu_us,
            "student_us": 1e3 * float(np.median(times_ms)), "idle": idle, "elsewhere": elsewhere}  # fmt: skip


def _not_ours(before: Any, after: Any, ours_s: float) -> tuple[float, float]:
    """Parts of the machine's time that were idle, and that neither were nor went to our programs."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in before._fields if "guest" not in name}
    whole_s = sum(spent.values())
    idle_s = spent["idle"] + spent.get("iowait", 0.0)
    return idle_s / whole_s, max(0.0, whole_s - idle_s - ours_s) / whole_s


def _bare_frames_per_s(deployment: DeploymentDirectory, students: int, seconds: float = 4.0) -> float:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    loops = [context.Process(target=bare_loop, args=(deployment.path, i, seconds, queue)) for i in range(students)]
    for loop in loops:
        loop.start()
    rates = [queue.get(timeout=120) for _ in loops]
    for loop in loops:
        loop.join()
    return min(rates)  # a frame needs all students


def bare_loop(path: Path, student: int, seconds: float, queue: "multiprocessing.Queue[float]") -> None:
    """One student alone, as fast as it goes; by its CPU time, so that other work on the machine does not slow it."""
    slot = open_student(open_deployment(path), student, "auto", "auto", 1)
    image = np.random.default_rng(0).integers(0, 256, slot.runtime.input_shape).astype(np.uint8)
    slot.runtime.run(image)
    count, started, spent = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        slot.runtime.run(image)
        count += 1
    queue.put(count / (time.process_time() - spent))


def capacity(arguments: argparse.Namespace) -> list[Row]:
    """Features a second of CPU time: the coordinator against a subscriber that only counts. K = 2."""
    frames = max(2000, arguments.frames)
    with tempfile.TemporaryDirectory() as folder:
        deployment = make_deployment(Path(folder) / "deployment", 2)
        with FleetProcesses(Path(folder) / "fleet", deployment.path, persistence=False) as fleet:
            fleet.start_broker()
            floor = _capacity_of_floor(fleet.port, deployment, frames)
            fleet.start_coordinator()
            client = FrameClient(_settings(fleet.port), "probe")
            client.wait_for_site(60, all_students=False)
            ours = _capacity_of_coordinator(fleet, deployment, frames, sources=1)
            client.close()
    print(f"capacity, K = 2: counting subscriber {floor:.0f} features/s of CPU, coordinator {ours:.0f}, "
          f"{100 * ours / floor:.0f} % (goal 60 %)\n", flush=True)  # fmt: skip
    return [{"students": 2, "floor_per_s": floor, "coordinator_per_s": ours}]


def cost(arguments: argparse.Namespace) -> list[Row]:
    """Coordinator CPU for a frame, by sources and by replicas of each student."""
    rows: list[Row] = []
    frames = max(1000, arguments.frames)
    print("| sources | devices a student | coordinator CPU us a frame |\n|---|---|---|")
    for sources, devices in ((1, 1), (4, 1), (16, 1), (64, 1), (1, 2), (1, 4)):
        with tempfile.TemporaryDirectory() as folder:
            deployment = make_deployment(Path(folder) / "deployment", 2)
            with FleetProcesses(Path(folder) / "fleet", deployment.path, persistence=False) as fleet:
                fleet.start_broker()
                fleet.start_coordinator()
                client = FrameClient(_settings(fleet.port), "probe")
                client.wait_for_site(60, all_students=False)
                rate = _capacity_of_coordinator(fleet, deployment, frames, sources, devices)
                client.close()
        print(f"| {sources} | {devices} | {2 * devices * 1e6 / rate:.0f} |", flush=True)
        rows.append({"sources": sources, "devices": devices, "cpu_us": 2 * devices * 1e6 / rate})
    print()
    return rows


def _capacity_of_coordinator(
    fleet: FleetProcesses, deployment: DeploymentDirectory, frames: int, sources: int, devices: int = 1
) -> float:
    """Features merged in a second of the coordinator's CPU time, from synthetic agents."""
    topics, widths = SiteTopics("home"), deployment.manifest.widths
    link = MqttLink(BrokerSettings(port=fleet.port), "synthetic", [(topics.prediction("+"), 0)])
    while not link.connected:
        link.poll(0.05)
    link.poll(0.3)
    shape = deployment.manifest.input
    image = np.zeros((shape.height, shape.width, shape.channels), np.uint8)
    program = psutil.Process(fleet.running["coordinator"].pid)
    before = sum(program.cpu_times()[:2])
    answered = 0
    for number in range(frames):
        source = f"synthetic-{number % sources}"
        link.publish(Outgoing(topics.frame(source), encode_frame(FrameMessage(number, 0, image))))
        for student, width in enumerate(widths):
            payload = encode_features(FeatureMessage(number, np.zeros(width, np.int8), 100, 100, 0.1, 0))
            for device in range(devices):
                link.publish(
                    Outgoing(topics.feature(source, deployment.id, student, f"pi-{student}-{device}"), payload)
                )
        while number - answered > 64:
            answered += sum(isinstance(event, Message) for event in link.poll(0.5))
    end = time.monotonic() + 20
    while answered < frames and time.monotonic() < end:
        answered += sum(isinstance(event, Message) for event in link.poll(0.1))
    spent = sum(program.cpu_times()[:2]) - before
    link.close()
    if answered < frames:
        print(f"warning: {frames - answered} of {frames} frames got no answer")
    return frames * len(widths) * devices / spent


def _capacity_of_floor(port: int, deployment: DeploymentDirectory, frames: int) -> float:
    """Messages counted in a second of CPU time by bare paho, of the size of features; with their frames, as ours."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    expected = 2 * frames
    counter = context.Process(target=counting_subscriber, args=(port, expected, queue))
    counter.start()
    queue.get(timeout=60)
    payload = encode_features(FeatureMessage(0, np.zeros(deployment.manifest.widths[0], np.int8), 100, 100, 0.1, 0))
    link = MqttLink(BrokerSettings(port=port), "floor-sender", [])
    while not link.connected:
        link.poll(0.05)
    topic = SiteTopics("home").feature("synthetic-0", deployment.id, 0, "pi-0")
    for number in range(expected):
        link.publish(Outgoing(topic, payload))
        if number % 64 == 63:
            link.poll(0.002)
    rate = float(queue.get(timeout=120))
    counter.join()
    link.close()
    return rate


def counting_subscriber(port: int, expected: int, queue: "multiprocessing.Queue[float]") -> None:
    """Counts until all have come, then tells the rate in its own CPU time."""
    client = _bare_client("counter")
    count = [0]

    def on_message(_client: mqtt.Client, _user: object, _message: mqtt.MQTTMessage) -> None:
        count[0] += 1

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("nonn/#")
    _loop_until(client, lambda: False, 0.5)
    queue.put(0.0)
    started = time.process_time()
    _loop_until(client, lambda: count[0] >= expected, 60.0)
    queue.put(count[0] / (time.process_time() - started))


def _bare_client(name: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_socket_open = lambda _c, _u, connection: connection.setsockopt(6, 1, 1)  # TCP_NODELAY
    return client


def _loop_until(client: mqtt.Client, done: Callable[[], bool], patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while not done() and time.monotonic() < end:
        client.loop(0.05)


def _start(fleet: FleetProcesses, students: int, *flags: str) -> tuple[FrameClient, object]:
    for student in range(students):
        fleet.start_agent(f"pi-{student}", str(student), *flags)
    fleet.start_coordinator()
    client = FrameClient(_settings(fleet.port), "bench")
    return client, client.wait_for_site(120)


def _settings(port: int) -> ClientSettings:
    return ClientSettings.model_validate({"broker": {"port": port}})


def _stop(workers: list[multiprocessing.Process]) -> None:
    for worker in workers:
        worker.terminate()
        worker.join()


def _scheduling() -> str:
    policy = os.sched_getscheduler(0)
    return "real-time" if policy in (os.SCHED_FIFO, os.SCHED_RR) else "normal"


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    sys.exit(main())

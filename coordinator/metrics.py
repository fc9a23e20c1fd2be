"""The coordinator's metrics: counted in the live loop, rendered for Prometheus in the web server's thread."""

import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from coordinator.accuracy import LabelBook
from coordinator.extension import CoordinatorExtension
from coordinator.feature_merger import FrameMerged
from coordinator.source_names import metric_label
from coordinator.web.snapshot import Snapshot
from edge_agent import __version__
from edge_agent.console.exposition import Counter, Gauge, Histogram, Metric, render
from edge_agent.protocol.frame_message import FrameMessage
from edge_agent.protocol.prediction_message import PredictionMessage
from edge_agent.protocol.status import NodeTelemetry

PARTS = ("student", "queue", "transport", "merge")


class CoordinatorMetrics(CoordinatorExtension):
    """`counts`: the frame desk's own counters; `snapshot`: the latest one, if any."""

    def __init__(
        self,
        site: str,
        coordinator: str,
        counts: Callable[[], Mapping[str, int]],
        snapshot: Callable[[], Snapshot | None],
        deployment_name: Callable[[str], str],
        labels: LabelBook,
    ) -> None:
        self._site, self._coordinator = site, coordinator
        self._counts, self._snapshot, self._deployment_name = counts, snapshot, deployment_name
        self._labels = labels
        self._started = time.time()
        self.frames = Counter("nonn_frames_total", "Frames opened", ("source",))
        self.frame_bytes = Counter("nonn_frame_bytes_total", "Pixels of opened frames", ("source",))
        self.answers = Counter("nonn_answers_total", "Answers by their result", ("source", "result"))
        self.missing = Counter("nonn_missing_students_total", "Answers given without this student", ("student",))
        self.duration = Histogram("nonn_answer_duration_seconds", "Frame in to answer out", ("source",))
        self.parts = Histogram("nonn_answer_part_seconds", "Where the time of an answer went", ("part",))
        self.features = Counter(
            "nonn_features_merged_total", "Features that answers were made of", ("device", "student")
        )
        self.student = Histogram("nonn_student_duration_seconds", "Interpreter time, as devices report it", ("device",))

    def on_frame(self, source: str, frame: FrameMessage, now: float) -> None:  # noqa: ARG002
        """Count a frame."""
        label = metric_label(source)
        self.frames.add(label)
        self.frame_bytes.add(label, amount=frame.image.nbytes)

    def on_prediction(self, prediction: PredictionMessage, merged: FrameMerged | None, now: float) -> None:  # noqa: ARG002
        """Count an answer and its times."""
        label = metric_label(prediction.source)
        self.answers.add(label, prediction.result)
        for student in prediction.missing:
            self.missing.add(str(student))
        split = prediction.latency_ms
        self.duration.observe(label, number=split.total / 1000)
        for part in PARTS:
            self.parts.observe(part, number=getattr(split, part) / 1000)
        for student, contribution in (merged.contributions if merged else {}).items():
            self.features.add(contribution.device, str(student))
            self.student.observe(contribution.device, number=contribution.student_s)

    def text(self) -> str:
        """The body of a scrape."""
        own: list[Metric] = [
            self.frames, self.frame_bytes, self.answers, self.missing, self.duration, self.parts, self.features,
            self.student, *_desk_metrics(self._counts()), *process_metrics(self._started),
            _label_metrics(self._labels),
        ]  # fmt: skip
        snapshot = self._snapshot()
        if snapshot is not None:
            own += [*self._info(snapshot), *_device_metrics(snapshot)]
        return render(own)

    def _info(self, snapshot: Snapshot) -> list[Metric]:
        labels = ("site", "coordinator", "version", "deployment", "deployment_name")
        about = Gauge("nonn_coordinator_info", "What runs here; always 1", labels)
        name = self._deployment_name(snapshot.deployment)
        about.set(self._site, self._coordinator, __version__, snapshot.deployment, name, number=1)
        connected = Gauge("nonn_broker_connected", "1 while logged in at the broker")
        connected.set(number=int(snapshot.connected))
        return [about, connected]


def _desk_metrics(counts: Mapping[str, int]) -> list[Metric]:
    """The frame desk's counters: `features_<reason>`, `frames_abandoned_<reason>`, and single ones."""
    counts = dict(counts)
    ignored = Counter("nonn_features_ignored_total", "Features that changed nothing, by reason", ("reason",))
    abandoned = Counter("nonn_frames_abandoned_total", "Frames without a class, by reason", ("reason",))
    events = Counter("nonn_coordinator_events_total", "Other things that happen now and then", ("event",))
    feature_bytes = Counter("nonn_feature_bytes_total", "Feature messages received")
    for name, count in counts.items():
        if name == "feature_bytes":
            feature_bytes.set_total(total=count)
        elif name.startswith("features_"):
            ignored.set_total(name.removeprefix("features_"), total=count)
        elif name.startswith("frames_abandoned_"):
            abandoned.set_total(name.removeprefix("frames_abandoned_"), total=count)
        elif name not in ("frames_opened", "frames_complete", "frames_degraded", "frames_abandoned"):
            events.set_total(name, total=count)
    return [ignored, abandoned, events, feature_bytes]


def _device_metrics(snapshot: Snapshot) -> list[Metric]:
    device = ("device",)
    up = Gauge("nonn_device_up", "1 while the device is online", device)
    about = Gauge(
        "nonn_device_info", "What a device runs; always 1", ("device", "version", "deployment", "students", "machine")
    )
    update = Gauge("nonn_device_update_state", "The state of the device's last update; always 1", ("device", "state"))
    telemetry = [(Gauge(name, text, device), read) for name, text, read in _GAUGES]
    power = Gauge("nonn_device_power_watts", "Electrical power", ("device", "source"))
    energy = Counter("nonn_device_energy_joules_total", "Energy since the agent's start", ("device", "source"))
    for node in snapshot.devices:
        up.set(node.name, number=int(node.online))
        if node.info:
            students = ",".join(map(str, node.students))
            about.set(node.name, node.info.agent_version, node.info.deployment, students, node.info.machine, number=1)
        if node.telemetry is None or not node.online:
            continue
        for gauge, read in telemetry:
            number = read(node.telemetry)
            if number is not None:
                gauge.set(node.name, number=float(number))
        if node.telemetry.power_w is not None:
            power.set(node.name, node.telemetry.power_source or "measured", number=node.telemetry.power_w)
        for origin, joules in (node.telemetry.energy_j or {}).items():
            energy.set_total(node.name, origin, total=joules)
    for name, view in snapshot.updates.items():
        update.set(name, view.state, number=1)
    return [up, about, update, power, energy, *(gauge for gauge, _ in telemetry)]


_GAUGES: tuple[tuple[str, str, Callable[[NodeTelemetry], float | None]], ...] = (
    ("nonn_device_temperature_celsius", "Hottest sensor", lambda seen: seen.temperature_c),
    ("nonn_device_throttled", "1 while heat or under-voltage slow the device down", lambda seen: seen.throttled),
    ("nonn_device_cpu_ratio", "CPU time of the agent, 1 = one core", lambda seen: seen.cpu_percent / 100),
    ("nonn_device_memory_rss_bytes", "Resident memory of the agent", lambda seen: seen.memory_rss_bytes),
    ("nonn_device_memory_available_bytes", "Memory left on the device", lambda seen: seen.memory_available_bytes),
    ("nonn_device_queue_frames", "Frames that wait for the student", lambda seen: seen.queue_length),
    ("nonn_device_frames_dropped", "Frames skipped since the agent's start", lambda seen: seen.frames_dropped),
    ("nonn_device_uptime_seconds", "Since the agent's start", lambda seen: seen.uptime_s),
)


def _label_metrics(labels: LabelBook) -> Metric:
    labelled = Counter("nonn_labelled_answers_total", "Answers to frames of known class", ("source", "outcome"))
    for source, total in labels.labelled.copy().items():
        correct = labels.correct[source]
        labelled.set_total(metric_label(source), "right", total=correct)
        labelled.set_total(metric_label(source), "wrong", total=total - correct)
    return labelled


def process_metrics(started: float) -> list[Metric]:
    """The numbers that every Prometheus client exports of its process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = Counter("process_cpu_seconds_total", "User and system CPU time")
    cpu.set_total(total=usage.ru_utime + usage.ru_stime)
    start = Gauge("process_start_time_seconds", "Start of the process since 1970")
    start.set(number=started)
    memory = Gauge("process_resident_memory_bytes", "Resident memory")
    files = Gauge("process_open_fds", "Open file descriptors")
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.set(number=pages * os.sysconf("SC_PAGE_SIZE"))
        files.set(number=len(list(Path("/proc/self/fd").iterdir())))
    except OSError:
        memory.set(number=usage.ru_maxrss * 1024)
    return [cpu, start, memory, files]

"""Snapshots -> what the page draws, as plain JSON values. Runs in the web server's thread. Pure."""

import base64
import io
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coordinator.roster import Device
from coordinator.web.snapshot import ShownDeployment, Sighting, Snapshot, SourceSnapshot
from edge_agent.protocol.head import probabilities
from edge_agent.protocol.update_messages import RolloutStatus

BEST_CLASSES = 5
WINDOW_S = 10.0
HISTORY_SECONDS = 120
# Small pictures are exact as PNG; larger ones would cost every open page 100 KB, ten times a second.
LARGEST_PNG_SIDE = 96
JPEG_QUALITY = 80
LARGEST_SIDE = 320
Json = dict[str, Any]
Answers = Iterable[tuple[float, str, float]]


@dataclass(frozen=True, slots=True)
class Rates:
    """Answers of a window; latencies in milliseconds, None without answers."""

    answers_per_s: float = 0.0
    complete: int = 0
    degraded: int = 0
    abandoned: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None


def rates(answers: Answers, now: float, window_s: float) -> Rates:
    """Sum up (moment, result, milliseconds) of the last `window_s` seconds.

    >>> rates([(0.0, "complete", 4.0), (9.5, "complete", 2.0), (9.9, "degraded", 3.0)], now=10.0, window_s=1.0)
    Rates(answers_per_s=2.0, complete=1, degraded=1, abandoned=0, p50_ms=3.0, p95_ms=3.0)
    """
    recent = [answer for answer in answers if now - answer[0] <= window_s]
    if not recent:
        return Rates()
    totals = sorted(total for _, _, total in recent)
    results = [result for _, result, _ in recent]
    # A source that began a second ago has its rate, not a tenth of it.
    seconds = min(window_s, max(1.0, now - min(answer[0] for answer in recent)))
    return Rates(
        round(len(recent) / seconds, 2),
        results.count("complete"),
        results.count("degraded"),
        results.count("abandoned"),
        totals[len(totals) // 2],
        totals[min(len(totals) - 1, int(len(totals) * 0.95))],
    )


class PageView:
    """Turns snapshots into JSON; keeps two minutes of rates. `deployment`: id -> what it is, or None."""

    def __init__(self, deployment: Callable[[str], ShownDeployment | None], is_exposed: bool = False) -> None:
        self._is_exposed = is_exposed
        self._deployment = deployment
        self._history: deque[Rates] = deque(maxlen=HISTORY_SECONDS)
        self._next_history_s = 0.0

    def _in_the_open(self, snapshot: Snapshot) -> list[str]:
        """Names of devices, and of the coordinator itself, whose messages travel unencrypted over the network."""
        names = [device.name for device in snapshot.devices if device.online and device.info and device.info.insecure]
        return ["coordinator", *names] if self._is_exposed else names

    def remember(self, snapshot: Snapshot) -> None:
        """Add a second to the history when it is over."""
        if snapshot.taken_s >= self._next_history_s:
            self._next_history_s = snapshot.taken_s + 1.0
            self._history.append(rates(_all_answers(snapshot), snapshot.taken_s, 1.0))

    def render(self, snapshot: Snapshot) -> Json:
        """Everything the page needs to draw one moment."""
        shown = self._deployment(snapshot.deployment)
        return {
            "serial": snapshot.serial,
            "connected": snapshot.connected,
            "insecure": self._in_the_open(snapshot),
            "deployment": snapshot.deployment,
            "rates": asdict(rates(_all_answers(snapshot), snapshot.taken_s, WINDOW_S)),
            "history": [[h.answers_per_s, h.p50_ms, h.p95_ms, h.degraded + h.abandoned] for h in self._history],
            "sources": [_source(source, snapshot.taken_s, shown) for source in snapshot.sources],
            "rollout": self._rollout(snapshot.rollout) if snapshot.rollout else None,
            "devices": [_device(device, snapshot) for device in snapshot.devices],
        }

    def _rollout(self, rollout: RolloutStatus) -> Json:
        """With the names of what runs and what ran before: people do not read hashes."""
        drawn: Json = rollout.model_dump(mode="json")
        for role in ("active", "previous"):
            shown = self._deployment(drawn[role]) if drawn[role] else None
            drawn[f"{role}_name"] = shown.manifest.name if shown else None
        return drawn


def _all_answers(snapshot: Snapshot) -> Answers:
    return (answer for source in snapshot.sources for answer in source.answers)


def _source(source: SourceSnapshot, now: float, shown: ShownDeployment | None) -> Json:
    drawn: Json = {
        "name": source.name,
        "age_s": round(source.age_s, 1) if source.last else None,
        "rates": asdict(rates(source.answers, now, WINDOW_S)),
        "labelled": source.labelled,
        "correct": source.correct,
        "last": None,
    }
    if source.last is not None:
        fitting = shown if shown and shown.id == source.last.prediction.deployment else None
        drawn["last"] = draw_sighting(source.last, fitting)
    return drawn


def draw_sighting(sighting: Sighting, shown: ShownDeployment | None) -> Json:
    """One answer with its picture, its best classes and what each student had to do with it."""
    prediction = sighting.prediction
    names = shown.manifest.classes if shown else ()
    order = np.argsort(prediction.probabilities)[::-1][:BEST_CLASSES].tolist()
    latency = prediction.latency_ms.model_dump()
    return {
        "frame_id": prediction.frame_id,
        "picture": picture_url(sighting.image),
        "result": prediction.result,
        "class_name": prediction.class_name,
        "best": [[names[i] if i < len(names) else str(i), round(prediction.probabilities[i], 4)] for i in order],
        "missing": list(prediction.missing),
        "latency_ms": {name: round(value, 3) for name, value in latency.items()}
        | {"capture": None if sighting.capture_ms is None else round(sighting.capture_ms, 3)},
        "contributions": [
            {
                "student": student,
                "device": part.device,
                "after_ms": round((part.arrived_s - sighting.opened_s) * 1000, 3),
                "student_ms": round(part.student_s * 1000, 3),
                "without": _answer_without(sighting, shown, student),
            }
            for student, part in sorted(sighting.contributions.items())
        ],
    }


def _answer_without(sighting: Sighting, shown: ShownDeployment | None, student: int) -> list[str | float] | None:
    """Class and probability if `student` had not answered; None if nobody else did."""
    rest = {other: part.features for other, part in sighting.contributions.items() if other != student}
    if shown is None or not rest:
        return None
    logits, temperature = shown.head.merge(rest)
    scores = probabilities(logits, temperature)
    best = int(np.argmax(scores))
    return [shown.manifest.classes[best], round(float(scores[best]), 4)]


def _device(device: Device, snapshot: Snapshot) -> Json:
    update = snapshot.updates.get(device.name)
    seen = device.telemetry
    return {
        "name": device.name,
        "online": device.online,
        "deployment": device.info.deployment if device.info else None,
        "version": device.info.agent_version if device.info else None,
        "machine": device.info.machine if device.info else None,
        "problems": list(device.info.problems or ()) if device.info else [],
        "students": [student.model_dump() for student in device.info.students] if device.info else [],
        "telemetry": seen.model_dump(exclude_none=True) if seen else None,
        "update": update.to_json() if update else None,
    }


def picture_url(image: NDArray[np.uint8]) -> str:
    """A data URL of an image: (height, width, 1 or 3), uint8."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    small = max(picture.size) <= LARGEST_PNG_SIDE
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, **({"format": "PNG"} if small else {"format": "JPEG", "quality": JPEG_QUALITY}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def describe_deployment(shown: ShownDeployment) -> Json:
    """What does not change while a deployment runs: classes, students, partitions, filter graph."""
    manifest = shown.manifest
    return {
        "id": shown.id,
        "name": manifest.name,
        "version": manifest.version,
        "created": manifest.created.isoformat(),
        "teacher": manifest.teacher,
        "classes": list(manifest.classes),
        "input": manifest.input.model_dump(),
        "filters": manifest.filters,
        "metrics": manifest.metrics,
        "students": [
            student.model_dump(include={"index", "network", "filters", "width", "parameters", "macs"})
            for student in manifest.students
        ],
        "edges": [list(edge) for edge in shown.edges],
    }

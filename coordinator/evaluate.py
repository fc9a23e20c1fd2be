"""Sends a labelled data set through the fleet and sums up the answers."""

import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coordinator.frame_client import Answer, FrameClient
from coordinator.labelled_images import LabelledImages, decode_image
from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.status import CoordinatorInfo

# Largest difference between probabilities computed here and offline that is still "equal": float32 sums in
# another order differ by 1e-6.
PROBABILITY_TOLERANCE = 1e-4
LATENCY_PARTS = ("total", "student", "queue", "transport", "merge")
Report = dict[str, Any]


def evaluate(
    client: FrameClient, info: CoordinatorInfo, images: LabelledImages, window: int, frames_per_s: float | None
) -> tuple[Report, list[Answer]]:
    """Classify every image; the report has accuracy, latency and bytes, the answers stand in the images' order."""
    labels = _labels(images, info)
    shape = (info.height, info.width, info.channels)
    answers: dict[int, Answer] = {}
    client.measure_features()

    def decoded() -> Iterator[NDArray[np.uint8]]:
        for image in images.images:
            yield decode_image(images.read(image), shape, image.name)

    with _progress() as progress:
        task = progress.add_task("classify", total=len(labels))
        for answer in client.classify(decoded(), window, frames_per_s):
            answers[answer.index] = answer
            progress.advance(task)
    ordered = [answers[index] for index in sorted(answers)]
    return _report(client, info, labels, ordered), ordered


def read_expected(path: Path) -> dict[int, NDArray[np.float32]]:
    """Answers computed offline, an .npz of p<mask>: (images, classes), float32, for each mask of present students."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {int(name[1:]): arrays[name] for name in arrays.files if name[:1] == "p" and name[1:].isdecimal()}
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; expected the answers.npz of nonn-trainer evaluate"
        ) from None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        # TypeError: a single array (.npy) is no context.
        # NumPy's own words advise to unpickle what it does not know.
        raise UserError(f"{path}: not an .npz file; expected the answers.npz of nonn-trainer evaluate") from None


def compare(answers: list[Answer], expected: dict[int, NDArray[np.float32]], path: Path) -> int:
    """Number of answers that differ from those computed offline, as `read_expected` gave them."""
    return sum(_differs(answer, expected, path) for answer in answers)


def _differs(answer: Answer, by_mask: dict[int, NDArray[np.float32]], expected: Path) -> bool:
    prediction = answer.prediction
    if prediction.result == "abandoned":
        return False  # no answer to compare; abandoned frames are reported on their own
    mask = sum(1 << student for student in prediction.present)
    if mask not in by_mask or answer.index >= len(by_mask[mask]):
        raise UserError(f"{expected}: no answer for image {answer.index} with students {prediction.present}")
    offline = by_mask[mask][answer.index]
    error = float(np.max(np.abs(offline - np.asarray(prediction.probabilities, np.float32))))
    return error > PROBABILITY_TOLERANCE or int(np.argmax(offline)) != prediction.class_index


def _labels(images: LabelledImages, info: CoordinatorInfo) -> list[int]:
    index = {name: number for number, name in enumerate(info.classes)}
    unknown = sorted({image.class_name for image in images.images} - set(index))
    if unknown:
        known = ", ".join(info.classes[:12])
        raise UserError(f"{images.path}: class folder {unknown[0]!r} is not a class of the deployment ({known})")
    return [index[image.class_name] for image in images.images]


def _report(client: FrameClient, info: CoordinatorInfo, labels: list[int], answers: list[Answer]) -> Report:
    results = Counter(answer.prediction.result for answer in answers)
    return {
        "deployment": info.deployment,
        "deployment_name": info.deployment_name,
        "frames": len(labels),
        "answered": len(answers),
        "lost": len(labels) - len(answers),
        "repeated": client.repeated_answers,
        "results": dict(results),
        "accuracy": _accuracy(labels, answers),
        "accuracy_by_result": {
            result: _accuracy(labels, [a for a in answers if a.prediction.result == result])
            for result in sorted(results)
        },
        "latency_ms": {
            result: _latency([a for a in answers if a.prediction.result == result]) for result in sorted(results)
        },
        "bytes": {name: float(np.mean(sizes)) for name, sizes in client.wire_bytes.items() if sizes},
    }


def _accuracy(labels: list[int], answers: list[Answer]) -> float | None:
    right = [answer.prediction.class_index == labels[answer.index] for answer in answers]
    return float(np.mean(right)) if right else None


def _latency(answers: list[Answer]) -> dict[str, dict[str, float]]:
    columns = {
        part: np.array([getattr(answer.prediction.latency_ms, part) for answer in answers]) for part in LATENCY_PARTS
    }
    columns["round_trip"] = np.array([answer.round_trip_s * 1000 for answer in answers])
    return {
        name: {f"p{percent}": round(float(np.percentile(values, percent)), 3) for percent in (50, 95, 99)}
        for name, values in columns.items()
    }


def write_report(path: Path, report: Report, answers: list[Answer], images: LabelledImages) -> None:
    """JSON: the report and one entry for each answered image."""
    entries = [
        {
            "image": images.images[answer.index].name,
            "label": images.images[answer.index].class_name,
            "class_name": answer.prediction.class_name,
            "result": answer.prediction.result,
            "present": answer.prediction.present,
            "probabilities": [round(p, 7) for p in answer.prediction.probabilities],
            "latency_ms": round(answer.prediction.latency_ms.total, 3),
        }
        for answer in answers
    ]
    write_atomically(path, (json.dumps({**report, "answers": entries}) + "\n").encode())


def print_report(report: Report, console: Console) -> None:
    """The report as two tables for people."""
    # Titles of their own: a table's would be folded to its width.
    console.print(f"{report['deployment_name']} ({report['deployment']}), {report['frames']} images", soft_wrap=True)
    summary = Table()
    summary.add_column("result")
    summary.add_column("frames", justify="right")
    summary.add_column("accuracy", justify="right")
    for result, count in sorted(report["results"].items()):
        accuracy = report["accuracy_by_result"][result]
        summary.add_row(result, str(count), "-" if result == "abandoned" else f"{accuracy:.2%}")
    summary.add_row("lost", str(report["lost"]), "-")
    overall = "-" if report["accuracy"] is None else f"{report['accuracy']:.2%}"
    summary.add_row("all", str(report["frames"]), overall, style="bold")
    console.print(summary)
    for result, parts in sorted(report["latency_ms"].items()):
        console.print(f"latency of {result} answers, ms")
        latency = Table()
        for name in ("part", "p50", "p95", "p99"):
            latency.add_column(name, justify="left" if name == "part" else "right")
        for part, values in parts.items():
            latency.add_row(part, *(f"{values[p]:.2f}" for p in ("p50", "p95", "p99")))
        console.print(latency)
    sizes = ", ".join(f"{name} {size:.0f}" for name, size in report["bytes"].items())
    console.print(f"bytes of payload per message: {sizes}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal,
    )  # fmt: skip

"""Are the device's answers right? Each is held against the same student on this machine."""

import time

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.inference import feature_message
from edge_agent.student_slot import StudentSlot
from firmware_images.boot_site import SiteObserver
from firmware_images.card_report import Report

FRAME_SEED = 20  # of the random images that both ends classify
ANSWER_S = 120.0  # for one frame, on a machine that emulates every instruction
CAMERA_ANSWERS = 3
CAMERA_WAIT_S = 300.0
STEP = 1.0  # int8 kernels of x86 and Arm round differently


def compare_answers(
    observer: SiteObserver,
    slots: list[StudentSlot],
    deployment: DeploymentDirectory,
    count: int,
    report: Report,
    when: str,
) -> list[int]:
    """Send frames; every student's features must be within one int8 step of this machine's. Return the frames' ids."""
    frame_ids: list[int] = []
    differences: list[float] = []
    for frame_id, image in enumerate(boot_images(deployment, count), start=time.time_ns() // 1000):
        observer.send_frame(frame_id, image)
        frame_ids.append(frame_id)
        answers = observer.wait_for_features(frame_id, len(slots), time.monotonic() + ANSWER_S)
        for slot in slots:
            answer = answers.get(slot.student.index)
            if answer is None:
                report.fail(f"{when}: frame {frame_id}: no answer of student {slot.student.index} in {ANSWER_S:g} s")
                continue
            here = feature_message(
                frame_id, slot.runtime.run(image), slot.runtime.quantization, slot.student.codec, 0, 0
            ).values.astype(np.float64)
            differences.append(float(np.abs(here - answer.values.astype(np.float64)).max()))
            allowed = slot.student.golden.tolerance if answer.values.dtype == np.float32 else STEP
            if differences[-1] > allowed:
                report.fail(f"{when}: {slot.artifact.file} differs by {differences[-1]:g}, allowed {allowed:g}")
    if differences:
        report.facts[f"{when}: largest difference"] = max(differences)
        report.note(
            f"{when}: {len(differences)} answers of {', '.join(slot.artifact.file for slot in slots)}, "
            f"off by at most {max(differences):g}"
        )
    return frame_ids


def check_merged(observer: SiteObserver, report: Report, when: str) -> None:
    """The coordinator merged the device's features into whole answers."""
    whole = [one for one in observer.predictions.values() if one.result == "complete"]
    report.facts[f"{when}: merged answers"] = len(whole)
    report.note(f"{when}: {len(whole)} of {len(observer.predictions)} answers of the coordinator had all students")
    if not whole:
        report.fail(f"{when}: the coordinator gave no answer with all students")


def watch_camera(observer: SiteObserver, report: Report, when: str) -> None:
    """The device captures, publishes and answers its own images."""
    before = observer.camera_answers
    observer.wait_until(lambda: observer.camera_answers >= before + CAMERA_ANSWERS, time.monotonic() + CAMERA_WAIT_S)
    answered = observer.camera_answers - before
    report.facts[f"{when}: camera answers"] = answered
    report.note(f"{when}: camera: {answered} features of images captured on the device")
    if answered < CAMERA_ANSWERS:
        report.fail(f"{when}: camera: {answered} answers in {CAMERA_WAIT_S:g} s, expected {CAMERA_ANSWERS}")


def boot_images(deployment: DeploymentDirectory, count: int) -> list[NDArray[np.uint8]]:
    """Return the golden input and seeded random images: each (height, width, channels), uint8."""
    shape = (deployment.manifest.input.height, deployment.manifest.input.width, deployment.manifest.input.channels)
    golden = np.frombuffer(deployment.read(deployment.manifest.golden_input), np.uint8).reshape(shape)
    generator = np.random.default_rng(FRAME_SEED)
    random_images = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(count - 1)]
    return [golden, *random_images][:count]

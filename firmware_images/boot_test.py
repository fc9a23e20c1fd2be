"""nonn-image boot-test: the built image starts in QEMU, joins over TLS and answers as this machine would."""

import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.student_slot import StudentSlot, open_student
from firmware_images import programs
from firmware_images.boot_authority import BootAuthority, Identity
from firmware_images.boot_site import HOST_SEEN_BY_GUEST, SITE, BootBroker, SiteObserver
from firmware_images.card_report import inspect_card
from firmware_images.disk_files import image_extents, write_fat_file
from firmware_images.first_boot.provision import CARD_FILE
from firmware_images.qemu_machine import RunningMachine, qemu_command, take_kernel

# QEMU's SD card wants a power of two; larger than the image, so that something is left to grow into.
CARD_BYTES = 2 * 1024**3
FRAME_SEED = 20  # of the random images that both ends classify
CAMERA_ANSWERS = 3
CAMERA_WAIT_S = 120.0
# vivid is the kernel's virtual camera: the device reads it through the same calls as a USB camera.
CAMERA_TABLE = '\n[camera]\nkind = "v4l2"\ndevice = "/dev/video0"\nframes_per_s = 1\n'
CAMERA_MODULE = "modules_load=vivid"
ANSWER_S = 60.0  # for one frame, on a machine that emulates every instruction


@dataclass(frozen=True)
class BootTestOptions:
    """What to start, and how much of it to look at."""

    image: Path
    machine: str
    work: Path
    deployment: Path | None
    timeout_s: float
    frames: int
    power_cut: bool
    niceness: int = 10
    camera: bool = False


@dataclass
class BootReport:
    """What was seen; written as JSON beside the logs."""

    machine: str
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Show one line of what happens."""
        print(line, flush=True)

    def fail(self, line: str) -> None:
        """Note what is not as it should be."""
        self.failures.append(line)
        self.note(f"FAILED: {line}")


def boot_test(options: BootTestOptions) -> int:
    """Run the test; print what happens; exit code 1 if anything is not as it should be."""
    programs.require(["qemu-system-aarch64", "mcopy", "mosquitto", "e2fsck"])
    if options.deployment is None:
        raise UserError("boot-test needs --deployment, for the device to have something to answer with")
    deployment = open_deployment(options.deployment)
    work = options.work.resolve() / options.machine
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    device = f"edge-{options.machine}"
    authority = BootAuthority(work / "tls")
    report = BootReport(options.machine)
    with BootBroker(work, authority) as broker:
        card = work / "card.img"
        identity = authority.issue(device)
        prepare_card(
            options.image,
            card,
            options.deployment,
            _card_text(device, broker.port, authority, identity) + (CAMERA_TABLE if options.camera else ""),
        )
        observer = SiteObserver(broker.port, authority.certificate, authority.issue("observer"), device)
        try:
            _run_boots(options, report, card, work, observer, deployment)
        finally:
            observer.close()
    inspect_card(card, identity.key.read_text(), report, work)
    (work / "report.json").write_text(json.dumps(vars(report), indent=1) + "\n")
    report.note(f"{options.machine}: {'failed: ' + '; '.join(report.failures) if report.failures else 'passed'}")
    return ExitCode.FAILED if report.failures else ExitCode.OK


def prepare_card(image: Path, card: Path, deployment: Path, settings: str) -> None:
    """Copy the image onto a larger card; settings and deployment go where a person would put them."""
    programs.run(["cp", "--sparse=always", "--reflink=auto", image, card])
    with card.open("r+b") as file:
        file.truncate(CARD_BYTES)
    boot = image_extents(card)[0]
    text = card.with_suffix(".toml")
    text.write_text(settings)
    write_fat_file(card, boot, text, CARD_FILE)
    folder = card.with_name("deployment")
    shutil.copytree(deployment, folder)
    write_fat_file(card, boot, folder, "")


def _card_text(device: str, port: int, authority: BootAuthority, identity: Identity) -> str:
    def pem(path: Path) -> str:
        return f'"""\n{path.read_text()}"""'

    return (
        f'[device]\nname = "{device}"\nsite = "{SITE}"\nstudent = 0\n\n[broker]\nhost = "{HOST_SEEN_BY_GUEST}"\n'
        f"port = {port}\nca = {pem(authority.certificate)}\ncert = {pem(identity.certificate)}\n"
        f'key = {pem(identity.key)}\n\n[time]\nzone = "Europe/Berlin"\n'
    )


def _run_boots(
    options: BootTestOptions,
    report: BootReport,
    card: Path,
    work: Path,
    observer: SiteObserver,
    deployment: DeploymentDirectory,
) -> None:
    kernel = take_kernel(card, work)
    session = 0
    added = CAMERA_MODULE if options.camera else ""
    for start in ("first", "second") if options.power_cut else ("first",):
        command = qemu_command(options.machine, kernel, card, work / f"serial-{start}.log", options.niceness, added)
        with RunningMachine(command, work / f"qemu-{start}.log") as machine:
            birth = observer.wait_for_birth(session, machine.started_s + options.timeout_s)
            if birth is None:
                report.fail(f"{start} start: no birth within {options.timeout_s:g} s; see {work}/serial-{start}.log")
                return
            session = birth.session
            report.seconds[f"{start}_birth_wall"] = round(time.monotonic() - machine.started_s, 1)
            report.seconds[f"{start}_birth_cpu"] = round(machine.cpu_seconds(), 1)
            taken = f"{report.seconds[f'{start}_birth_wall']} s ({report.seconds[f'{start}_birth_cpu']} CPU s)"
            report.note(f"{start} start: joined after {taken}, deployment {birth.info.deployment}")
            if birth.info.deployment != deployment.id:
                report.fail(f"the device runs deployment {birth.info.deployment}, expected {deployment.id}")
            _compare_answers(options, report, observer, open_student(deployment, 0, "auto", "auto", 1), deployment)
            if options.camera:
                _watch_camera(report, observer)


def _watch_camera(report: BootReport, observer: SiteObserver) -> None:
    """The device captures, publishes and answers its own images."""
    answered = observer.wait_for_camera(CAMERA_ANSWERS, time.monotonic() + CAMERA_WAIT_S)
    report.facts["camera_answers"] = answered
    report.note(f"camera: {answered} images captured and answered on the device")
    if answered < CAMERA_ANSWERS:
        report.fail(f"camera: {answered} answers within {CAMERA_WAIT_S:g} s, expected {CAMERA_ANSWERS}")


def _compare_answers(
    options: BootTestOptions,
    report: BootReport,
    observer: SiteObserver,
    slot: StudentSlot,
    deployment: DeploymentDirectory,
) -> None:
    """Send frames and compare each answer with this machine's: int8 kernels differ by one step between CPUs."""
    steps = []
    for frame_id, image in enumerate(boot_images(deployment, options.frames), start=time.time_ns() // 1000):
        observer.send_frame(frame_id, image)
        answer = observer.wait_for_features(frame_id, 1, time.monotonic() + ANSWER_S).get(slot.student.index)
        if answer is None:
            report.fail(f"frame {frame_id}: no answer within {ANSWER_S:g} s")
            continue
        here = slot.runtime.run(image).astype(np.float64)
        there = answer.values.astype(np.float64)
        steps.append(float(np.abs(here - there).max()))
    if not steps:
        return
    report.facts["artifact"] = slot.artifact.file
    report.facts["largest_difference"] = max(steps)
    tolerance = 1.0 if slot.artifact.precision == "int8" else slot.student.golden.tolerance
    unit = "int8 steps" if slot.artifact.precision == "int8" else "in features"
    report.note(f"{len(steps)} frames answered with {slot.artifact.file}; off by at most {max(steps):g} {unit}")
    if max(steps) > tolerance:
        report.fail(f"answers differ from this machine's by {max(steps):g} {unit}, allowed {tolerance:g}")


def boot_images(deployment: DeploymentDirectory, count: int) -> list[NDArray[np.uint8]]:
    """Return the golden input and seeded random images: each (height, width, channels), uint8."""
    shape = (deployment.manifest.input.height, deployment.manifest.input.width, deployment.manifest.input.channels)
    golden = np.frombuffer(deployment.read(deployment.manifest.golden_input), np.uint8).reshape(shape)
    generator = np.random.default_rng(FRAME_SEED)
    random_images = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(count - 1)]
    return [golden, *random_images][:count]

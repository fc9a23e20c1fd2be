"""nonn-image boot-test: the built image starts in QEMU, joins over TLS, takes its students and answers as we do."""

import json
import shutil
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.device_card import CARD_FILE
from edge_agent.student_slot import StudentSlot, open_student
from firmware_images import programs
from firmware_images.boot_answers import boot_images, check_merged, compare_answers, watch_camera
from firmware_images.boot_coordinator import BootSite
from firmware_images.boot_inspection import LOOK, TVM_AGENT, DeviceShell, start_tvm_agent
from firmware_images.boot_site import SiteObserver, free_port
from firmware_images.card_report import inspect_card
from firmware_images.disk_files import image_extents, write_fat_file
from firmware_images.qemu_machine import Kernel, RunningMachine, qemu_command, take_kernel

# QEMU's SD card wants a power of two; larger than the image, so that something is left to grow into.
CARD_BYTES = 2 * 1024**3
# vivid is the kernel's virtual camera: the device reads it through the same calls as a USB camera.
CAMERA_MODULE = "modules_load=vivid"
FIRST_UPDATE, SECOND_UPDATE = 2, 3  # versions; the coordinator starts with version 1
CUT_AT = 0.3  # of the second download
FRAME_PERIOD_S = 2.0  # while an update goes on: a switch waits for the frames of a source


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
    inspect: bool = False
    tvm_deployment: Path | None = None


@dataclass
class BootReport:
    """What was seen; written as JSON beside the logs."""

    machine: str
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Show one line of what happens."""
        print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)

    def fail(self, line: str) -> None:
        """Note what is not as it should be."""
        self.failures.append(line)
        self.note(f"FAILED: {line}")


@dataclass
class BootRun:
    """Everything that one boot test works with."""

    options: BootTestOptions
    report: BootReport
    work: Path
    card: Path
    kernel: Kernel
    deployment: DeploymentDirectory
    site: BootSite
    observer: SiteObserver
    shell: DeviceShell | None
    ssh_port: int
    session: int = 0

    @contextmanager
    def started(self, start: str) -> Iterator[RunningMachine | None]:
        """Power on; None if the device is not born in time. The plug is pulled at the end of the block."""
        options = self.options
        command = qemu_command(
            options.machine, self.kernel, self.card, self.work / f"serial-{start}.log", options.niceness,
            CAMERA_MODULE if options.camera else "", self.ssh_port,
        )  # fmt: skip
        with RunningMachine(command, self.work / f"qemu-{start}.log") as machine:
            birth = self.observer.wait_for_birth(self.session, machine.started_s + options.timeout_s)
            if birth is None:
                self.report.fail(f"{start} start: no birth in {options.timeout_s:g} s; see serial-{start}.log")
                yield None
                return
            self.session = birth.session
            self.took(f"{start} start: joined over TLS", machine)
            self.report.facts[f"{start} start: machine"] = birth.info.machine
            self.report.facts[f"{start} start: deployment at birth"] = birth.info.deployment
            if birth.info.problems:
                self.report.fail(f"{start} start: the device reports {'; '.join(birth.info.problems)}")
            yield machine

    def took(self, what: str, machine: RunningMachine) -> None:
        """Note when something was reached after power on."""
        wall, cpu = round(time.monotonic() - machine.started_s, 1), round(machine.cpu_seconds(), 1)
        self.report.seconds |= {f"{what}, wall": wall, f"{what}, CPU": cpu}
        self.report.note(f"{what} after {wall} s ({cpu} CPU s)")


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
    report = BootReport(options.machine)
    card = work / "card.img"
    ssh_port = free_port() if options.inspect or options.tvm_deployment else 0
    shell = DeviceShell(work, ssh_port) if ssh_port else None
    site = BootSite(work, options.deployment)
    words: list[object] = ["--time-zone", "Europe/Berlin"]
    words += ["--camera", "v4l2", "--frames-per-s", 1] if options.camera else []
    words += ["--ssh-key", shell.public_key] if shell else []
    text = site.card(device, [student.index for student in deployment.manifest.students], *words)
    prepare_card(options.image, card, text)
    with ExitStack() as stack:
        stack.enter_context(site)
        observer = SiteObserver(site.login(), device)
        stack.callback(observer.close)
        kernel = take_kernel(card, work)
        _run_starts(BootRun(options, report, work, card, kernel, deployment, site, observer, shell, ssh_port))
    inspect_card(card, tomllib.loads(text)["broker"]["key"], report, work)
    (work / "report.json").write_text(json.dumps(vars(report), indent=1) + "\n")
    report.note(f"{options.machine}: {'failed: ' + '; '.join(report.failures) if report.failures else 'passed'}")
    return ExitCode.FAILED if report.failures else ExitCode.OK


def prepare_card(image: Path, card: Path, settings: str) -> None:
    """Copy the image onto a larger card; the settings go where a person would put them."""
    programs.run(["cp", "--sparse=always", "--reflink=auto", image, card])
    with card.open("r+b") as file:
        file.truncate(CARD_BYTES)
    text = card.with_suffix(".toml")
    text.write_text(settings)
    write_fat_file(card, image_extents(card)[0], text, CARD_FILE)


def _run_starts(run: BootRun) -> None:
    """Start, take the retained deployment, answer; cut the power in the middle of an update; start again."""
    wanted = run.site.deploy(FIRST_UPDATE)
    slots = [open_student(run.deployment, s.index, "auto", "auto", 1) for s in run.deployment.manifest.students]
    with run.started("first") as machine:
        if machine is None or not _updated(run, machine, wanted, "first start"):
            return
        _check_answers(run, slots, "first start")
        if run.shell is not None:
            _inspect(run, run.shell)
        if not run.options.power_cut:
            return
        first, wanted = wanted, run.site.deploy(SECOND_UPDATE)
        if not _wait_for_download(run, wanted):
            return
        run.took("power cut in the middle of a download", machine)
    with run.started("second") as machine:
        if machine is None:
            return
        if run.report.facts["second start: deployment at birth"] != first:
            run.report.fail(f"second start: runs {run.observer.deployment}, expected {first}, as before the cut")
        if _updated(run, machine, wanted, "second start"):
            _check_answers(run, slots, "second start")


def _updated(run: BootRun, machine: RunningMachine, wanted: str, when: str) -> bool:
    """Send frames until the device answers with `wanted`."""
    [image] = boot_images(run.deployment, 1)
    next_frame_s = 0.0

    def reached() -> bool:
        nonlocal next_frame_s
        if time.monotonic() >= next_frame_s:
            next_frame_s = time.monotonic() + FRAME_PERIOD_S
            run.observer.send_frame(time.time_ns() // 1000, image)
        return run.observer.deployment == wanted

    if run.observer.wait_until(reached, time.monotonic() + run.options.timeout_s):
        run.took(f"{when}: answers with the deployment that it received", machine)
        return True
    seen = run.observer.update
    run.report.fail(f"{when}: deployment {wanted} not reached; {f'{seen.state} {seen.error}' if seen else 'no word'}")
    return False


def _wait_for_download(run: BootRun, wanted: str) -> bool:
    def under_way() -> bool:
        update = run.observer.update
        return bool(update and update.target == wanted and update.state == "downloading" and update.progress >= CUT_AT)

    if run.observer.wait_until(under_way, time.monotonic() + run.options.timeout_s):
        return True
    run.report.fail(f"the second update never came to {CUT_AT:.0%} of its download; last word {run.observer.update}")
    return False


def _check_answers(run: BootRun, slots: list[StudentSlot], when: str) -> None:
    compare_answers(run.observer, slots, run.deployment, run.options.frames, run.report, when)
    check_merged(run.observer, run.report, when)
    if run.options.camera:
        watch_camera(run.observer, run.report, when)


def _inspect(run: BootRun, shell: DeviceShell) -> None:
    """Look around over ssh; then let a second agent answer with TVM."""
    try:
        if run.options.inspect:
            (run.work / "inside.txt").write_text(shell.run(LOOK))
            run.report.note("looked around over ssh: inside.txt")
        if run.options.tvm_deployment is not None:
            _check_tvm(run, shell, run.options.tvm_deployment)
    except UserError as error:
        run.report.fail(str(error))


def _check_tvm(run: BootRun, shell: DeviceShell, folder: Path) -> None:
    device = f"edge-{run.options.machine}-{TVM_AGENT}"
    identity = tomllib.loads(run.site.card(device, [1]))["broker"]
    start_tvm_agent(shell, folder, device, identity["cert"], identity["key"])
    observer = SiteObserver(run.site.login(), device)
    try:
        birth = observer.wait_for_birth(0, time.monotonic() + run.options.timeout_s)
        if birth is None:
            status = shell.run(f"systemctl status --no-pager edge-agent@{TVM_AGENT} | tail -5; true")
            run.report.fail(f"TVM agent: not born: {status}")
            return
        run.report.note(f"edge-agent@{TVM_AGENT}: {birth.info.students[0].engine}, {birth.info.students[0].artifact}")
        run.report.facts["TVM agent: engine"] = birth.info.students[0].engine
        deployment = open_deployment(folder)
        # TVM's module is machine code of the other CPU: this machine answers with the same float32 network.
        here = open_student(deployment, birth.info.students[0].student, "tflite", "float32", 1)
        compare_answers(observer, [here], deployment, run.options.frames, run.report, "TVM agent")
    finally:
        observer.close()
        shell.run(f"systemctl stop edge-agent@{TVM_AGENT}")

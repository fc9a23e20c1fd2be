"""One boot test under way: what it works with, what it saw, and the steps that every kind of device goes through."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.protocol.status import NodeInfo
from edge_agent.student_slot import StudentSlot
from firmware_images.boot_answers import boot_images, check_merged, compare_answers, watch_camera
from firmware_images.boot_coordinator import BootSite
from firmware_images.boot_inspection import LOOK, DeviceShell
from firmware_images.boot_site import SiteObserver
from firmware_images.qemu_machine import Kernel, Plug, RunningMachine, qemu_command

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
    role: str = "agent"  # "coordinator": the site's broker and coordinator; "both": it answers frames, too


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
    slots: list[StudentSlot]  # the same students on this machine
    shell: DeviceShell | None
    ports: dict[int, int] | None  # of this machine -> of the device; None: no router of its own
    plug: Plug | None = None  # a cable to other devices
    modules: str = ""  # words for the kernel: what else it finds on this board
    session: int = 0

    @contextmanager
    def started(self, start: str) -> Iterator[RunningMachine | None]:
        """Power on; None if the device is not born in time. The plug is pulled at the end of the block."""
        options = self.options
        command = qemu_command(
            options.machine, self.kernel, self.card, self.work / f"serial-{start}.log", options.niceness,
            self.modules, self.ports, self.plug,
        )  # fmt: skip
        self.session = max(self.session, self.observer.session)  # the program may have started again meanwhile
        with RunningMachine(command, self.work / f"qemu-{start}.log") as machine:
            birth = self.observer.wait_for_birth(self.session, machine.started_s + options.timeout_s)
            if birth is None:
                self.report.fail(f"{start} start: no birth in {options.timeout_s:g} s; see serial-{start}.log")
                yield None
                return
            self.session = birth.session
            self.took(f"{start} start: joined over TLS", machine)
            self.report.facts[f"{start} start: deployment at birth"] = birth.info.deployment
            if isinstance(birth.info, NodeInfo):
                self.report.facts[f"{start} start: machine"] = birth.info.machine
                if birth.info.problems:
                    self.report.fail(f"{start} start: the device reports {'; '.join(birth.info.problems)}")
            yield machine

    def took(self, what: str, machine: RunningMachine) -> None:
        """Note when something was reached after power on."""
        wall, cpu = round(time.monotonic() - machine.started_s, 1), round(machine.cpu_seconds(), 1)
        self.report.seconds |= {f"{what}, wall": wall, f"{what}, CPU": cpu}
        self.report.note(f"{what} after {wall} s ({cpu} CPU s)")

    def sends_until(self, reached: Callable[[], bool]) -> bool:
        """Send a frame now and then until `reached`; whether it was in time."""
        [image] = boot_images(self.deployment, 1)
        next_frame_s = 0.0

        def looked() -> bool:
            nonlocal next_frame_s
            if time.monotonic() >= next_frame_s:
                next_frame_s = time.monotonic() + FRAME_PERIOD_S
                self.observer.send_frame(time.time_ns() // 1000, image)
            return reached()

        return self.observer.wait_until(looked, time.monotonic() + self.options.timeout_s)

    def updated(self, machine: RunningMachine, wanted: str, when: str) -> bool:
        """Send frames until the device answers with `wanted`."""
        if self.sends_until(lambda: self.observer.deployment == wanted):
            self.took(f"{when}: answers with the deployment that it received", machine)
            return True
        seen = self.observer.update
        word = f"{seen.state} {seen.error}" if seen else "no word"
        self.report.fail(f"{when}: deployment {wanted} not reached; {word}")
        return False

    def check_answers(self, when: str) -> None:
        """Features, merged answers and, with a camera, answers of its own images."""
        compare_answers(self.observer, self.slots, self.deployment, self.options.frames, self.report, when)
        check_merged(self.observer, self.report, when)
        if self.options.camera:
            watch_camera(self.observer, self.report, when)

    def look_around(self) -> None:
        """Write down what the running device says of its units, mounts and restrictions."""
        if self.shell is not None and self.options.inspect:
            (self.work / "inside.txt").write_text(self.shell.run(LOOK))
            self.report.note("looked around over ssh: inside.txt")

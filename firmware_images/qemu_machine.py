"""The card in a computer: QEMU's Raspberry Pi 3 or its generic arm64 machine, kernel taken out of the card itself."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edge_agent.console.exit_codes import UserError
from firmware_images import programs
from firmware_images.disk_files import fat_names, image_extents, read_fat_file
from firmware_images.spec import DEVICE_TREES

# Drivers that upset QEMU's Pi: cdc_subset takes the USB network away, the others wait for hardware that is not there.
RASPI3B_BLACKLIST = "cdc_subset,vc4,snd_bcm2835,bcm2835_v4l2,hci_uart,brcmfmac,raspberrypi_cpufreq"


@dataclass(frozen=True)
class Plug:
    """Where a cable of the card goes: a switch's port on this machine, and the network card's own address."""

    port: int
    mac: str


@dataclass(frozen=True)
class Kernel:
    """What QEMU loads in place of the Pi's closed boot chain."""

    kernel: Path
    initramfs: Path
    device_tree: Path
    command_line: str


def take_kernel(card: Path, folder: Path) -> Kernel:
    """Copy kernel, initramfs and device tree out of the card's FAT partition."""
    boot = image_extents(card)[0]
    names = fat_names(card, boot)

    def take(prefix: str) -> Path:
        found = [name for name in names if name.startswith(prefix)]
        content = read_fat_file(card, boot, found[0]) if found else None
        if content is None:
            raise UserError(f"{card}: no {prefix}* on the boot partition")
        (folder / found[0]).write_bytes(content)
        return folder / found[0]

    command_line = take("cmdline.txt").read_text().strip()
    return Kernel(take("vmlinuz-"), take("initrd.img-"), take(DEVICE_TREES["debian"]["pi3"]), command_line)


def qemu_command(
    machine: str,
    kernel: Kernel,
    card: Path,
    serial_log: Path,
    niceness: int,
    extra: str,
    ports: Mapping[int, int] | None,  # of this machine -> of the device
    plug: Plug | None = None,
) -> list[str]:
    """Return QEMU's command line; it starts with the clock in 1970, as a Pi does.

    `ports`: how we reach it through a router of its own; None: it has none. `plug`: a cable to other devices.
    """
    words = kernel.command_line.split()
    # QEMU resets at the first write to the Pi's watchdog; on hardware it stays on.
    added = ["systemd.watchdog_sec=0", *extra.split()]
    if machine == "raspi3b":
        # The serial console is the second port: Bluetooth has the first.
        specific = ["-M", "raspi3b", "-dtb", str(kernel.device_tree), "-drive", f"if=sd,format=raw,file={card}"]
        specific += ["-serial", "null"]
        network_card = "usb-net"
        specific.append("-usb")
        added.append(f"modprobe.blacklist={RASPI3B_BLACKLIST}")
    else:
        words = [word for word in words if not word.startswith("console=")] + ["console=ttyAMA0"]
        specific = ["-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", "1024"]
        specific += ["-drive", f"if=none,id=d0,format=raw,file={card}", "-device", "virtio-blk-device,drive=d0"]
        specific += ["-device", "virtio-rng-device"]
        network_card = "virtio-net-device"
        specific += ["-rtc", "base=1970-01-01T00:00:00,clock=vm"]
    network: list[str] = []
    if ports is not None:
        forwards = [f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in ports.items()]
        network += ["-netdev", ",".join(["user,id=n0", *forwards]), "-device", f"{network_card},netdev=n0"]
    if plug is not None:
        network += ["-netdev", f"socket,id=n1,connect=127.0.0.1:{plug.port}"]
        network += ["-device", f"{network_card},netdev=n1,mac={plug.mac}"]
    return [
        "nice", "-n", str(niceness), "qemu-system-aarch64", *specific,
        "-kernel", str(kernel.kernel), "-initrd", str(kernel.initramfs), "-append", " ".join([*words, *added]),
        *(network or ["-nic", "none"]), "-serial", f"file:{serial_log}",
        "-display", "none", "-monitor", "none", "-no-reboot",
    ]  # fmt: skip


class RunningMachine:
    """A started QEMU; leaving the `with` block ends it like a pulled plug."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self.started_s = 0.0

    def __enter__(self) -> Self:
        self._file = self._log.open("wb")
        self.started_s = time.monotonic()
        environment = {"PATH": programs.SEARCH_PATH}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._file, stderr=subprocess.STDOUT, env=environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    @property
    def running(self) -> bool:
        """Whether QEMU still runs."""
        return self._process is not None and self._process.poll() is None

    def cpu_seconds(self) -> float:
        """Return the CPU time that QEMU took so far."""
        if self._process is None or not self.running:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100  # user and system time in clock ticks of 1/100 s

    def cut_power(self) -> None:
        """End QEMU at once: nothing is flushed, nothing unmounted."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._file is not None:
            self._file.close()
            self._file = None

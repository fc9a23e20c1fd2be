"""Bad cards for boot-test --trouble are bad in the way that they should be, and QEMU is started as asked."""

from pathlib import Path

import pytest

from edge_agent.console.exit_codes import UserError
from firmware_images import programs
from firmware_images.boot_trouble import TROUBLES
from firmware_images.disk_files import extract, image_extents
from firmware_images.first_boot.trouble import LEAST_FREE_BYTES
from firmware_images.qemu_machine import Kernel, qemu_command

KERNEL = Kernel(Path("kernel"), Path("initrd"), Path("tree.dtb"), "console=tty0 console=ttyS1,115200 root=LABEL=R ro")


def test_a_small_card_has_no_room_for_the_data_partition(image_copy: Path) -> None:
    root = image_extents(image_copy)[1]
    TROUBLES["small-card"].spoil(image_copy)
    assert image_copy.stat().st_size >= root.start_bytes + root.size_bytes
    with pytest.raises(UserError, match="cut off: partition 3"):
        image_extents(image_copy)


def test_a_full_card_is_whole_and_has_less_room_than_the_device_wants(image_copy: Path, tmp_path: Path) -> None:
    TROUBLES["full-card"].spoil(image_copy)
    data = tmp_path / "data"
    extract(image_copy, image_extents(image_copy)[2], data)
    programs.run(["e2fsck", "-f", "-n", data])
    text = programs.run(["dumpe2fs", "-h", data])
    numbers = {line.split(":")[0]: line.split(":")[1].strip() for line in text.splitlines() if ":" in line}
    free_bytes = int(numbers["Free blocks"]) * int(numbers["Block size"])
    assert LEAST_FREE_BYTES // 4 < free_bytes < LEAST_FREE_BYTES


@pytest.mark.parametrize("machine", ["virt", "raspi3b"])
def test_qemu_forwards_the_ports_it_is_told_or_has_no_network(machine: str) -> None:
    def words(ports: dict[int, int] | None) -> str:
        return " ".join(qemu_command(machine, KERNEL, Path("card"), Path("log"), 0, "modules_load=vivid", ports))

    assert "-netdev user,id=n0,hostfwd=tcp:127.0.0.1:4000-:22 -device" in words({4000: 22}).replace(
        "-usb -device", "-device"
    )
    assert "hostfwd" not in words({})
    assert "netdev=n0" in words({})
    assert "netdev" not in words(None)
    assert "-nic none" in words(None)
    assert "modules_load=vivid" in words(None)

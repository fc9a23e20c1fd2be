"""nonn-image check: an image, packed or not, and card files; nothing is started, nothing mounted."""

import tempfile
import time
import tomllib
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from firmware_images import programs
from firmware_images.disk_files import ext4_label, extract, fat_names, image_extents, read_fat_file
from firmware_images.first_boot.card_reader import CardProblemsError
from firmware_images.first_boot.card_settings import Places, parse_card
from firmware_images.first_boot.provision import check_certificate, known_places, utc
from firmware_images.partition_table import FIRST_SECTOR, MIB, TYPES, Extent
from firmware_images.spec import DEVICE_TREES, IMAGER_DEVICES, ImageSpec

UNPACKERS = {".zst": "zstd", ".xz": "xz"}
BOOT_FILES = ("config.txt", "cmdline.txt", "nonn-edge.toml")
# The boot ROM of boards up to the Pi 3 and the Pi 4 needs these; the Pi 5 has its firmware on the board.
FIRMWARE_OF = {"pi3": ("bootcode.bin", "start.elf"), "zero2w": ("bootcode.bin", "start.elf"), "pi4": ("start4.elf",)}


def check_image(spec: ImageSpec, image: Path, board: str | None = None) -> list[str]:
    """Return what was found to be right; UserError names the first thing that is not."""
    if not image.is_file():
        raise UserError(f"{image}: no such file")
    _check_board(spec, board)
    with tempfile.TemporaryDirectory(prefix="nonn-image-") as folder:
        scratch = Path(folder)
        raw = unpack(image, scratch)
        extents = image_extents(raw)
        lines = [_check_layout(spec, raw, extents)]
        lines.append(_check_boot_partition(spec, raw, extents[0], [board] if board else list(spec.boards)))
        for partition, extent in list(zip(spec.partitions, extents, strict=True))[1:]:
            file = scratch / partition.name
            extract(raw, extent, file)
            programs.run(["e2fsck", "-f", "-n", file])
            if (label := ext4_label(file)) != partition.label:
                raise UserError(f"{image}: partition {partition.name} is labelled {label}, expected {partition.label}")
            lines.append(f"{partition.name}: ext4 {partition.label}, {extent.size_bytes // MIB} MiB, whole")
            file.unlink()
    return lines


def unpack(image: Path, scratch: Path) -> Path:
    """Return the raw image; a packed one is unpacked into `scratch`."""
    tool = UNPACKERS.get(image.suffix)
    if tool is None:
        return image
    raw = scratch / image.stem
    options = ["--sparse"] if tool == "zstd" else []
    try:
        if tool == "zstd":
            programs.run([tool, "-q", "-d", "-f", *options, image, "-o", raw])
        else:
            programs.run(["sh", "-c", 'xz -d -c "$1" > "$2"', "sh", image, raw])
    except UserError as error:
        if error.exit_code == ExitCode.UNAVAILABLE:
            raise
        raise UserError(f"{image}: damaged or cut off: {error}; download it again") from error
    return raw


def _check_board(spec: ImageSpec, board: str | None) -> None:
    if board is None or board in spec.boards:
        return
    if board not in IMAGER_DEVICES:
        raise UserError(f"board {board}: unknown; expected one of {', '.join(IMAGER_DEVICES)}", ExitCode.USAGE)
    hint = "" if board in DEVICE_TREES[spec.base] else f'; base "{spec.base}" does not start on it'
    raise UserError(f"board {board}: this image is for {', '.join(spec.boards)}{hint}")


def boot_files_of(base: str, board: str) -> set[str]:
    """Return what a board's boot ROM and firmware look for by name; Debian's kernel is named in config.txt."""
    named = {DEVICE_TREES[base][board], *FIRMWARE_OF.get(board, ())}
    if base == "raspios":
        named |= {"kernel_2712.img", "initramfs_2712"} if board == "pi5" else {"kernel8.img", "initramfs8"}
    return named


def boards_of(image: Path, boot: Extent) -> list[str]:
    """Return the boards that find everything they look for on an image's boot partition."""
    names = set(fat_names(image, boot))
    every = [(base, board) for base, trees in DEVICE_TREES.items() for board in trees]
    return list(dict.fromkeys(board for base, board in every if boot_files_of(base, board) <= names))


def _check_layout(spec: ImageSpec, image: Path, extents: list[Extent]) -> str:
    kinds = [extent.kind for extent in extents]
    expected = [TYPES[partition.filesystem] for partition in spec.partitions]
    if kinds != expected:
        shown = ", ".join(f"{kind:#04x}" for kind in kinds)
        raise UserError(
            f"{image}: partitions of types {shown}, expected {', '.join(f'{kind:#04x}' for kind in expected)}"
        )
    if extents[0].start != FIRST_SECTOR:
        raise UserError(f"{image}: the first partition starts at sector {extents[0].start}, expected {FIRST_SECTOR}")
    return f"partition table: {len(extents)} partitions, {image.stat().st_size // MIB} MiB"


def _check_boot_partition(spec: ImageSpec, image: Path, extent: Extent, boards: list[str]) -> str:
    names = set(fat_names(image, extent))
    wanted = {*BOOT_FILES}.union(*(boot_files_of(spec.base, board) for board in boards))
    missing = sorted(wanted - names)
    if missing:
        raise UserError(f"{image}: the boot partition lacks {', '.join(missing)}")
    config = (read_fat_file(image, extent, "config.txt") or b"").decode(errors="replace")
    for line in config.splitlines():
        words = line.replace("=", " ").split()
        if words[:1] in (["kernel"], ["initramfs"]) and words[1] not in names:
            raise UserError(f"{image}: config.txt asks for {words[1]}, which is not on the boot partition")
    command_line = (read_fat_file(image, extent, "cmdline.txt") or b"").decode(errors="replace")
    root = f"root=LABEL={spec.partition('root').label}"
    if root not in command_line.split():
        raise UserError(f"{image}: cmdline.txt lacks {root}")
    template = read_fat_file(image, extent, "nonn-edge.toml") or b""
    tomllib.loads(template.decode())
    return f"boot: FAT32 {spec.partition('boot').label}, {len(names)} files, boards {', '.join(boards)}"


def check_card_file(path: Path) -> list[str]:
    """Check a card's settings as the device will; UserError lists everything to correct."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    root = Path("/")
    anything = Places(lambda _country: True, lambda _zone: True)
    has_zones = (root / "usr/share/zoneinfo/iso3166.tab").is_file()
    try:
        settings = parse_card(content, known_places(root) if has_zones else anything)
        check_certificate(settings, utc(time.time()))
    except CardProblemsError as error:
        raise UserError("\n  ".join([f"{path}:", *error.problems]), ExitCode.BAD_INPUT) from error
    students = ", ".join(map(str, settings.students)) or "none"
    transport = "TLS" if settings.broker.tls else "PLAIN"
    where = f"{settings.broker.host}:{settings.broker.port} ({transport})"
    return [f"{settings.name}: role {settings.role}, student {students}, broker {where}"]

"""nonn-image flash: writes an image to a card, reads it back, puts the card's settings on it."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.device_card import CARD_FILE
from firmware_images.disk_files import image_extents, write_fat_file
from firmware_images.image_check import UNPACKERS, boards_of, check_card_file, unpack
from firmware_images.partition_table import MIB

CHUNK_BYTES = 4 * MIB
LARGEST_CARD_BYTES = 2 * 1024**4  # SDXC ends here; a larger "card" is somebody's disk


def flash(image: Path, device: Path, settings: Path | None, board: str | None, *, assume_yes: bool) -> None:
    """Write and verify; UserError before the first byte if anything speaks against it."""
    if settings is not None:
        print("\n".join(check_card_file(settings)))
    if not image.is_file():
        raise UserError(f"{image}: no such file")
    with tempfile.TemporaryDirectory(prefix="nonn-image-", dir=image.parent) as folder:
        raw = unpack(image, Path(folder)) if image.suffix in UNPACKERS else image
        boot = image_extents(raw)[0]  # cut off, or no image at all
        boards = boards_of(raw, boot)
        if board is not None and board not in boards:
            raise UserError(f"board {board}: {image} is for {', '.join(boards)}; nothing was written")
        if not boards:
            raise UserError(
                f"{image}: no Raspberry Pi finds its boot files there; expected an image of `nonn-image build`"
            )
        print(f"{image.name} is for {', '.join(boards)}")
        check_target(device, raw.stat().st_size)
        if not assume_yes and not _agreed(device):
            raise UserError("nothing was written", ExitCode.INTERRUPTED)
        digest = _write(raw, device)
        _verify(raw, device, digest)
    if settings is not None:
        write_fat_file(device, image_extents(device)[0], settings, CARD_FILE)
        print(f"{settings.name} is on the card as {CARD_FILE}")


def check_target(device: Path, size_bytes: int, mounts: Path = Path("/proc/mounts")) -> None:
    """UserError if the device is absent, no card, too small or in use."""
    if not device.exists():
        raise UserError(f"{device}: no such device; is the card in the reader? lsblk lists what there is")
    used = [line.split()[:2] for line in mounts.read_text().splitlines()]
    for source, mount_point in used:
        if source.startswith(str(device.resolve())):
            raise UserError(f"{device}: {source} is mounted at {mount_point}; unmount it first", ExitCode.USAGE)
    room = target_bytes(device)
    if room < size_bytes:
        raise UserError(
            f"{device}: the card is too small: it has {room // MIB} MiB, the image needs {size_bytes // MIB} MiB"
        )
    if room > LARGEST_CARD_BYTES:
        raise UserError(f"{device}: {room // 1024**3} GiB is no SD card; is it the right device?", ExitCode.USAGE)


def target_bytes(device: Path) -> int:
    """Return the size of a block device or file."""
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _agreed(device: Path) -> bool:
    if not sys.stdin.isatty():
        raise UserError("flash asks before it writes; without a terminal say --yes", ExitCode.USAGE)
    size = target_bytes(device) // MIB
    return input(f"Everything on {device} ({size} MiB) will be lost. Write? [y/N] ").strip().lower() == "y"


def _write(image: Path, device: Path) -> str:
    digest = hashlib.sha256()
    size, done = image.stat().st_size, 0
    with image.open("rb") as source, device.open("r+b") as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
            done += len(chunk)
            _progress("writing", done, size)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _verify(image: Path, device: Path, expected: str) -> None:
    digest = hashlib.sha256()
    size, done = image.stat().st_size, 0
    with device.open("rb") as source:
        # What the kernel remembers of the writing proves nothing about the card.
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while done < size and (chunk := source.read(min(CHUNK_BYTES, size - done))):
            digest.update(chunk)
            done += len(chunk)
            _progress("reading back", done, size)
    if digest.hexdigest() != expected:
        raise UserError(f"{device}: what was read back differs from the image; the card is worn out or counterfeit")
    subprocess.run(["blockdev", "--rereadpt", str(device)], capture_output=True, check=False)


def _progress(what: str, done: int, size: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == size else ""
        print(f"\r{what}: {done * 100 // size} %", end=end, file=sys.stderr, flush=True)

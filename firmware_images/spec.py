"""The image's declarative description: read from TOML, checked, hashed; no other module knows its file."""

import hashlib
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edge_agent.console.exit_codes import ExitCode, UserError

SPEC_FOLDER = Path(__file__).parent / "specs"
DEFAULT_SPEC = SPEC_FOLDER / "nonn-edge.toml"

Board = Literal["pi3", "zero2w", "pi4", "pi5"]
Role = Literal["agent", "coordinator", "both"]
# What each base's kernel calls its boards. Debian 12's kernel 6.1 has no device tree for the Pi 5, Raspberry Pi's has.
DEVICE_TREES: dict[str, dict[str, str]] = {
    "debian": {
        "pi3": "bcm2837-rpi-3-b.dtb",
        "zero2w": "bcm2837-rpi-zero-2-w.dtb",
        "pi4": "bcm2711-rpi-4-b.dtb",
    },
    "raspios": {
        "pi3": "bcm2710-rpi-3-b.dtb",
        "zero2w": "bcm2710-rpi-zero-2-w.dtb",
        "pi4": "bcm2711-rpi-4-b.dtb",
        "pi5": "bcm2712-rpi-5-b.dtb",
    },
}
IMAGER_DEVICES: dict[str, str] = {
    "pi3": "pi3-64bit",
    "zero2w": "pi3-64bit",
    "pi4": "pi4-64bit",
    "pi5": "pi5-64bit",
}

PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,11}$")]  # FAT allows 11 characters
RelativePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Packages(_Frozen):
    """Debian packages and which of their files stay out."""

    install: tuple[PackageName, ...] = Field(min_length=1)
    exclude_paths: tuple[str, ...] = ()
    include_paths: tuple[str, ...] = ()


class Kernel(_Frozen):
    """Kernel modules left out, put back and loaded early."""

    exclude_modules: tuple[RelativePath, ...] = ()
    include_modules: tuple[RelativePath, ...] = ()
    initramfs_modules: tuple[str, ...] = ()
    consoles: str = "tty0"


class Wheels(_Frozen):
    """Python packages, each named by version and sha256 in a lock file beside the spec."""

    python: Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]
    lock: str
    # The 95 MB apache-tvm wheel, by hash; only its 3 MB runtime gets onto the image.
    tvm_lock: str | None = None


class Services(_Frozen):
    """Units to enable and to mask."""

    enable: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()


class Partition(_Frozen):
    """One MBR partition; a size in MiB, or as much as its content plus `spare_percent`."""

    name: Literal["boot", "root", "data"]
    label: Label
    filesystem: Literal["vfat", "ext4"]
    uuid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{8,36}$")]
    size_mib: int | None = Field(default=None, ge=33, le=16384)  # FAT32 has at least 65525 clusters: 33 MiB
    spare_percent: int = Field(default=10, ge=0, le=200)
    grow: bool = False


class Imager(_Frozen):
    """What Raspberry Pi Imager shows, and where it downloads from."""

    title: str = Field(min_length=1)
    description: str
    website: str
    icon: str
    download: str


class ImageSpec(_Frozen):
    """A whole image."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
    suite: Literal["bookworm", "trixie"]
    base: Literal["debian", "raspios"]
    architecture: Literal["arm64"]
    boards: tuple[Board, ...] = Field(min_length=1)
    source_date_epoch: int = Field(ge=1_500_000_000)
    default_role: Role
    packages: Packages
    kernel: Kernel
    wheels: Wheels
    services: Services
    partitions: tuple[Partition, ...]
    imager: Imager
    deployment: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "ImageSpec":
        for board in self.boards:
            if board not in DEVICE_TREES[self.base]:
                raise ValueError(f'boards: {board} does not start with base "{self.base}"; it needs base "raspios"')
        names = [partition.name for partition in self.partitions]
        if names != ["boot", "root", "data"]:
            raise ValueError(f"partitions: expected boot, root, data in this order, found {', '.join(names)}")
        if self.partitions[0].filesystem != "vfat" or self.partitions[0].size_mib is None:
            raise ValueError("partitions: boot is vfat with a size; the Pi's boot ROM reads nothing else")
        if any(partition.filesystem != "ext4" for partition in self.partitions[1:]):
            raise ValueError("partitions: root and data are ext4")
        if [partition.grow for partition in self.partitions] != [False, False, True]:
            raise ValueError("partitions: data, and only data, has grow = true; it is the last one")
        if len({partition.label for partition in self.partitions}) != len(self.partitions):
            raise ValueError("partitions: two partitions have the same label")
        return self

    def partition(self, name: str) -> Partition:
        """Return the partition called `name`."""
        return next(partition for partition in self.partitions if partition.name == name)


def load_spec(path: Path) -> ImageSpec:
    """Read and check a spec; UserError names the file and the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}", ExitCode.CONFIGURATION) from error
    return parse_spec(text, str(path))


def parse_spec(text: str, where: str) -> ImageSpec:
    """Check the text of a spec; the environment's SOURCE_DATE_EPOCH wins over the file's."""
    try:
        document = tomllib.loads(text)
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is not None:
            document["source_date_epoch"] = int(epoch)
        return ImageSpec.model_validate(document)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise UserError(f"{where}: {_plain(error)}", ExitCode.CONFIGURATION) from error


def fingerprint(value: object) -> str:
    """Twelve hex digits that change when `value` (JSON-able) does.

    >>> fingerprint({"a": 1}) == fingerprint({"a": 2})
    False
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = re.sub(r"^Value error, ", "", first["msg"])
    return f"{field}: {message}" if field else message

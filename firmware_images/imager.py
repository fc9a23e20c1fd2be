"""The catalogue that Raspberry Pi Imager reads: os_list.json, written and checked.

Keys, types and words are those of the schema that Imager's authors publish (doc/json-schema/os-list-schema.json, as of
Imager 2). Where the schema lets anything pass, this is stricter: addresses, dates, hashes and sizes have to be possible
ones, and a key that Imager does not know is a mistake.
"""

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import UserError
from firmware_images.disk_files import sha256_of
from firmware_images.spec import IMAGER_DEVICES, ImageSpec

PACKED = (".zip", ".gz", ".xz", ".zst")  # what Imager unpacks; zstd since 1.7
SECTOR_BYTES = 512


def _website(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or re.search(r"\s", text):
        raise ValueError("expected an address such as https://example.org")
    return text


def _file_address(text: str) -> str:
    parts = urlsplit(text)
    if not parts.path.strip("/") or re.search(r"\s", text) or (parts.scheme != "file" and not _website(text)):
        raise ValueError("expected the address of a file, such as https://example.org/nonn-edge.img.zst")
    return text


def _download(text: str) -> str:
    if not urlsplit(_file_address(text)).path.endswith(PACKED):
        raise ValueError(f"expected the address of a packed image: {', '.join(PACKED)}")
    return text


def _icon(text: str) -> str:
    # Imager's own icons are named by a relative path.
    return text if re.fullmatch(r"[\w.-]+(/[\w.-]+)*", text) else _file_address(text)


def _day(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError("expected a day such as 2026-11-23")
    date.fromisoformat(text)
    return text


def _each_once(devices: list[str]) -> list[str]:
    if len(set(devices)) < len(devices):
        raise ValueError("expected each device once")
    return devices


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Device = Annotated[str, StringConstraints(pattern=r"^pi[0-9](-(32|64)bit)?$")]
Capability = Literal["secure_boot", "passwordless_sudo", "i2c", "spi", "onewire", "serial", "usb_otg"]


class CatalogueEntry(BaseModel):
    """One image."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Text
    description: Text
    icon: Annotated[str, AfterValidator(_icon)]
    url: Annotated[str, AfterValidator(_download)]
    website: Annotated[str, AfterValidator(_website)] | None = None
    extract_size: int = Field(gt=0, multiple_of=SECTOR_BYTES)
    extract_sha256: Sha256  # of the uncompressed image: what Imager reads back from the card
    image_download_size: int = Field(gt=0)
    image_download_sha256: Sha256
    release_date: Annotated[str, AfterValidator(_day)]
    devices: Annotated[list[Device], AfterValidator(_each_once)] = Field(min_length=1)
    architecture: Literal["armel", "armhf", "armv8"] = "armv8"
    # Left out: Imager's own customisation writes scripts and cloud-init files, the card's TOML is neither.
    init_format: Literal["", "systemd", "cloudinit", "cloudinit-rpi", "rpi-preseed", "none"] | None = None
    capabilities: list[Capability] | None = None
    random: bool | None = None
    tooltip: Text | None = None


class Catalogue(BaseModel):
    """The whole file. Its other key, `imager`, is for the list that Raspberry Pi itself publishes."""

    model_config = ConfigDict(extra="forbid", strict=True)
    os_list: list[CatalogueEntry] = Field(min_length=1)


def catalogue(
    spec: ImageSpec, image_name: str, image_bytes: int, image_sha256: str, packed_bytes: int, packed_sha256: str
) -> dict[str, Any]:
    """Return os_list.json as a document."""
    entry = CatalogueEntry(
        name=spec.imager.title,
        description=spec.imager.description,
        icon=spec.imager.icon,
        url=f"{spec.imager.download.rstrip('/')}/{image_name}",
        website=spec.imager.website,
        extract_size=image_bytes,
        extract_sha256=image_sha256,
        image_download_size=packed_bytes,
        image_download_sha256=packed_sha256,
        release_date=f"{datetime.fromtimestamp(spec.source_date_epoch, UTC):%Y-%m-%d}",
        devices=sorted({IMAGER_DEVICES[board] for board in spec.boards}),
    )
    return Catalogue(os_list=[entry]).model_dump(exclude_none=True)


def check_catalogue(path: Path) -> Catalogue:
    """Read a catalogue; UserError says which field Imager would not take, or which file it does not describe."""
    try:
        document = Catalogue.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `nonn-image build` writes it") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in first["loc"]))
        message = re.sub(r"^Value error, ", "", first["msg"])
        raise UserError(f"{path}: {f'{field}: ' if field else ''}{message}") from None
    for entry in document.os_list:
        _check_file(path, entry)
    return document


def _check_file(path: Path, entry: CatalogueEntry) -> None:
    """Hold the entry against the image, where it lies beside the catalogue."""
    packed = path.parent / urlsplit(entry.url).path.rsplit("/", 1)[-1]
    if not packed.is_file():
        return
    if (size := packed.stat().st_size) != entry.image_download_size:
        raise UserError(f"{path}: image_download_size: {entry.image_download_size}, but {packed.name} has {size} bytes")
    if sha256_of(packed) != entry.image_download_sha256:
        raise UserError(f"{path}: image_download_sha256: {packed.name} has another; build it again")


def set_download(path: Path, url: str) -> None:
    """Point a catalogue at where its image will be; the file name stays."""
    document = check_catalogue(path)
    entry = document.os_list[0]
    entry.url = f"{url.rstrip('/')}/{entry.url.rsplit('/', 1)[-1]}"
    try:
        checked = Catalogue.model_validate(document.model_dump())
    except ValidationError:
        raise UserError(f"--url {url}: expected an address such as https://example.org/images") from None
    write_atomically(path, (checked.model_dump_json(indent=1, exclude_none=True) + "\n").encode())

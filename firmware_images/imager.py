"""The catalogue that Raspberry Pi Imager reads: os_list.json, written and checked."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import UserError
from firmware_images.spec import IMAGER_DEVICES, ImageSpec

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, StringConstraints(pattern=r"^(https?|file)://\S+$")]


class CatalogueEntry(BaseModel):
    """One image, as Imager's os-list schema wants it."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    icon: str = Field(min_length=1)
    url: Url
    website: Url | None = None
    extract_size: int = Field(gt=0)
    extract_sha256: Sha256  # of the uncompressed image: what Imager reads back from the card
    image_download_size: int = Field(gt=0)
    image_download_sha256: Sha256
    release_date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    devices: list[Annotated[str, StringConstraints(pattern=r"^pi[0-9]-(32|64)bit$")]] = Field(min_length=1)
    architecture: Literal["armv8"] = "armv8"
    # init_format is left out: Imager's own customisation knows systemd and cloud-init, the card's TOML is neither.


class Catalogue(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")
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
    """Read a catalogue; UserError says which field Imager would not take."""
    try:
        return Catalogue.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in first["loc"]))
        raise UserError(f"{path}: {field}: {first['msg']}") from None


def set_download(path: Path, url: str) -> None:
    """Point a catalogue at where its image will be; the file name stays."""
    document = check_catalogue(path)
    entry = document.os_list[0]
    entry.url = f"{url.rstrip('/')}/{entry.url.rsplit('/', 1)[-1]}"
    checked = Catalogue.model_validate(document.model_dump())
    write_atomically(path, (checked.model_dump_json(indent=1, exclude_none=True) + "\n").encode())

"""What stands beside an image: compressed forms, signed checksums, block map, bill of materials, catalogue."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firmware_images import programs
from firmware_images.bill_of_materials import write_bill
from firmware_images.block_map import write_block_map
from firmware_images.disk_files import sha256_of
from firmware_images.imager import catalogue
from firmware_images.spec import ImageSpec
from firmware_images.tree_content import SITE

ZSTD_LEVEL = 12  # 164 MB in half a minute; 19 saves 4 % for ten times as long
CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class ReleaseOptions:
    """What to make beyond the .img.zst."""

    xz: bool = False  # over 400 CPU seconds: for releases
    sign_key: str | None = None  # gpg key id
    keep_raw: bool = True


def write_release(
    spec: ImageSpec, image: Path, content: Path, output: Path, options: ReleaseOptions, say: Callable[[str], None]
) -> None:
    """Write everything beside a copy of `image` into `output`."""
    raw = output / image.name
    programs.run(["cp", "--sparse=always", "--reflink=auto", image, raw])
    say(f"packing {raw.name} ({raw.stat().st_size >> 20} MiB) ...")
    packed = output / f"{raw.name}.zst"
    # One thread pool size gives one output; zstd's own default follows the machine's cores.
    programs.run(["zstd", "-q", "-f", f"-{ZSTD_LEVEL}", "-T2", "--no-progress", raw, "-o", packed])
    files = [raw, packed]
    if options.xz:
        programs.run(["xz", "-k", "-f", "-6", "-T2", raw])
        files.append(output / f"{raw.name}.xz")
    mapped = write_block_map(raw, output / f"{raw.name}.bmap")
    components = write_bill(
        spec, content / "root", content / "root" / SITE.lstrip("/"), output / f"{spec.name}.cdx.json"
    )
    hashes = {path.name: sha256_of(path) for path in files}
    document = catalogue(
        spec, packed.name, raw.stat().st_size, hashes[raw.name], packed.stat().st_size, hashes[packed.name]
    )
    (output / "os_list.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name in (f"{raw.name}.bmap", f"{spec.name}.cdx.json", "os_list.json"):
        hashes[name] = sha256_of(output / name)
    checksums = output / CHECKSUMS
    checksums.write_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items()), encoding="utf-8")
    if options.sign_key is not None:
        command = ["gpg", "--batch", "--yes", "--local-user", options.sign_key, "--armor", "--detach-sign"]
        programs.run([*command, "--output", output / f"{CHECKSUMS}.asc", checksums])
    if not options.keep_raw:
        raw.unlink()
    say(f"{packed.name}: {packed.stat().st_size >> 20} MiB, {mapped} blocks in use, {components} components")

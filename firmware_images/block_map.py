"""A bmap 2.0 file: which blocks of the image hold something, with hashes, so that flashing skips the rest."""

import hashlib
import os
from pathlib import Path
from xml.sax.saxutils import escape

BLOCK_BYTES = 4096


def write_block_map(image: Path, target: Path) -> int:
    """Write `target` for `image`; return how many of its blocks hold something."""
    size = image.stat().st_size
    ranges = mapped_ranges(image, size)
    blocks = -(-size // BLOCK_BYTES)
    mapped = sum(last - first + 1 for first, last in ranges)
    lines = []
    with image.open("rb") as file:
        for first, last in ranges:
            file.seek(first * BLOCK_BYTES)
            digest = hashlib.sha256(file.read((last - first + 1) * BLOCK_BYTES)).hexdigest()
            span = f"{first}-{last}" if last > first else str(first)
            lines.append(f'    <Range chksum="{digest}"> {span} </Range>')
    text = _document(image.name, size, blocks, mapped, lines, "0" * 64)
    # The format's own check: the hash of the file with zeros where the hash stands.
    own = hashlib.sha256(text.encode()).hexdigest()
    target.write_text(_document(image.name, size, blocks, mapped, lines, own), encoding="utf-8")
    return mapped


def mapped_ranges(image: Path, size: int) -> list[tuple[int, int]]:
    """Return (first, last) block of every stretch that is not a hole of the file."""
    ranges: list[tuple[int, int]] = []
    with image.open("rb") as file:
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            ranges.append((start // BLOCK_BYTES, (position - 1) // BLOCK_BYTES))
    return ranges


def _document(name: str, size: int, blocks: int, mapped: int, ranges: list[str], own: str) -> str:
    return "\n".join(
        [
            '<?xml version="1.0" ?>',
            f"<!-- Block map of {escape(name)}: bmaptool copy {escape(name)}.zst /dev/... -->",
            '<bmap version="2.0">',
            f"    <ImageSize> {size} </ImageSize>",
            f"    <BlockSize> {BLOCK_BYTES} </BlockSize>",
            f"    <BlocksCount> {blocks} </BlocksCount>",
            f"    <MappedBlocksCount> {mapped} </MappedBlocksCount>",
            "    <ChecksumType> sha256 </ChecksumType>",
            f"    <BmapFileChecksum> {own} </BmapFileChecksum>",
            "    <BlockMap>",
            *[line.replace("    <Range", "        <Range") for line in ranges],
            "    </BlockMap>",
            "</bmap>",
            "",
        ]
    )

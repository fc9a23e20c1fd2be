"""Writes and reads .npz files of plain float32 arrays, as docs/protocol.md, section 9, allows them.

What is read is held within its own size: NumPy's reader believes what a file says of itself, a damaged header may ask
for any amount of memory, a compressed member may unpack to any length, and bad bytes raise a dozen kinds of exceptions.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_agent.protocol.errors import ManifestError

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]{0,40})\), \} *\n")


def read_arrays(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Arrays by name, as read-only views; ManifestError for anything but stored members of little-endian float32."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
                raise ManifestError("head: compressed or encrypted members, expected stored ones")
            # Members may overlap: together they may still not be longer than the file.
            if sum(member.file_size for member in members) > len(content):
                raise ManifestError("head: members longer than the file")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError, OverflowError) as error:
        # RuntimeError and NotImplementedError: encryption, versions and methods that zipfile does not know.
        raise ManifestError(f"head: not an .npz file ({str(error)[:100]})") from None


def write_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """An .npz file; the same arrays give the same bytes, whatever the version of Python (np.savez's differ)."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array.astype("<f4", order="C", copy=False), (1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return content.getvalue()


def _array(member: bytes) -> NDArray[np.float32]:
    length = int.from_bytes(member[8:10], "little")
    header = _HEADER.fullmatch(member[10 : 10 + length])
    if member[:8] != _MAGIC or header is None:
        raise ManifestError("head: a member is not a little-endian float32 array in row order (.npy version 1.0)")
    shape = tuple(int(side) for side in header[1].decode().split(",") if side.strip())
    if len(member) != 10 + length + 4 * prod(shape):
        raise ManifestError(f"head: an array of {len(member) - 10 - length} bytes says that it is {shape}")
    return np.frombuffer(member, np.dtype("<f4"), offset=10 + length).reshape(shape)

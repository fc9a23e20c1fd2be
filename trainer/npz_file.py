"""Arrays on disk, written whole or not at all."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.exit_codes import UserError


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an uncompressed .npz atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an .npz; UserError names a missing or damaged file."""
    try:
        # From memory: np.load leaves the file open when it turns out to be damaged.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable .npz file ({error}); delete it and run its stage again") from None

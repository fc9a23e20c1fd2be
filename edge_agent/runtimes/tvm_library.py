"""TVM's light runtime, one shared library of 3 MB: find it, load it, take it out of an apache-tvm wheel.

`python -m edge_agent.runtimes.tvm_library WHEEL FOLDER` is how a device gets it without the 300 MB package.
"""

import ctypes
import importlib.util
import os
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_agent.console.atomic_file import write_atomically
from edge_agent.runtimes.student_runtime import MissingEngineError

ENVIRONMENT_VARIABLE = "NONN_TVM_RUNTIME"
LIBRARY = "libtvm_runtime.so"
VERSION_FILE = "libtvm_runtime.version"
FFI_PIP_LINE = "pip install 'apache-tvm-ffi==0.1.14.post0'"


@dataclass(frozen=True)
class TVMLibrary:
    """Where the runtime is, and its version; empty if nothing says so."""

    path: Path
    version: str


def find_library() -> TVMLibrary:
    """Find the runtime: where NONN_TVM_RUNTIME says, else inside an installed apache-tvm."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        path = Path(named) / LIBRARY if Path(named).is_dir() else Path(named)
        if not path.is_file():
            raise MissingEngineError(f"{ENVIRONMENT_VARIABLE}={named}: no {LIBRARY} there")
        version_file = path.with_name(VERSION_FILE)
        return TVMLibrary(path, version_file.read_text().strip() if version_file.is_file() else "")
    package = importlib.util.find_spec("tvm")  # finds the folder without importing the 300 MB
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "lib" / LIBRARY
        if path.is_file():
            return TVMLibrary(path, metadata.version("apache-tvm"))
    raise MissingEngineError(
        f"TVM's runtime is not here: put {LIBRARY} of an apache-tvm wheel into a folder "
        f"(python -m edge_agent.runtimes.tvm_library WHEEL FOLDER) and set {ENVIRONMENT_VARIABLE} to it"
    )


def load_library() -> tuple[Any, TVMLibrary]:
    """Load tvm_ffi and the runtime; MissingEngineError says what to install."""
    library = find_library()
    try:
        import tvm_ffi
    except ImportError as error:
        raise MissingEngineError(f"TVM students need tvm_ffi ({error}): {FFI_PIP_LINE}") from error
    try:
        # Global, because it registers its functions with tvm_ffi's already loaded library.
        ctypes.CDLL(str(library.path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingEngineError(f"{library.path}: does not load here: {error}") from error
    return tvm_ffi, library


def extract_library(wheel: Path, folder: Path) -> TVMLibrary:
    """Write the runtime and its version from an apache-tvm wheel into `folder`."""
    name, version = wheel.name.split("-")[:2]
    if name != "apache_tvm":
        raise MissingEngineError(f"{wheel}: expected a wheel of apache-tvm")
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(f"tvm/lib/{LIBRARY}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise MissingEngineError(f"{wheel}: no tvm/lib/{LIBRARY} in it: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / LIBRARY, content)
    write_atomically(folder / VERSION_FILE, f"{version}\n".encode())
    return TVMLibrary(folder / LIBRARY, version)


def main(arguments: list[str]) -> int:
    """Extract the runtime: WHEEL FOLDER."""
    if len(arguments) != 2:
        print("usage: python -m edge_agent.runtimes.tvm_library WHEEL FOLDER", file=sys.stderr)
        return 64
    try:
        library = extract_library(Path(arguments[0]), Path(arguments[1]))
    except MissingEngineError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    print(f"{library.path}: TVM {library.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

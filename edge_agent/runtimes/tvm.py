"""Students compiled by TVM, run by its light runtime: a shared library and tvm_ffi, no compiler."""

import json
import logging
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.cpu_targets import this_cpu, why_unfit
from edge_agent.runtimes.student_runtime import EngineError, check_image, check_readable, check_signature
from edge_agent.runtimes.tvm_library import load_library

ALIGNMENT_BYTES = 64  # TVM's kernels load whole vectors: NumPy's own 16 are not enough
CPU_DEVICE, POOLED_ALLOCATOR = 1, 2
ELF_HEADER = struct.Struct("<4s5B7x2HIQQQI6H")
ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
_log = logging.getLogger("agent")


class TVMRuntime:
    """A TVM module and its one input buffer; (1,H,W,C) float32 raw pixels in, (1,width) float32 out."""

    engine = "tvm"
    quantization: tuple[float, int] | None = None

    def __init__(self, machine: Any, tvm_ffi: Any, description: dict[str, Any]) -> None:
        height, width, channels = description["input"]
        self.engine_version = f"tvm {description['tvm']}"
        self.input_shape: tuple[int, int, int] = (height, width, channels)
        self.width = int(description["width"])
        self.workspace_bytes: int | None = description.get("workspace_bytes")
        self._machine = machine
        self._main = machine["main"]
        self._pixels = _aligned_zeros((1, height, width, channels))
        self._input = tvm_ffi.from_dlpack(self._pixels)

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.int8] | NDArray[np.float32]:
        """Features of `image`: one cast into the input buffer and no other copy."""
        check_image(image, self.input_shape)
        np.copyto(self._pixels[0], image)
        answer = self._main(self._input)
        features: NDArray[np.float32] = np.from_dlpack(answer)[0].copy()
        return features

    def close(self) -> None:
        """Drop the module and its workspace."""
        self._main = self._machine = self._input = None


def open_tvm(path: Path, num_threads: int) -> TVMRuntime:
    """Open a compiled student; EngineError says what is wrong with it or with this machine."""
    check_readable(path)
    check_elf(path)
    if num_threads > 1:
        _log.warning("%s: TVM students run on one thread; num_threads = %d is for LiteRT", path.name, num_threads)
    # Read once, when the runtime starts its pool; the kernels are single-threaded.
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    tvm_ffi, library = load_library()
    try:
        machine = tvm_ffi.load_module(str(path.resolve()))["vm_load_executable"]()
        machine["vm_initialization"](CPU_DEVICE, 0, POOLED_ALLOCATOR)
        description = json.loads(machine["describe"]())
    except (RuntimeError, AttributeError, KeyError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        version = library.version or "of unknown version"
        raise EngineError(f"{path}: not a student that TVM {version} can load: {reason}") from error
    _check_description(path, description, library.version)
    return TVMRuntime(machine, tvm_ffi, description)


def check_elf(path: Path) -> None:
    """Refuse what the loader would crash on or refuse vaguely: other CPUs' files and cut ones."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(ELF_HEADER.size)
    if len(head) < ELF_HEADER.size or head[:4] != b"\x7fELF":
        raise EngineError(f"{path}: not a shared library, expected a student compiled by TVM")
    fields = ELF_HEADER.unpack(head)
    machine, sections_at, section_bytes, sections = fields[7], fields[11], fields[16], fields[17]
    expected = this_cpu().machine
    if ELF_MACHINES.get(machine, machine) != expected:
        compiled_for = ELF_MACHINES.get(machine, f"ELF machine {machine}")
        raise EngineError(f"{path}: compiled for {compiled_for}, this CPU is {expected}")
    if sections_at + section_bytes * sections > size_bytes:
        raise EngineError(f"{path}: cut short at {size_bytes} bytes")


def _check_description(path: Path, description: Any, runtime_version: str) -> None:
    try:
        target, version = str(description["target"]), str(description["tvm"])
        check_signature(path, [1, *description["input"]], [1, description["width"]])
    except (KeyError, TypeError) as error:
        raise EngineError(f"{path}: does not describe itself as a student: {error}") from error
    reason = why_unfit(target, this_cpu())
    if reason is not None:
        raise EngineError(f"{path}: compiled for {target}: {reason}")
    if runtime_version and version != runtime_version:
        raise EngineError(
            f"{path}: compiled by TVM {version}, the runtime here is {runtime_version}: "
            "export it again or install that runtime"
        )


def _aligned_zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros that start at a multiple of ALIGNMENT_BYTES. shape -> float32."""
    size_bytes = int(np.prod(shape)) * 4
    raw = np.zeros(size_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    aligned: NDArray[np.float32] = raw[start : start + size_bytes].view(np.float32).reshape(shape)
    return aligned

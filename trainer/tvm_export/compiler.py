"""A float32 TFLite student -> a shared library for one CPU that the agent's light runtime loads."""

import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.tvm_export.graph_reader import import_tflite, read_network
from trainer.tvm_export.layers import Network
from trainer.tvm_export.module_builder import build_module
from trainer.tvm_export.outcome import CompiledStudent, UnsupportedStudentError, WrongStudentError
from trainer.tvm_export.targets import TARGETS, ExportTarget, linker_for


def compile_student(tflite_file: Path, destination: Path, target_name: str) -> CompiledStudent:
    """Compile `tflite_file` (float32) for one of TARGETS to `destination`; other errors than ours are bugs.

    Raises UnsupportedStudentError for a network with unknown operations, MissingCompilerError without a linker.
    """
    started, cpu_started = time.perf_counter(), time.process_time()
    if target_name not in TARGETS:
        raise UnsupportedStudentError(f"target {target_name!r}, expected one of {', '.join(TARGETS)}")
    target = TARGETS[target_name]
    link = linker_for(target)
    network = read_network(import_tflite(tflite_file), target.cpu.lanes)
    workspace_bytes = _planned_bytes(build_module(network, target.cpu, ""))
    description = describe(network, target, workspace_bytes)
    executable = _build(build_module(network, target.cpu, json.dumps(description)), target)
    partial = destination.with_name(f".{destination.name}.part.so")
    try:
        executable.export_library(str(partial), fcompile=link)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)
    return CompiledStudent(
        destination,
        target.name,
        f"tvm {description['tvm']}",
        destination.stat().st_size,
        workspace_bytes,
        time.perf_counter() - started,
        time.process_time() - cpu_started,
    )


def describe(network: Network, target: ExportTarget, workspace_bytes: int) -> dict[str, Any]:
    """What the module says of itself: the light runtime can't look inside."""
    image = network.tensors[network.image]
    return {
        "tvm": metadata.version("apache-tvm"),
        "target": target.name,
        "input": [image.height, image.width, image.channels],
        "width": network.tensors[network.features].channels,
        "workspace_bytes": workspace_bytes,
    }


def run_compiled(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features by the compiled student on this machine: (n, height, width, channels) -> (n, width)."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    batches = [tvm.runtime.tensor(image[None].astype(np.float32)) for image in images]
    return np.concatenate([machine["main"](batch).numpy() for batch in batches])


def check_parity(
    features: NDArray[np.float32], expected: NDArray[np.float32], what: str, relative_tolerance: float = 1e-4
) -> float:
    """Return the largest error relative to the largest feature; WrongStudentError above the tolerance.

    >>> check_parity(np.float32([[1.0, 2.0]]), np.float32([[1.0, 2.0]]), "student")
    0.0
    """
    if features.shape != expected.shape:
        raise WrongStudentError(f"{what}: features {features.shape}, expected {expected.shape}")
    scale = max(float(np.abs(expected).max()), 1e-6)
    error = float(np.abs(features - expected).max()) / scale
    if not error <= relative_tolerance:  # also NaN
        raise WrongStudentError(f"{what}: off by {error:.2g} of the largest feature, allowed {relative_tolerance:g}")
    return error


def _build(module: Any, target: ExportTarget) -> Any:
    import tvm

    with tvm.target.Target(target.llvm):
        return tvm.relax.build(module, target=tvm.target.Target(target.llvm), relax_pipeline=_lowering())


def _planning() -> Any:
    from tvm import transform
    from tvm.relax import transform as relax_transform

    return transform.Sequential(
        [
            relax_transform.ToNonDataflow(),
            relax_transform.RemovePurityChecking(),
            relax_transform.CallTIRRewrite(),
            relax_transform.StaticPlanBlockMemory(),
        ]
    )


def _lowering() -> Any:
    """TVM's default pipeline without its fusion and dispatch: the kernels are made already."""
    from tvm import transform
    from tvm.relax import transform as relax_transform

    return transform.Sequential(
        [
            _planning(),
            relax_transform.LowerAllocTensor(),
            relax_transform.KillAfterLastUse(),
            relax_transform.LowerRuntimeBuiltin(),
            relax_transform.ComputePrimValue(),
            relax_transform.VMShapeLower(),
            relax_transform.AttachGlobalSymbol(),
        ]
    )


def _planned_bytes(module: Any) -> int:
    """Add up the storage that the memory plan allocates for intermediate tensors."""
    from tvm import relax

    sizes: list[int] = []

    def visit(expression: Any) -> None:
        name = getattr(getattr(expression, "op", None), "name", "")
        if name == "relax.memory.alloc_storage":
            sizes.append(int(expression.args[0].values[0]))

    relax.analysis.post_order_visit(_planning()(module)["main"], visit)
    return sum(sizes)

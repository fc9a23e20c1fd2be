"""Names of CPUs -> TVM targets, tile models and linkers."""

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_agent.console.cpu_targets import this_cpu, why_unfit
from trainer.tvm_export.cpus import AVX2, AVX512, CORTEX_A53, CORTEX_A72, CORTEX_A76, CPU
from trainer.tvm_export.outcome import MissingCompilerError, UnsupportedStudentError

# Debian: package g++-aarch64-linux-gnu.
CROSS_COMPILER = "aarch64-linux-gnu-g++"
# Old enough for Debian 10 and Raspberry Pi OS of 2020: what zig links against is what the device must have.
OLDEST_GLIBC = "2.28"


@dataclass(frozen=True)
class ExportTarget:
    """One CPU to compile for: `name` as in the manifest."""

    name: str
    machine: str
    llvm: dict[str, Any]
    cpu: CPU


def _x86(name: str, llvm_cpu: str, cpu: CPU) -> ExportTarget:
    return ExportTarget(name, "x86_64", {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": llvm_cpu}, cpu)


def _arm(core: str, cpu: CPU) -> ExportTarget:
    llvm = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": core, "mattr": ["+neon"]}
    return ExportTarget(f"aarch64-{core}", "aarch64", llvm, cpu)


TARGETS = {
    target.name: target
    for target in (
        _x86("x86_64-v3", "x86-64-v3", AVX2),
        _x86("x86_64-v4", "x86-64-v4", AVX512),
        _arm("cortex-a53", CORTEX_A53),
        _arm("cortex-a72", CORTEX_A72),
        _arm("cortex-a76", CORTEX_A76),
    )
}


def host_targets() -> list[ExportTarget]:
    """Targets of this machine's architecture."""
    return [target for target in TARGETS.values() if target.machine == platform.machine()]


def runs_here(target: str) -> bool:
    """Tell whether this machine can run code for the target."""
    return why_unfit(target, this_cpu()) is None


def best_host_target() -> str:
    """The target that makes the most of this machine; UnsupportedStudentError on a CPU without one."""
    fitting = [target for target in TARGETS if runs_here(target)]
    if not fitting:
        raise UnsupportedStudentError(f"no TVM target for this CPU, expected one of {', '.join(TARGETS)}")
    return fitting[-1]


def has_linker(target: ExportTarget) -> bool:
    """Tell whether this machine can link a module for the target."""
    return bool(shutil.which(_compiler(target)) or importlib.util.find_spec("ziglang"))


def linker_for(target: ExportTarget) -> Callable[..., None]:
    """Return what `export_library` calls to link: g++ of this machine, Debian's cross compiler or zig."""
    compiler = _compiler(target)
    if shutil.which(compiler):
        command = [compiler]
    elif importlib.util.find_spec("ziglang"):
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target.machine}-linux-gnu.{OLDEST_GLIBC}"]
    else:
        raise MissingCompilerError(
            f"no linker for {target.machine}: install {compiler} "
            f"(Debian: {'g++' if compiler == 'g++' else 'g++-aarch64-linux-gnu'}) or pip install ziglang==0.17.1"
        )

    def link(output: str, objects: list[str], options: list[str] | None = None) -> None:
        full_command = [*command, "-shared", "-fPIC", "-o", output, *objects, *(options or [])]
        finished = subprocess.run(full_command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise MissingCompilerError(f"{' '.join(command)} failed: {finished.stderr.strip()[-300:]}")

    link.output_format = "so"  # type: ignore[attr-defined]  # TVM reads both from the function
    link.object_format = "o"  # type: ignore[attr-defined]
    return link


def _compiler(target: ExportTarget) -> str:
    return "g++" if target.machine == platform.machine() else CROSS_COMPILER

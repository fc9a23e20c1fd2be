"""What comes of compiling a student, well or badly; importable without TVM, so that it travels between processes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class WrongStudentError(Exception):
    """A compiled student that does not answer what its TFLite file answers."""


class UnsupportedStudentError(Exception):
    """A network with an operation that the kernel generator does not know."""


class MissingCompilerError(Exception):
    """No linker for the target's architecture."""


@dataclass(frozen=True)
class CompiledStudent:
    """What the manifest needs to know of a TVM artifact, and what the export cost."""

    path: Path
    target: str
    engine_version: str
    size_bytes: int
    workspace_bytes: int
    compile_s: float
    compile_cpu_s: float  # of this process; the linker is not in it


@dataclass(frozen=True)
class ExportedModules:
    """One student's modules, and what they answered here. features: (n, width), float32."""

    compiled: tuple[CompiledStudent, ...]
    features: NDArray[np.float32]
    ran: str  # the target whose code gave the features
    relative_error: float  # largest difference to the TFLite file, of the largest feature

    @property
    def shown(self) -> CompiledStudent:
        """The module that stands for all in tables: the one that ran here, the first where all are for other CPUs."""
        return next((module for module in self.compiled if module.target == self.ran), self.compiled[0])

"""One student, loaded from a deployment and checked on the golden input."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.exit_codes import UserError
from edge_agent.engine_memory import RememberedChoice, chosen_artifact
from edge_agent.inference import golden_error, real_features
from edge_agent.protocol.manifest import Artifact, Student
from edge_agent.protocol.status import StudentInfo
from edge_agent.runtimes import StudentRuntime, open_runtime

# int8 first: 0.35 of the float32 time on x86, and features leave the interpreter as they travel.
PRECISIONS_BY_PREFERENCE = ("int8", "dynamic", "float16", "float32")


@dataclass(frozen=True)
class StudentSlot:
    """A student ready to answer."""

    student: Student
    artifact: Artifact
    runtime: StudentRuntime
    selftest_error: float
    golden_input: NDArray[np.uint8] | None = None  # (height, width, channels)
    choice: RememberedChoice | None = None  # how this artifact was chosen, where there was a choice

    def works(self) -> bool:
        """Run the golden input again: memory and interpreter still give the manifest's features."""
        if self.golden_input is None:
            return True
        real = real_features(self.runtime.run(self.golden_input), self.runtime.quantization)
        return golden_error(real, self.student.golden.features) <= self.student.golden.tolerance

    @property
    def info(self) -> StudentInfo:
        """What the device says of it in its retained info."""
        return StudentInfo(
            student=self.student.index,
            network=self.student.network,
            engine=self.runtime.engine_version,
            precision=self.artifact.precision,
            artifact=self.artifact.file,
            width=self.student.width,
            selftest_error=round(self.selftest_error, 6),
            times_ms=self.choice.times_ms if self.choice else None,
            artifacts_refused=(self.choice.refused or None) if self.choice else None,
        )


def install_student(
    deployment: DeploymentDirectory,
    index: int,
    engine: str,
    precision: str,
    num_threads: int,
    test_alone: bool = False,
) -> StudentSlot:
    """Load student `index` with the artifact that runs fastest here, timed once and remembered."""
    student = _student_of(deployment, index)
    artifact, choice = chosen_artifact(deployment, student, engine, precision, num_threads, test_alone)
    return replace(_open(deployment, student, artifact, num_threads), choice=choice)


def open_student(
    deployment: DeploymentDirectory, index: int, engine: str, precision: str, num_threads: int
) -> StudentSlot:
    """Load student `index` without timing anything; UserError if it is absent, damaged or fails its self-test."""
    student = _student_of(deployment, index)
    return _open(deployment, student, choose_artifact(student, engine, precision), num_threads)


def _student_of(deployment: DeploymentDirectory, index: int) -> Student:
    students = deployment.manifest.students
    if index >= len(students):
        expected = f"expected 0 to {len(students) - 1}"
        raise UserError(f"student {index}: {deployment.path} has {len(students)} students; {expected}")
    return students[index]


def _open(deployment: DeploymentDirectory, student: Student, artifact: Artifact, num_threads: int) -> StudentSlot:
    manifest = deployment.manifest
    path = deployment.check(artifact)  # before the bytes reach an interpreter
    runtime = open_runtime(path, artifact.engine, num_threads)
    shape = (manifest.input.height, manifest.input.width, manifest.input.channels)
    if runtime.input_shape != shape or runtime.width != student.width:
        raise UserError(
            f"{artifact.file}: image {runtime.input_shape} -> {runtime.width} features, "
            f"the manifest says {shape} -> {student.width}"
        )
    golden_input = np.frombuffer(deployment.read(manifest.golden_input), np.uint8).reshape(shape)
    error = golden_error(real_features(runtime.run(golden_input), runtime.quantization), student.golden.features)
    if error > student.golden.tolerance:
        raise UserError(
            f"{artifact.file}: self-test failed: features are off by {error:.4g}, "
            f"the manifest allows {student.golden.tolerance:.4g}"
        )
    return StudentSlot(student, artifact, runtime, error, golden_input)


def choose_artifact(student: Student, engine: str, precision: str) -> Artifact:
    """The artifact for `engine` and `precision`, each possibly `auto`; UserError lists what there is."""
    fitting = [
        artifact
        for artifact in student.artifacts
        if engine in ("auto", artifact.engine) and precision in ("auto", artifact.precision)
    ]
    # TVM modules are machine code: only on request, since this chooser does not know the CPU.
    fitting = [artifact for artifact in fitting if artifact.engine == "tflite" or engine == "tvm"]
    if not fitting:
        there = ", ".join(f"{a.engine}/{a.precision}" for a in student.artifacts)
        raise UserError(f"student {student.index}: no artifact for {engine}/{precision}; the manifest has {there}")
    return min(fitting, key=lambda artifact: PRECISIONS_BY_PREFERENCE.index(artifact.precision))

"""Interpreters that run a student, imported when opened."""

from pathlib import Path

from edge_agent.runtimes.student_runtime import ENGINES, EngineError, StudentRuntime

__all__ = ["ENGINES", "EngineError", "StudentRuntime", "open_runtime"]


def open_runtime(path: Path, engine: str, num_threads: int = 1) -> StudentRuntime:
    """Open the artifact at `path` with `engine`, importing that engine only now."""
    if num_threads < 1:
        raise EngineError(f"num_threads is {num_threads}, expected at least 1")
    if engine == "tflite":
        from edge_agent.runtimes.litert import open_tflite

        return open_tflite(path, num_threads)
    if engine == "tvm":
        from edge_agent.runtimes.tvm import open_tvm

        return open_tvm(path, num_threads)
    raise EngineError(f"unknown engine {engine!r}, expected one of {', '.join(ENGINES)}")

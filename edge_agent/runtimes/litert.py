"""Students in TFLite files, run by LiteRT or, where that has no wheels, by tflite-runtime."""

import logging
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runtimes.student_runtime import (
    EngineError,
    MissingEngineError,
    check_image,
    check_readable,
    check_signature,
)

LITERT_PIP_LINE = "pip install 'ai-edge-litert==2.1.6'"
LITERT_MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")
# Its XNNPACK only knows float32. WRN-16-1, x86_64, one thread; docs/runtimes.md has the run.
SLOW_INT8 = (
    "tflite-runtime runs int8 and dynamic-range files about 4 times slower than float32 "
    "(2126 and 2028 against 505 us for WRN-16-1)"
)
TFLITE_MAGIC = b"TFL3"  # flatbuffers keep the file identifier at offset 4

_log = logging.getLogger(__name__)


class LiteRTRuntime:
    """A TFLite artifact in an interpreter of its own; (1,H,W,C) uint8 or float32 raw pixels in."""

    engine = "tflite"

    def __init__(self, interpreter: Any, engine_version: str, path: Path) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EngineError(f"{path}: {len(inputs)} inputs and {len(outputs)} outputs, expected one of each")
        check_signature(path, inputs[0]["shape"].tolist(), outputs[0]["shape"].tolist())
        _check_types(path, inputs[0]["dtype"], outputs[0]["dtype"])
        height, width, channels = inputs[0]["shape"][1:].tolist()
        self.engine_version = engine_version
        self.input_shape: tuple[int, int, int] = (height, width, channels)
        self.width = int(outputs[0]["shape"][1])
        self.quantization = _quantization_of(outputs[0])
        self._interpreter = interpreter
        # Views must not outlive a call: the interpreter refuses to run while an array of ours points into it.
        self._input_view = interpreter.tensor(inputs[0]["index"])
        self._output_view = interpreter.tensor(outputs[0]["index"])

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.int8] | NDArray[np.float32]:
        """Features of `image`: written straight into the input tensor, one cast and no other copy."""
        check_image(image, self.input_shape)
        np.copyto(self._input_view()[0], image)
        self._interpreter.invoke()
        features: NDArray[np.int8] | NDArray[np.float32] = self._output_view()[0].copy()
        return features

    def close(self) -> None:
        """Drop the interpreter and its arena."""
        self._input_view = self._output_view = self._interpreter = None


def open_tflite(path: Path, num_threads: int) -> LiteRTRuntime:
    """Open a TFLite file; EngineError says what is wrong with it or with this machine."""
    check_readable(path)
    with path.open("rb") as file:
        if file.read(8)[4:] != TFLITE_MAGIC:
            raise EngineError(f"{path}: not a TFLite file (no {TFLITE_MAGIC.decode()} mark)")
    interpreter_class, package = find_interpreter()
    try:
        interpreter = interpreter_class(model_path=str(path), num_threads=num_threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise EngineError(
            f"{path}: {package} can't load it, the file is damaged or uses unknown operators: "
            f"{reason[-1] if reason else type(error).__name__}"
        ) from error
    runtime = LiteRTRuntime(interpreter, f"{package} {metadata.version(package)}", path)
    if package == "tflite-runtime" and _has_int8_weights(interpreter):
        _log.warning("%s: %s; prefer a float32 artifact, or %s", path.name, SLOW_INT8, LITERT_PIP_LINE)
    return runtime


def find_interpreter() -> tuple[Any, str]:
    """Choose the best installed package: its interpreter class and its name."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        return _find_tflite_runtime(error), "tflite-runtime"
    return Interpreter, "ai-edge-litert"


def _find_tflite_runtime(litert_error: ImportError) -> Any:
    try:
        version = metadata.version("tflite-runtime")
    except metadata.PackageNotFoundError:
        raise MissingEngineError(_missing_text(litert_error)) from litert_error
    # With NumPy 2 the import works and Interpreter() dies of an opaque SystemError.
    if int(np.__version__.split(".")[0]) >= 2:
        raise MissingEngineError(
            f"tflite-runtime {version} was built for NumPy 1 and NumPy {np.__version__} is installed: "
            f"pip install 'numpy<2', or {LITERT_PIP_LINE}"
        )
    from tflite_runtime.interpreter import Interpreter

    return Interpreter


def _missing_text(litert_error: ImportError) -> str:
    machine = platform.machine()
    if machine not in LITERT_MACHINES:
        return f"no TFLite interpreter for a {machine} CPU: NoNN Edge needs a 64-bit system (aarch64 or x86_64)"
    if "ai_edge_litert" in (litert_error.name or "") and litert_error.path is None:
        return f"no TFLite interpreter installed: {LITERT_PIP_LINE}"
    return f"the TFLite interpreter does not start ({litert_error}): {LITERT_PIP_LINE}"


def _check_types(path: Path, input_type: type, output_type: type) -> None:
    if (input_type, output_type) not in ((np.uint8, np.int8), (np.float32, np.float32)):
        raise EngineError(
            f"{path}: takes {np.dtype(input_type)} and gives {np.dtype(output_type)}, "
            "expected uint8 -> int8 or float32 -> float32"
        )


def _has_int8_weights(interpreter: Any) -> bool:
    """Whether it computes in int8: full int8 files, and those of dynamic range, whose features are float32."""
    return any(tensor["dtype"] == np.int8 for tensor in interpreter.get_tensor_details())


def _quantization_of(output: dict[str, Any]) -> tuple[float, int] | None:
    if output["dtype"] != np.int8:
        return None
    scale, zero_point = output["quantization"]
    return float(scale), int(zero_point)

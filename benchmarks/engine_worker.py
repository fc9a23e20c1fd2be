"""One engine in a process and a Python of its own: JSON lines in, JSON lines out. Started by engines.py."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class _Onnx:
    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.engine_version = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(self, image: Any) -> Any:
        planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        return self._session.run(None, {"image": planes[None]})[0][0]


class _Ncnn:
    def __init__(self, file: Path) -> None:
        import ncnn

        self._ncnn, self._net = ncnn, ncnn.Net()
        options = self._net.opt
        options.num_threads = 1
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        self.engine_version = f"ncnn {ncnn.__version__}"
        self._net.load_param(str(file))
        self._net.load_model(str(file.with_suffix(".bin")))

    def run(self, image: Any) -> Any:
        extractor = self._net.create_extractor()
        planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
        extractor.input("image", self._ncnn.Mat(planes).clone())
        return np.array(extractor.extract("features")[1])


class _Ours:
    def __init__(self, file: Path, engine: str) -> None:
        from edge_agent.runtimes import open_runtime

        self._runtime = open_runtime(file, engine)
        self.engine_version = self._runtime.engine_version

    def run(self, image: Any) -> Any:
        return self._runtime.run(image)

    @property
    def quantization(self) -> Any:
        return self._runtime.quantization


def _open(engine: str, file: Path) -> Any:
    if engine == "onnxruntime":
        return _Onnx(file)
    if engine == "ncnn":
        return _Ncnn(file)
    return _Ours(file, "tvm" if engine == "tvm" else "tflite")


def _real(features: Any, runtime: Any) -> Any:
    quantization = getattr(runtime, "quantization", None)
    if quantization is None:
        return np.asarray(features, np.float32)
    return (features.astype(np.float32) - quantization[1]) * np.float32(quantization[0])


def _import(engine: str) -> None:
    """Load what every network needs, so that what one needs more can be told."""
    if engine in ("onnxruntime", "ncnn"):
        __import__(engine)
    elif engine == "tvm":
        from edge_agent.runtimes.tvm_library import load_library

        load_library()
    else:
        from edge_agent.runtimes.litert import find_interpreter

        find_interpreter()


def _memory_mb(name: str) -> float:
    """Megabytes of 10^6: VmRSS, resident now, or VmHWM, the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name + ":"))


def main(engine: str, file: str, images_file: str) -> None:
    """Open, answer `time N` and `features FILE` until the input ends."""
    from edge_agent.energy import find_meter

    images = np.load(images_file)
    _import(engine)
    base_rss_mb = _memory_mb("VmRSS")
    started = time.perf_counter()
    runtime = _open(engine, Path(file))
    features = _real(runtime.run(images[0]), runtime)
    opened_ms = (time.perf_counter() - started) * 1e3
    head = {"version": runtime.engine_version, "features": features.tolist(), "start_ms": opened_ms}
    print(json.dumps(head | {"base_rss_mb": base_rss_mb}), flush=True)
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        if command == "time":
            times_us, cpu_us, meter = [], [], find_meter()
            meter.start()
            for _ in range(int(argument)):
                began, cpu_began = time.perf_counter_ns(), time.process_time_ns()
                runtime.run(images[0])
                cpu_us.append((time.process_time_ns() - cpu_began) / 1e3)
                times_us.append((time.perf_counter_ns() - began) / 1e3)
            joules = meter.stop()
            energy = {"joules": None if joules is None else joules / int(argument), "meter": meter.name}
            memory = {"rss_mb": _memory_mb("VmHWM")}
            print(json.dumps({"times_us": times_us, "cpu_us": cpu_us, **memory, **energy}), flush=True)
        else:
            np.save(argument.strip(), np.stack([_real(runtime.run(image), runtime) for image in images]))
            print("{}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

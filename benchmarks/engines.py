"""LiteRT, tflite-runtime, TVM, onnxruntime and ncnn on the same students, in one run.

python benchmarks/engines.py --deployment RUN/export [--teacher TEACHER.keras] [--cache FOLDER] [--json FILE]
python benchmarks/engines.py --student vgg-11=student.float32.tflite --student wrn-16-1=other.float32.tflite

Every engine lives in a process of its own, one thread, batch 1. The engines take turns of a few runs each, so load on
the machine hits all alike; ratios are of `min` (wall clock) and of the median CPU time, which other programs' turns do
not lengthen. Files NAME.{float16,dynamic,int8}.tflite beside a float32 one are measured too.

With a teacher, a .keras file (converted to TFLite once, kept in --cache) or a .float32.tflite, the same engine runs
both and the ratios stand beside the paper's: latency, peak memory with and without the interpreter's own, bytes. With
--images IMAGES.npz (images, labels: test split) and a deployment, accuracy through the deployment's own head.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.console.atomic_file import write_atomically
from edge_agent.console.cpu_targets import this_cpu, why_unfit
from edge_agent.console.deployment_directory import open_deployment
from edge_agent.runtimes.tvm_library import find_library
from trainer.tvm_export.compiler import compile_student
from trainer.tvm_export.outcome import UnsupportedStudentError
from trainer.tvm_export.targets import host_targets

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engine_tables import Contender, figures_of, table, teacher_figures, teacher_table
from engine_turns import cpu_name, measure, start
from portable_graph import write_ncnn, write_onnx
from teacher_file import teacher_tflite

PRECISIONS = ("float32", "float16", "dynamic", "int8")


def contenders(network: str, float_file: Path, folder: Path) -> list[Contender]:
    """Every engine's file for one network; written into `folder` where it has to be made."""
    found = []
    for precision in PRECISIONS:
        file = float_file.with_name(float_file.name.replace(".float32.", f".{precision}."))
        if file.exists():
            size_bytes = file.stat().st_size
            found.append(Contender(network, "litert", precision, file, size_bytes))
            if precision != "float16":  # 2.14 computes it in float32 as LiteRT does
                found.append(Contender(network, "tflite-runtime", precision, file, size_bytes))
    for target in [t for t in host_targets() if why_unfit(t.name, this_cpu()) is None][-1:]:
        compiled = compile_student(float_file, folder / f"{network}.{target.name}.so", target.name)
        found.append(Contender(network, "tvm", "float32", compiled.path, compiled.size_bytes))
        seconds = f"{compiled.compile_s:.1f} s, CPU {compiled.compile_cpu_s:.1f} s"
        print(f"{network}: TVM compiled for {target.name} in {seconds}", file=sys.stderr)
    try:
        onnx_file, param_file = folder / f"{network}.onnx", folder / f"{network}.param"
        write_onnx(float_file, onnx_file)
        write_ncnn(float_file, param_file, param_file.with_suffix(".bin"))
        found.append(Contender(network, "onnxruntime", "float32", onnx_file, onnx_file.stat().st_size))
        ncnn_bytes = param_file.stat().st_size + param_file.with_suffix(".bin").stat().st_size
        found.append(Contender(network, "ncnn", "float32", param_file, ncnn_bytes))
    except UnsupportedStudentError as error:
        print(f"{network}: no ONNX and ncnn: {error}", file=sys.stderr)
    return found


def accuracies(deployment: Path, groups: dict[int, list[Contender]], labels: Any, folder: Path) -> None:
    """Accuracy of the whole deployment by each engine and precision, through its own head."""
    from edge_agent.protocol.head import MergeHead

    directory = open_deployment(deployment)
    manifest = directory.manifest
    head = MergeHead.from_bytes(directory.read(manifest.head), manifest.widths, len(manifest.classes))
    for contender in groups[0]:
        features = []
        for index in sorted(groups):
            twin = next(c for c in groups[index] if (c.engine, c.precision) == (contender.engine, contender.precision))
            twin.ask(f"features {folder / 'features.npy'}")
            features.append(np.load(folder / "features.npy"))
        classes = [
            head.merge({i: part[row] for i, part in enumerate(features)})[0].argmax() for row in range(len(labels))
        ]
        contender.accuracy = float(np.mean(np.asarray(classes) == labels))


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployment", type=Path)
    parser.add_argument("--student", action="append", default=[], metavar="NAME=FILE.float32.tflite")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help=".keras or .float32.tflite")
    parser.add_argument("--images", type=Path, metavar="FILE.npz", help="images (n, h, w, c) uint8, labels (n,)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/nonn-edge/engines")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--turn-ms", type=float, default=10, help="CPU time per engine and round")
    arguments = parser.parse_args()
    light_runtime(arguments.cache)
    networks = [(name, Path(file)) for name, _, file in (entry.partition("=") for entry in arguments.student)]
    if arguments.deployment:
        students = open_deployment(arguments.deployment).manifest.students
        networks = [
            (f"{s.network}-student-{s.index}", arguments.deployment / f"student-{s.index}.float32.tflite")
            for s in students
        ] + networks
    if not networks:
        parser.error("expected --deployment or --student")
    when, load = time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0]
    print(f"{when} {cpu_name()}, load {load:.1f}, 1 thread, batch 1, {arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as temporary:
        _compare(arguments, networks, Path(temporary))
    return 0


def _compare(arguments: argparse.Namespace, networks: list[tuple[str, Path]], folder: Path) -> None:
    if arguments.teacher:
        shape = _image_shape(networks[0][1])
        networks = [*networks, ("teacher", teacher_tflite(arguments.teacher, shape, arguments.cache))]
    groups: list[tuple[list[Contender], Any]] = []
    for name, file in networks:
        images, labels = _images(arguments, file, folder)
        group = contenders(name, file, folder)
        for contender in group:
            start(contender, arguments.cache, images)
        groups.append((group, labels))
    everyone = [contender for group, _ in groups for contender in group]
    measure(everyone, arguments.rounds, arguments.turn_ms)
    deployed = len(open_deployment(arguments.deployment).manifest.students) if arguments.deployment else 0
    if arguments.images and deployed:
        accuracies(arguments.deployment, {i: groups[i][0] for i in range(deployed)}, groups[0][1], folder)
    for group, _ in groups:
        print(table(group))
    if arguments.teacher:
        print(teacher_table(groups[-1][0], groups[0][0]))
    if arguments.json:
        ratios = teacher_figures(groups[-1][0], groups[0][0]) if arguments.teacher else []
        _write_figures(arguments.json, everyone, arguments.rounds, ratios)
    for contender in everyone:
        if contender.worker:
            contender.worker.communicate(timeout=30)


def _write_figures(path: Path, everyone: list[Contender], rounds: int, ratios: list[dict[str, Any]]) -> None:
    conditions = {"cpu": cpu_name(), "load": os.getloadavg()[0], "threads": 1, "batch": 1}
    figures = [figures_of(contender) for contender in everyone]
    document = {"when": time.strftime("%Y-%m-%d"), **conditions, "rounds": rounds, "engines": figures}
    if ratios:
        document["teacher_against_student"] = ratios
    path.write_text(json.dumps(document, indent=1) + "\n")


def _images(arguments: argparse.Namespace, float_file: Path, folder: Path) -> tuple[Path, Any]:
    """The images for a network: those given, or one of noise in its shape."""
    target = folder / f"{float_file.parent.name}-{float_file.name}.images.npy"
    if arguments.images:
        archive = np.load(arguments.images)
        np.save(target, archive["images"])
        return target, archive["labels"]
    shape = _image_shape(float_file)
    np.save(target, np.random.default_rng(1).integers(0, 256, (1, *shape)).astype(np.uint8))
    return target, None


def _image_shape(float_file: Path) -> tuple[int, int, int]:
    from edge_agent.runtimes import open_runtime

    return open_runtime(float_file, "tflite").input_shape


def light_runtime(cache: Path) -> None:
    """Copy the runtime out of the installed apache-tvm, as a device has it."""
    library = find_library()
    if library.path.parent == cache / "tvm":
        return
    (cache / "tvm").mkdir(parents=True, exist_ok=True)
    # Renamed into place: a worker that has the old file mapped goes on with it.
    write_atomically(cache / "tvm" / library.path.name, library.path.read_bytes())
    (cache / "tvm" / "libtvm_runtime.version").write_text(library.version + "\n")


if __name__ == "__main__":
    sys.exit(main())

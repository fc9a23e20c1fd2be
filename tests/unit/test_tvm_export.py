"""TVM students: kernels against NumPy, a real student against LiteRT, refusals."""

import platform
import shutil

import numpy as np
import pytest

from edge_agent.console.cpu_targets import REQUIRED_FEATURES, CPUFeatures, this_cpu, why_unfit
from edge_agent.runtimes import EngineError, open_runtime
from trainer.tvm_export.cpus import AVX2, AVX512, CORTEX_A53, CORTEX_A76, choose_tile
from trainer.tvm_export.layers import Group, Halo, Network, Source, Step, Tensor, Window

tvm = pytest.importorskip("tvm", reason="apache-tvm is not installed (extra: tvm)")

from trainer.tvm_export.compiler import check_parity, compile_student, run_compiled  # noqa: E402
from trainer.tvm_export.direct_convolution import build_direct_convolution, pack_weights  # noqa: E402
from trainer.tvm_export.export import export_tvm_students  # noqa: E402
from trainer.tvm_export.graph_reader import read_network  # noqa: E402
from trainer.tvm_export.outcome import UnsupportedStudentError, WrongStudentError  # noqa: E402
from trainer.tvm_export.simple_kernels import build_pool  # noqa: E402
from trainer.tvm_export.targets import CROSS_COMPILER, TARGETS, has_linker, host_targets  # noqa: E402

RUNNABLE = [t.name for t in host_targets() if why_unfit(t.name, this_cpu()) is None]
needs_linker = pytest.mark.skipif(
    not all(map(has_linker, host_targets())),
    reason="no linker: apt install g++, or pip install ziglang",
)
TILED_CPUS = [AVX512, AVX2, CORTEX_A53, CORTEX_A76]

# (height, width, channels in, channels out, kernel, stride, padding): WRN, VGG and airbench shapes, then odd ones.
SHAPES = [
    (32, 32, 3, 16, 3, 1, 1),
    (16, 16, 16, 32, 3, 2, 1),
    (8, 8, 32, 64, 1, 2, 0),
    (2, 2, 64, 64, 3, 1, 1),
    (31, 31, 3, 24, 2, 1, 0),
    (7, 7, 24, 40, 3, 1, 1),
    (5, 13, 7, 22, 3, 1, 1),
    (1, 1, 48, 33, 1, 1, 0),
]


def _convolve(image, weights, stride, padding):
    """Plain NumPy: (h, w, c) float32, (r, s, c, f) -> (h', w', f)."""
    rows, columns = weights.shape[:2]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(0, 1))[::stride, ::stride]
    return np.einsum("yxcrs,rscf->yxf", windows, weights, dtype=np.float64)


def _laid_out(image, tensor):
    flat = np.zeros((tensor.height + tensor.halo.top + tensor.halo.bottom, tensor.row // tensor.stride, tensor.stride))
    y, x = tensor.halo.top, tensor.halo.left
    flat[y : y + tensor.height, x : x + tensor.width, : tensor.channels] = image
    return tvm.runtime.tensor(flat.astype(np.float32).reshape(-1))


def _run(kernel, frame, arrays, outputs):
    library = tvm.compile(tvm.IRModule({"kernel": kernel}), target=tvm.target.Target(TARGETS[RUNNABLE[-1]].llvm))
    results = [tvm.runtime.tensor(np.full(tensor.size, np.nan, np.float32)) for tensor in outputs]
    constants = [tvm.runtime.tensor(constant) for constant in frame.constants]
    library["kernel"](*arrays, *constants, *results)
    return [result.numpy() for result in results]


@pytest.mark.skipif(not RUNNABLE, reason="no TVM target for this CPU")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolution_with_residual_and_two_outputs_matches_numpy(shape):
    height, width, channels_in, channels_out, kernel, stride, padding = shape
    rng = np.random.default_rng(sum(shape))
    cpu = TARGETS[RUNNABLE[-1]].cpu
    whole = -(-channels_out // cpu.lanes) * cpu.lanes
    out_height, out_width = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
    halo = Halo(padding, padding, padding, padding)
    source = Tensor(height, width, channels_in, channels_in, halo)
    residual = Tensor(out_height, out_width, channels_out, whole, Halo(1, 0, 2, 1))
    total = Tensor(out_height, out_width, channels_out, whole)
    active = Tensor(out_height, out_width, channels_out, whole, Halo(1, 1, 1, 1))
    weights = rng.normal(size=(kernel, kernel, channels_in, channels_out)).astype(np.float32)
    bias = rng.normal(size=channels_out).astype(np.float32)
    steps = [
        Step("add", (Source("anchor"), Source("vector", 0))),
        Step("add", (Source("step", 0), Source("tensor", 0))),
        Step("relu", (Source("step", 1),)),
    ]
    group = Group(
        "convolution",
        0,
        (out_height, out_width, channels_out),
        Window((kernel, kernel), (stride, stride), halo),
        weights,
        steps,
        [bias],
        [1],
        [(Source("step", 1), 2), (Source("step", 2), 3)],
    )
    network = Network([source, residual, total, active], [group], 0, 3)
    image = rng.normal(size=(height, width, channels_in)).astype(np.float32)
    other = rng.normal(size=(out_height, out_width, channels_out)).astype(np.float32)

    kernel_function, frame = build_direct_convolution(network, group, cpu, "kernel")
    arrays = [_laid_out(image, source), _laid_out(other, residual)]
    sums, relus = _run(kernel_function, frame, arrays, [total, active])

    expected = _convolve(image, weights, stride, padding) + bias + other
    sums = sums.reshape(out_height, out_width, whole)[..., :channels_out]
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)
    relus = relus.reshape(out_height + 2, out_width + 2, whole)
    np.testing.assert_allclose(relus[1:-1, 1:-1, :channels_out], np.maximum(expected, 0), rtol=1e-4, atol=1e-4)
    for edge in (relus[0], relus[-1], relus[:, 0], relus[:, -1]):
        assert not edge.any()  # the halo that the next convolution reads as padding


@pytest.mark.skipif(not RUNNABLE, reason="no TVM target for this CPU")
@pytest.mark.parametrize(("anchor", "kernel"), [("max_pool", 2), ("average_pool", 6)])
def test_pools_match_numpy(anchor, kernel):
    rng = np.random.default_rng(5)
    cpu = TARGETS[RUNNABLE[-1]].cpu
    source = Tensor(6, 6, 10, 16, Halo(1, 1, 1, 1))
    size = 6 // kernel
    target = Tensor(size, size, 10, 16)
    group = Group(anchor, 0, (size, size, 10), Window((kernel, kernel), (kernel, kernel)))
    group.outputs.append((Source("anchor"), 1))
    image = rng.normal(size=(6, 6, 10)).astype(np.float32)
    function, frame = build_pool(Network([source, target], [group], 0, 1), group, cpu, "kernel")
    (result,) = _run(function, frame, [_laid_out(image, source)], [target])
    blocks = image.reshape(size, kernel, size, kernel, 10)
    expected = blocks.max(axis=(1, 3)) if anchor == "max_pool" else blocks.mean(axis=(1, 3))
    np.testing.assert_allclose(result.reshape(size, size, 16)[..., :10], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not RUNNABLE, reason="no TVM target for this CPU")
@pytest.mark.parametrize("target", RUNNABLE)
@needs_linker
def test_a_real_student_answers_as_under_litert(tiny, tmp_path, target):
    rng = np.random.default_rng(0)
    for index in range(3):
        tflite_file = tiny / f"student-{index}.float32.tflite"
        compiled = compile_student(tflite_file, tmp_path / f"student-{index}.so", target)
        reference, runtime = open_runtime(tflite_file, "tflite"), open_runtime(compiled.path, "tvm")
        images = rng.integers(0, 256, (4, *reference.input_shape)).astype(np.uint8)
        expected = np.stack([reference.run(image) for image in images])
        assert check_parity(np.stack([runtime.run(image) for image in images]), expected, target) < 1e-5
        assert check_parity(run_compiled(compiled.path, images), expected, target) < 1e-5
        assert compiled.engine_version == runtime.engine_version
        assert (runtime.width, runtime.input_shape) == (reference.width, reference.input_shape)
        assert runtime.workspace_bytes == compiled.workspace_bytes > 0
        assert list(tmp_path.glob(".*")) == []


@pytest.mark.skipif(not shutil.which(CROSS_COMPILER), reason=f"{CROSS_COMPILER} is not installed")
@pytest.mark.skipif(platform.machine() == "aarch64", reason="runs there")
def test_modules_for_the_pi_are_refused_here(tiny, tmp_path):
    compiled = compile_student(tiny / "student-0.float32.tflite", tmp_path / "pi.so", "aarch64-cortex-a53")
    assert compiled.size_bytes < 500_000
    with pytest.raises(EngineError, match="compiled for aarch64"):
        open_runtime(compiled.path, "tvm")


@pytest.mark.skipif(not RUNNABLE, reason="no TVM target for this CPU")
@needs_linker
def test_a_module_of_another_tvm_is_refused(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("trainer.tvm_export.compiler.metadata.version", lambda _: "0.1.0")
        compiled = compile_student(tiny / "student-0.float32.tflite", tmp_path / "old.so", RUNNABLE[-1])
    with pytest.raises(EngineError, match=r"compiled by TVM 0\.1\.0, the runtime here is"):
        open_runtime(compiled.path, "tvm")


@needs_linker
def test_a_module_for_a_better_cpu_of_this_architecture_is_refused(tiny, tmp_path, monkeypatch):
    """As an A76's on a Pi 3: the file loads, its first instruction that is not there would kill the agent."""
    path = compile_student(tiny / "student-0.float32.tflite", tmp_path / "v.so", RUNNABLE[-1]).path
    least = CPUFeatures(this_cpu().machine, frozenset())
    monkeypatch.setattr("edge_agent.runtimes.tvm.this_cpu", lambda: least)
    with pytest.raises(EngineError, match=f"compiled for {RUNNABLE[-1]}: needs "):
        open_runtime(path, "tvm")


@needs_linker
def test_threads_are_for_litert_and_a_warning_says_so(tiny, tmp_path, caplog):
    path = compile_student(tiny / "student-0.float32.tflite", tmp_path / "t.so", RUNNABLE[-1]).path
    open_runtime(path, "tvm", 1)
    assert caplog.text == ""
    open_runtime(path, "tvm", 3)
    assert "t.so: TVM students run on one thread; num_threads = 3 is for LiteRT" in caplog.text


@needs_linker
def test_int8_files_unknown_targets_and_damage_are_refused(tiny, tmp_path):
    with pytest.raises(UnsupportedStudentError):
        compile_student(tiny / "student-0.int8.tflite", tmp_path / "x.so", RUNNABLE[-1])
    with pytest.raises(UnsupportedStudentError, match="expected one of"):
        compile_student(tiny / "student-0.float32.tflite", tmp_path / "x.so", "pentium")
    (tmp_path / "cut.tflite").write_bytes((tiny / "student-0.float32.tflite").read_bytes()[:300])
    with pytest.raises(UnsupportedStudentError, match=r"cut\.tflite"):
        compile_student(tmp_path / "cut.tflite", tmp_path / "x.so", RUNNABLE[-1])
    assert not (tmp_path / "x.so").exists()


@pytest.mark.skipif(not RUNNABLE, reason="no TVM target for this CPU")
@pytest.mark.skipif(not shutil.which(CROSS_COMPILER), reason=f"{CROSS_COMPILER} is not installed")
@needs_linker
def test_a_student_is_exported_for_every_target_or_for_none(tiny, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    modules = export_tvm_students(tiny / "student-0.float32.tflite", tmp_path, images, ["aarch64-cortex-a72"])
    exported = modules.compiled
    assert [path.name for path in tmp_path.iterdir()] == ["student-0.aarch64-cortex-a72.so"]
    assert exported[0].target == "aarch64-cortex-a72"
    assert modules.ran in RUNNABLE  # checked as compiled for this CPU; tables are about the file that is shipped
    assert modules.shown == exported[0]
    assert modules.shown.size_bytes == exported[0].path.stat().st_size
    exported[0].path.unlink()
    monkeypatch.setattr("trainer.tvm_export.export.run_compiled", lambda path, images: run_compiled(path, images) * 2)
    with pytest.raises(WrongStudentError):
        export_tvm_students(tiny / "student-0.float32.tflite", tmp_path, images, ["aarch64-cortex-a72"])
    assert list(tmp_path.iterdir()) == []


def test_wrong_features_are_not_exported():
    right = np.ones((2, 3), np.float32)
    for wrong in (right * 1.01, right[:1], np.full((2, 3), np.nan, np.float32)):
        with pytest.raises(WrongStudentError):
            check_parity(wrong, right, "student")


def test_trainer_and_agent_mean_the_same_targets():
    assert {name: target.machine for name, target in TARGETS.items()} == {
        name: machine for name, (machine, _) in REQUIRED_FEATURES.items()
    }


@pytest.mark.parametrize("cpu", TILED_CPUS, ids=["avx512", "avx2", "a53", "a76"])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(32, 32, 16), (8, 8, 64), (1, 1, 32), (31, 31, 64), (3, 3, 256)]
)
def test_tiles_fit_the_registers_and_divide_the_channels(cpu, height, width, channels):
    tile = choose_tile(cpu, height, width, channels, depth=144)
    assert channels % tile.channels == 0 == tile.channels % cpu.lanes
    assert tile.rows <= height
    assert tile.columns <= width
    assert tile.pixels * tile.channels // cpu.lanes < cpu.registers


def test_weights_are_packed_in_the_order_in_which_they_are_read():
    weights = np.arange(2 * 1 * 3 * 5, dtype=np.float32).reshape(2, 1, 3, 5)
    packed = pack_weights(weights, channels=8, tile=4)
    assert packed.shape == (2, 2, 1, 3, 4)
    np.testing.assert_array_equal(packed[0, 1, 0, 2], weights[1, 0, 2, :4])
    np.testing.assert_array_equal(packed[1, 1, 0, 2], [weights[1, 0, 2, 4], 0, 0, 0])


def _dense_network(weights, constant: bool):
    from tvm import relax

    builder = relax.BlockBuilder()
    kind = getattr(relax, "TensorStructInfo", None) or relax.TensorType
    image, other = relax.Var("image", kind((1, 1, 1, 4), "float32")), relax.Var("other", kind((3, 4), "float32"))
    with builder.function("main", [image, other]):
        with builder.dataflow():
            flat = builder.emit(relax.op.reshape(image, (1, 4)))
            turned = builder.emit(relax.op.permute_dims(relax.const(weights) if constant else other))
            answer = builder.emit_output(relax.op.matmul(flat, turned))
        builder.emit_func_output(answer)
    return builder.get()


def test_dense_weights_that_tflite_keeps_the_other_way_round_are_turned():
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    network = read_network(_dense_network(weights, constant=True), lanes=1)
    (dense,) = [group for group in network.groups if group.weights.size]
    np.testing.assert_array_equal(dense.weights, weights.T.reshape(1, 1, 4, 3))
    with pytest.raises(UnsupportedStudentError, match=r"transposition of \(3, 4\), which is not constant"):
        read_network(_dense_network(weights, constant=False), lanes=1)


def test_vector_approximations_are_as_good_as_float32():
    from scipy.special import erf
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script.builder import ir as T  # noqa: N812

    from trainer.tvm_export.elementwise import OPERATIONS

    x = np.linspace(-8, 8, 4097, dtype=np.float32)
    exact = {"tanh": np.tanh(x), "sigmoid": 1 / (1 + np.exp(-x)), "gelu": x * 0.5 * (1 + erf(x / np.sqrt(2)))}
    for name, expected in exact.items():
        with IRBuilder() as builder, T.prim_func():
            T.func_name("main")
            T.func_attr({"tirx.is_scheduled": True})
            source, target = (T.arg(n, T.buffer((x.size,), "float32")) for n in ("a", "b"))
            with T.serial(0, x.size) as index:
                T.buffer_store(target, OPERATIONS[name](1, source[index]), [index])
        library = tvm.compile(tvm.IRModule({"main": builder.get()}), target="llvm")
        result = tvm.runtime.tensor(np.zeros_like(x))
        library["main"](tvm.runtime.tensor(x), result)
        np.testing.assert_allclose(result.numpy(), expected, rtol=2e-6, atol=2e-6, err_msg=name)

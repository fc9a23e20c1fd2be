"""Memory that a student needs for its intermediate tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.runtimes.litert import find_interpreter
from edge_agent.runtimes.student_runtime import StudentRuntime


def arena_bytes(path: Path, runtime: StudentRuntime) -> int | None:
    """Bytes of intermediate tensors: TVM's plan as exported; for TFLite the most that live at once."""
    if runtime.engine == "tvm":
        return getattr(runtime, "workspace_bytes", None)
    interpreter_class, _ = find_interpreter()
    operators = getattr(interpreter_class, "_get_ops_details", None)
    if operators is None:
        return None
    # Without XNNPACK, which would show as one operator; plans of both keep at least the live tensors.
    plain = interpreter_class(model_path=str(path), experimental_op_resolver_type=_without_delegates(interpreter_class))
    sizes = {
        tensor["index"]: int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
        for tensor in plain.get_tensor_details()
    }
    steps = [(operator["inputs"].tolist(), operator["outputs"].tolist()) for operator in operators(plain)]
    inputs = [tensor["index"] for tensor in plain.get_input_details()]
    return largest_live_bytes(steps, sizes, inputs)


def largest_live_bytes(
    steps: Sequence[tuple[Sequence[int], Sequence[int]]], sizes: dict[int, int], inputs: Sequence[int]
) -> int:
    """Most bytes of tensors alive during any step; steps are (tensors read, tensors written).

    Tensors that no step writes are weights and do not count, but for the inputs.

    >>> largest_live_bytes([([0, 9], [1]), ([1], [2]), ([1, 2], [3])], {0: 10, 1: 4, 2: 4, 3: 4, 9: 99}, [0])
    14
    """
    born = dict.fromkeys(inputs, 0)
    dies = dict.fromkeys(inputs, 0)
    for index, (read, written) in enumerate(steps):
        born.update({tensor: index for tensor in written if tensor not in born})
        dies.update({tensor: index for tensor in (*read, *written) if tensor in born})
    return max(
        sum(sizes[tensor] for tensor in born if born[tensor] <= index <= dies[tensor]) for index in range(len(steps))
    )


def _without_delegates(interpreter_class: Any) -> Any:
    import sys

    return sys.modules[interpreter_class.__module__].OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES

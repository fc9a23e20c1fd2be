"""Groups -> a Relax module whose main calls one kernel per group."""

from typing import Any

from trainer.tvm_export.cpus import CPU
from trainer.tvm_export.direct_convolution import build_direct_convolution
from trainer.tvm_export.kernel_frame import KernelFrame
from trainer.tvm_export.layers import Group, Network, Tensor
from trainer.tvm_export.simple_kernels import build_copy, build_pool

BUILDERS = {
    "copy": build_copy,
    "convolution": build_direct_convolution,
    "max_pool": build_pool,
    "average_pool": build_pool,
}


def build_module(network: Network, cpu: CPU, description: str) -> Any:
    """Build the module; `description` is what its function `describe` answers."""
    from tvm import relax
    from tvm.ir import StringImm

    builder = relax.BlockBuilder()
    image = relax.Var("image", _type_of(network.tensors[network.image]))
    values = {network.image: image}
    with builder.function("main", [image]):
        with builder.dataflow():
            for index, group in enumerate(network.groups):
                _emit_group(builder, network, group, cpu, f"{group.anchor}_{index}", values)
            output = builder.emit_output(values[network.features])
        builder.emit_func_output(output)
    with builder.function("describe", []):
        builder.emit_func_output(StringImm(description))
    return builder.get()


def _emit_group(
    builder: Any, network: Network, group: Group, cpu: CPU, name: str, values: dict[int, Any]
) -> KernelFrame:
    from tvm import relax

    kernel, frame = BUILDERS[group.anchor](network, group, cpu, name)
    arguments = [values[tensor] for tensor in frame.inputs] + [relax.const(c) for c in frame.constants]
    types = [_type_of(network.tensors[tensor]) for _, tensor in group.outputs]
    call = relax.call_tir(builder.add_func(kernel, name), arguments, types if len(types) > 1 else types[0])
    result = builder.emit(call)
    for position, (_, tensor) in enumerate(group.outputs):
        values[tensor] = builder.emit(relax.TupleGetItem(result, position)) if len(types) > 1 else result
    return frame


def _type_of(tensor: Tensor) -> Any:
    from tvm import relax

    return relax.TensorType(tensor.shape or (tensor.size,), "float32")

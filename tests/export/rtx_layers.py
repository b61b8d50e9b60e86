"""Compile a graph with TensorRT for RTX, which needs no GPU, and print a JSON line for each compiled layer.

python rtx_layers.py GRAPH.onnx SM89; a process of its own, for the first logger of a process is its only one.
"""

from __future__ import annotations

import json
import re
import sys

import tensorrt_rtx_bindings as trt


class _Lines(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: object, text: str) -> None:
        self.lines += text.splitlines()


def main(path: str, target: str) -> int:
    logger = _Lines()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    plan = None
    if parser.parse_from_file(path):
        profile = builder.create_optimization_profile()
        for tensor in map(network.get_input, range(network.num_inputs)):
            shape = (1, *tuple(tensor.shape)[1:])
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        print(
            "\n".join(line for line in logger.lines if "Cannot" in line or "Invalid" in line), file=sys.stderr
        )
        return 1
    for line in logger.lines:
        if found := re.match(r"Name: (\S+), LayerType: (\w+), Inputs: (.*), Outputs: (.*)", line):
            name, kind, inputs, outputs = found.groups()
            types = [re.findall(r"Datatype: (\w+)", part) for part in (inputs, outputs)]
            print(json.dumps({"name": name, "kind": kind, "inputs": types[0], "outputs": types[1]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""What this device can do, measured, and what each engine reaches of it.

Arithmetic of a graph is counted by ONNX Runtime's own profile of one run: each operator with the shapes
that it saw. The device's rates are those of a large matrix product in the same precision and of a copy
that no cache holds, both by the libraries that the engines use. A multiplication and an addition count as
one operation each.
"""

from __future__ import annotations

import functools
import json
import time
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import VeloraError
from velora_edge.ort import load_graph, load_runtime, open_session, session_options
from velora_runtime.bench.figures import Part, Roofline, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from velora_edge.bundle import Bundle

N = 1536
"""Side of the matrices: far from the caches' sizes, a fraction of a second on two cores."""
COPY_BYTES = 256 << 20
REPEATS = 5
PRODUCTS = {
    "MatMul",
    "Gemm",
    "FusedMatMul",
    "MatMulInteger",
    "QLinearMatMul",
    "Conv",
    "DynamicQuantizeMatMul",
}
FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6
"""Types of a TensorProto (onnx.proto)."""
PARTS = {"rgb tower": "rgb", "event tower": "event", "diff tower": "diff", "head": "head"}


def measure_roofline(bundles: Sequence[Bundle], parts: Sequence[Part], threads: int) -> Roofline:
    """Rates of the processor, and the shares of them that the measured parts reach.

    Args:
        bundles: whose graphs are counted.
        parts: that were measured; those of other devices than the processor have no share of its rates.
        threads: of the arithmetic; 0: all cores.
    """
    why: list[str] = []
    rates = _rates(threads, why)
    bytes_s = copy_rate()
    shares: list[Share] = []
    for bundle in bundles:
        try:
            counts = {name: count_work(bundle, name) for name in PARTS.values()}
        except VeloraError as error:
            why.append(f"{bundle.manifest.name}: its arithmetic was not counted: {error}")
            continue
        for part in parts:
            if part.model == bundle.manifest.name and part.precision == bundle.manifest.precision:
                shares += _shares(part, counts, rates, bytes_s)
    if any((share.arithmetic or 0.0) > 1 or share.memory > 1 for share in shares):
        why.append("shares above 100 %: the machine was slower while its own rates were measured")
    if any(part.backend is not None and "CPU" not in part.backend for part in parts):
        why.append("engines on a GPU have no share here: only the processor's rates are measured")
    return Roofline(
        gflops={name: round(rate / 1e9, 2) for name, rate in rates.items()},
        gigabytes_s=round(bytes_s / 1e9, 2),
        shares=shares,
        why_none=why,
    )


def _shares(
    part: Part, counts: dict[str, tuple[float, float]], rates: dict[str, float], bytes_s: float
) -> list[Share]:
    if part.name not in PARTS or part.backend is None or "CPU" not in part.backend or part.precision is None:
        return []
    flop, moved = counts[PARTS[part.name]]
    seconds = part.p50_ms / 1e3
    rate = rates.get(part.precision)
    arithmetic = None if rate is None else flop / seconds / rate
    memory = moved / seconds / bytes_s
    return [
        Share(
            part=PARTS[part.name],
            model=str(part.model),
            backend=part.backend,
            precision=part.precision,
            gflop=round(flop / 1e9, 4),
            megabytes=round(moved / 1e6, 3),
            gflops=round(flop / seconds / 1e9, 2),
            gigabytes_s=round(moved / seconds / 1e9, 3),
            arithmetic=None if arithmetic is None else round(arithmetic, 4),
            memory=round(memory, 4),
            bound="memory" if arithmetic is None or memory > arithmetic else "arithmetic",
        )
    ]


def count_work(bundle: Bundle, name: str) -> tuple[float, float]:
    """Operations of one run of a graph, and the bytes that it must move at least.

    Bytes are those of inputs, outputs and the graph's constants, each once.

    Raises:
        VeloraError: if ONNX Runtime is not installed, or does not take the graph.
    """
    with TemporaryDirectory() as folder:
        options = session_options(1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / name)
        # Fused operators hide the shapes of what they are made of.
        options.graph_optimization_level = load_runtime("the roofline").GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")  # else weights are no inputs
        session = open_session(load_graph(bundle, name), options)
        feeds = {entry.name: _zeros(entry) for entry in session.get_inputs()}
        outputs = session.run(None, feeds)
        profile = json.loads(Path(session.end_profiling()).read_text())
    nodes = [
        entry["args"]
        for entry in profile
        if entry.get("cat") == "Node" and "op_name" in entry.get("args", {})
    ]
    flop = sum(_operations(node) for node in nodes)
    constants = sum(int(node.get("parameter_size", 0)) for node in nodes)
    through = sum(array.nbytes for array in (*feeds.values(), *outputs))
    return flop, float(constants + through)


def _zeros(entry: Any) -> np.ndarray:
    kinds = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    if entry.type not in kinds:
        raise VeloraError(f"expected images or tokens, got {entry.type} for {entry.name}")
    return np.zeros(shape, kinds[entry.type])


def _operations(node: dict[str, Any]) -> float:
    """Of one operator, by the shapes that it saw: a product's length is the last axis of its first input."""
    if node["op_name"] not in PRODUCTS:
        return 0.0
    inputs = [next(iter(shape.values())) for shape in node.get("input_type_shape", [])]
    outputs = [next(iter(shape.values())) for shape in node.get("output_type_shape", [])]
    if len(inputs) < 2 or not outputs:
        return 0.0
    if node["op_name"] == "Conv":
        return 2.0 * prod(outputs[0]) * prod(inputs[1][1:])
    return 2.0 * prod(outputs[0]) * inputs[0][-1]


def _rates(threads: int, why: list[str]) -> dict[str, float]:
    """Operations a second of a matrix product, by precision; what cannot be measured is told."""
    found: dict[str, float] = {}
    try:
        product = matrix_product("MatMul", FLOAT, FLOAT, FLOAT)
        found["fp32"] = _product_rate(product, np.float32, np.float32, threads)
        product = matrix_product("MatMulInteger", UINT8, INT8, INT32)
        found["int8"] = _product_rate(product, np.uint8, np.int8, threads)
    except VeloraError as error:
        why.append(f"arithmetic by ONNX Runtime was not measured: {error}")
    try:
        for name, rate in _openvino_rates(threads).items():
            found[name] = max(rate, found.get(name, 0.0))
    except VeloraError as error:
        why.append(f"arithmetic by OpenVINO was not measured: {error}")
    return found


def _product_rate(model: bytes, left: Any, right: Any, threads: int) -> float:
    session = open_session(model, session_options(threads))
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 100, (N, N)).astype(dtype) for dtype in (left, right))
    return 2.0 * N**3 / _fastest(lambda: session.run(None, {"a": a, "b": b}))


def _openvino_rates(threads: int) -> dict[str, float]:
    """fp32, and bf16 where the processor has it: ONNX Runtime has no kernels for that."""
    from velora_runtime.engines.openvino_graphs import load_core, settings

    core = load_core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    graph = core.read_model(matrix_product("MatMul", FLOAT, FLOAT, FLOAT), b"")
    a = np.random.default_rng(0).normal(size=(N, N)).astype(np.float32)
    found = {}
    for name, hint in (("fp32", "f32"), *((("bf16", "bf16"),) if has_bf16 else ())):
        request = core.compile_model(graph, "CPU", settings("CPU", hint, threads)).create_infer_request()
        found[name] = 2.0 * N**3 / _fastest(functools.partial(request.infer, [a, a], share_inputs=True))
    return found


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy by as many threads as there are cores."""
    import concurrent.futures
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    source = np.ones(COPY_BYTES // cores // 8 * cores, np.float64)
    target = np.empty_like(source)
    halves = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        seconds = _fastest(lambda: list(pool.map(lambda pair: np.copyto(*pair), halves)))
    return 2.0 * source.nbytes / seconds


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that is not timed: the rate that the device can do."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_product(operator: str, left: int, right: int, out: int) -> bytes:
    """An ONNX model with one matrix product of two N x N matrices, as bytes.

    Written by hand, since the runtime has no `onnx`: field numbers are those of onnx.proto.
    """
    node = _text(1, "a") + _text(1, "b") + _text(2, "c") + _text(4, operator)
    graph = _message(1, node) + _text(2, "product")
    graph += (
        _message(11, _value("a", left)) + _message(11, _value("b", right)) + _message(12, _value("c", out))
    )
    return _number(1, 8) + _message(7, graph) + _message(8, _text(1, "") + _number(2, 13))


def _value(name: str, kind: int) -> bytes:
    dimension = _message(1, _number(1, N))
    tensor = _number(1, kind) + _message(2, dimension * 2)
    return _text(1, name) + _message(2, _message(1, tensor))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])

"""What a benchmark found, as data: a versioned schema that files are read back by.

The schema's version rises with every field that is new or changed: unknown fields are refused, so that a file
means the same to whoever reads it. Milliseconds and seconds carry their unit in their name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from velora_edge.errors import InputError
from velora_edge.files import replace_file
from velora_runtime.bench.figures import Limit, Live, Part, Power, Roofline, Strict

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION = 1
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class Clock(Strict):
    """A clock's range and its value, MHz."""

    name: str
    min_mhz: int | None
    now_mhz: int | None
    max_mhz: int | None


class Conditions(Strict):
    """The machine at one moment.

    Attributes:
        clocks: of processor, GPU and memory, where they can be seen.
        clocks_locked: they cannot move; None where nobody can tell.
        temperatures_c: by sensor.
        throttled: counters and states of throttling, by name.
        cores: that the process may use.
    """

    clocks: list[Clock]
    clocks_locked: bool | None
    temperatures_c: dict[str, float]
    throttled: dict[str, int]
    cores: int


class During(Strict):
    """The machine while the live runs ran.

    Attributes:
        samples: how many were taken.
        hottest_c: the highest temperature.
        clocks_mhz: lowest and highest value by clock.
        throttled: highest value of each counter and state of throttling.
    """

    samples: int
    hottest_c: float | None
    clocks_mhz: dict[str, tuple[int, int]]
    throttled: dict[str, int]


class Stretch(Strict):
    """How still the machine was while something was measured.

    Attributes:
        seconds: that it took.
        others_cores: that other programs kept busy; None where nobody tells.
        taken_cores: that a virtual machine's host took away; None likewise.
    """

    seconds: float
    others_cores: float | None = None
    taken_cores: float | None = None


class Machine(Strict):
    """What the figures hold for.

    Attributes:
        board: a Jetson's model, else the processor.
        jetpack: a Jetson's; None elsewhere.
        l4t: likewise.
        power_mode: likewise, by name.
        gpu: its name; None without one.
        cpu: the processor.
        cores: that the process may use.
        memory_gb: of the machine.
        os: its name.
        kernel: its release.
        is_container: it runs in one.
        versions: of Python and of the packages that matter.
    """

    board: str
    jetpack: str | None
    l4t: str | None
    power_mode: str | None
    gpu: str | None
    cpu: str | None
    cores: int
    memory_gb: float | None
    os: str
    kernel: str
    is_container: bool
    versions: dict[str, str]


class Model(Strict):
    """The bundle.

    Attributes:
        name: by its manifest.
        path: as the user gave it.
        precision: of its graphs.
        architecture: by its manifest.
        trained: False for random weights.
        megabytes: of the streaming graphs and their weights.
        clip_length: pairs that a decision looks at.
        stride: pairs from one to the next of these.
        image_size: height and width.
        sha256: of the manifest.
    """

    name: str
    path: str
    precision: str
    architecture: str
    trained: bool
    megabytes: float
    clip_length: int
    stride: int
    image_size: tuple[int, int]
    sha256: str


class Check(Strict):
    """One limit.

    Attributes:
        name: the option.
        limit: that was asked for.
        values: of each run.
        outcome: INCONCLUSIVE where some runs keep the limit and others do not.
    """

    name: str
    limit: float
    values: list[float]
    outcome: Outcome


class Reason(Strict):
    """Why a figure cannot be trusted.

    Attributes:
        text: what was found.
        remedy: the command, or the deed, that mends it.
    """

    text: str
    remedy: str


class Verdict(Strict):
    """What the limits and the machine say together."""

    outcome: Outcome
    checks: list[Check]
    reasons: list[Reason]


class Change(Strict):
    """A figure of this result beside the same one of another.

    Attributes:
        name: of the figure.
        old: its median over the rounds, or runs, of the other result.
        new: of this one.
        change: by how much it is worse, as a share of the old one; negative where it is better.
        noise: by how much rounds of one result differ among themselves, the larger of both.
        outcome: FAIL where it is worse by more than was allowed, whatever rounds are compared.
    """

    name: str
    old: float
    new: float
    change: float
    noise: float
    outcome: Outcome


class Comparison(Strict):
    """A result beside an older one.

    Attributes:
        with_date: of the older one.
        max_regression: share by which a figure may be worse.
        changes: every figure that both have, the worst first.
        missing: figures of the older one that this one lacks.
        reasons: why the two cannot be compared, or not for sure.
        outcome: of all of them.
    """

    with_date: str
    max_regression: float
    changes: list[Change]
    missing: list[str]
    reasons: list[Reason]
    outcome: Outcome


class BenchResult(Strict):
    """One benchmark.

    Attributes:
        v: the schema's version.
        date: UTC, ISO 8601.
        reproduce: the command line.
        quick: shorter than what can be relied on.
        seconds: that it took.
        stretches: of it, by what was measured.
    """

    v: int = Field(SCHEMA_VERSION, ge=1)
    date: str
    reproduce: str
    quick: bool
    seconds: float
    stretches: dict[str, Stretch]
    machine: Machine
    models: list[Model]
    parts: list[Part]
    live: Live | None
    limits: list[Limit]
    power: Power | None
    before: Conditions
    during: During | None
    after: Conditions
    roofline: Roofline | None
    sweeps: dict[str, list[dict[str, float]]] = Field(default_factory=dict)
    verdict: Verdict
    comparison: Comparison | None = None


def json_schema() -> dict[str, Any]:
    """The form of a result, as `docs/bench.schema.json` publishes it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **BenchResult.model_json_schema()}


def write_result(result: BenchResult, path: Path) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    text = json.dumps(result.model_dump(mode="json"), indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place with --json"
        ) from error


def read_result(path: Path) -> BenchResult:
    """A result that `write_result` wrote.

    Raises:
        InputError: if it cannot be read, or is of another version.
    """
    again = "measure again with velora bench --json"
    try:
        raw: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", path=path, remedy=again) from error
    version = raw.get("v") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        problem = f"expected a result of velora bench with v {SCHEMA_VERSION}, got {version!r}"
        raise InputError(problem, path=path, remedy=again)
    try:
        return BenchResult.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5]
        )
        raise InputError(problems, path=path, remedy=again) from error


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))

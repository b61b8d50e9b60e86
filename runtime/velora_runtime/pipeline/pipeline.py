"""Pipeline: the threads of a run, with bounded queues between them.

    RGB source --PairRequest--> packing --Pair--> inference --items--> one thread for each sink

Live cameras have threads of their own before these (`velora_runtime.cameras.camera`). At pace `max` a
producer waits for room: nothing is dropped, and the predictions are the same every time. At pace `realtime`
the cameras wait for nobody: a run catches up after a stall, an engine that is too slow gets the newest pair,
and every drop is counted. `velora_runtime.queues` lists the queues.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from typing import TYPE_CHECKING, Any

from velora_edge.clock import Pacer
from velora_edge.preprocessing.packer import Pair, PairRequest
from velora_runtime.pipeline.frame_source import FrameReader, FrameResizer
from velora_runtime.pipeline.provisional import Budget, ProvisionalPacker, StepRequests
from velora_runtime.pipeline.supervisor import LEAVE_BEHIND_S, Supervisor, give_back_memory
from velora_runtime.queues import Channel, ClosedError, FreeList, FullPolicy
from velora_runtime.report import RunReport, RunStart
from velora_runtime.sinks.base import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from velora_edge.bundle import Manifest
    from velora_edge.clock import Clock
    from velora_edge.preprocessing.packer import Packer
    from velora_runtime.inference.decision import Action, Decider
    from velora_runtime.inference.recogniser import NullRecogniser, PairRecogniser
    from velora_runtime.pipeline.frame_source import Pace, RunInputs
    from velora_runtime.sinks.base import Sink

ROOM_TO_WAIT, ROOM_FOR_STALLS = 4, 32
"""Frames, and pairs, that may wait: at pace `max`, and while a live run recovers from a stall (frames also
while their events are still to come)."""


class Pipeline:
    """One run. Built and run by the main thread; `stop` may be called from any thread or signal handler.

    Args:
        manifest: the model's.
        feed: when pairs are made.
        packer: makes them.
        recogniser: sees them.
        sinks: get what it says; closed at the end, also after an error.
        pace: `max` or `realtime`.
        clock: of all times and waits.
        supervisor: looks after the threads; its `stop` ends the run, and live cameras share it.
        decider: tells when actions start and end; None: nobody does.
    """

    def __init__(
        self,
        manifest: Manifest,
        feed: RunInputs,
        packer: Packer,
        recogniser: PairRecogniser | NullRecogniser,
        sinks: Sequence[Sink],
        pace: Pace,
        clock: Clock,
        supervisor: Supervisor | None = None,
        decider: Decider | None = None,
    ) -> None:
        self.report = RunReport(
            sink_drops={sink.name: 0 for sink in sinks}, count_filtered=feed.count_filtered
        )
        self._feed, self._packer, self._recogniser, self._sinks = feed, packer, recogniser, sinks
        self._pace, self._clock = pace, clock
        when_full: FullPolicy = "wait" if pace == "max" else "lenient"
        room = ROOM_TO_WAIT if pace == "max" else ROOM_FOR_STALLS
        self._frames: Channel[PairRequest] = Channel(room, when_full, lambda: packer.is_waiting, clock)
        self._pairs: Channel[Pair] = Channel(room, when_full, clock=clock)
        self._items: list[Channel[Any]] = [
            Channel(sink.room, "newest" if sink.may_lose or pace == "realtime" else "wait") for sink in sinks
        ]
        self._free = FreeList(lambda: Pair.empty(manifest.image_size))
        self._recovered = 0
        self._resizer = FrameResizer(manifest)
        self._supervisor = supervisor or Supervisor(clock)
        self._stop, self._watchdog = self._supervisor.stop, self._supervisor.watchdog
        self._decider = decider
        self._budget = Budget()
        self._lacks: tuple[str, ...] = ()
        self.report.provisional.is_asked = feed.steps is not None
        if decider is not None:
            self.report.actions = {}
        self._start = RunStart()
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        """End the run soon: the cameras give no more, what is under way is finished."""
        self.report.was_stopped = True
        self._stop.set()

    def run(self) -> RunReport:
        """Run to the end of the sources, or until `stop`.

        Raises:
            VeloraError: whatever a thread raised first, after all have ended and the sinks are closed.
        """
        start_us = self._clock.now_us()
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in self._work()
        ]
        for thread in threads:
            thread.start()
        self._supervisor.service.ready()
        self._await(threads)
        self._supervisor.tell_stop()
        try:
            self._close_sinks()
        except Exception as error:
            self._errors.append(error)
        self.report.wall_us = self._clock.now_us() - start_us
        if self._errors:
            raise self._errors[0]
        return self.report

    def _await(self, threads: Sequence[threading.Thread]) -> None:
        """Wait until all have ended; after an error, those that do not end are left behind."""
        waited_s, turn_s = 0.0, 0.2
        for thread in threads:
            while thread.is_alive() and waited_s < LEAVE_BEHIND_S:
                thread.join(turn_s)  # returns to the interpreter, so that signals are handled
                waited_s += turn_s if self._errors else 0.0
                if not self._errors:
                    self._guarded(lambda: self._supervisor.poll(self.report))
                self._recover()

    def _recover(self) -> None:
        """After a stall, free the memory that it took."""
        if self._free.freed > self._recovered:
            self._recovered = self._free.freed
            give_back_memory()

    def _work(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if self._feed.rgb is not None:
            frames = FrameReader(
                self._feed, self._frames, self._resizer, self.report, self._pace, self._clock, self._stop
            )
            yield "rgb", frames.read
        yield "pack", self._pack
        yield "inference", self._infer
        for sink, items in zip(self._sinks, self._items, strict=True):
            yield f"sink-{sink.name}", functools.partial(self._drain, sink, items)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work; the first error of any thread ends them all."""
        try:
            work()
        except ClosedError:
            pass
        except BaseException as error:  # a thread must not die alone: it is raised again by `run`
            self._errors.append(error)
            self._stop.set()
            channels: tuple[Channel[Any], ...] = (self._frames, self._pairs, *self._items)
            for channel in channels:
                channel.abort()

    def _pack(self) -> None:
        for instant in self._instants():
            if instant.coming_us is not None:
                self._pack_between(instant)
                continue
            if not self._packer.accepts(instant.t_us):
                self.report.frames.late += instant.placed is not None
                continue
            self._start.begin(instant.t_us)
            if self._is_after_end(instant.t_us):
                self._stop.set()
                break
            with self._watchdog.working("packing"):
                self._pack_one(instant)
        else:
            if self._feed.rgb is None and not self._stop.is_set():
                self._packer.skip_rest()
        self._packer.step_back()
        self.report.warnings += self._start.warnings()
        self.report.pairs.skipped_events = self._packer.skipped
        if self._feed.edges_us is not None:
            self.report.warnings += self._feed.edges_us.warnings()
        if self._feed.live_steps is not None:
            self.report.provisional.left_out["overtaken"] += self._feed.live_steps.overtaken
        self._pairs.finish()
        self._frames.abort()

    def _is_after_end(self, t_us: int) -> bool:
        return self._start.passed_us(t_us) >= (self._feed.duration_us or math.inf)

    def _pack_between(self, request: PairRequest) -> None:
        assert isinstance(self._packer, ProvisionalPacker)
        if self._is_after_end(request.t_us):
            return
        packed = self._free.take()
        with self._watchdog.working("packing"):
            is_there = self._packer.peek_into(packed, request)
        if is_there:
            self._drop_pairs(self._pairs.offer(packed))
        else:
            self._free.give(packed)

    def _instants(self) -> Iterator[PairRequest]:
        if self._feed.live is not None:
            live_steps = self._feed.live_steps
            find_due = (lambda: None) if live_steps is None else live_steps.take
            yield from self._feed.live.instants(self._frames, self._packer.pack_ahead, find_due)
            return
        if self._feed.edges_us is None:
            while (instant := self._frames.get()) is not None:
                yield instant
            return
        edges, counts = self._feed.edges_us, self.report.pairs
        pacer = Pacer("max" if self._feed.is_live else self._pace, self._clock, self._stop)
        steps = StepRequests(self._feed.steps, pacer, self._clock, self._stop)
        for t_us in edges:
            if self._packer.is_exhausted:
                return
            counts.passed_over = edges.passed
            if self._feed.steps is not None:
                yield from steps.before(t_us, edges.passed_us)
            pacer.wait_for(t_us - edges.passed_us)
            if self._stop.is_set():
                return
            yield PairRequest(t_us, None, self._clock.now_us())

    def _pack_one(self, instant: PairRequest) -> None:
        packed, counts = self._free.take(), self.report.pairs
        self._packer.pack_into(packed, instant.t_us, instant.placed, instant.ready_us, instant.shrunk)
        if instant.shrunk is not None:
            self._resizer.give(instant.shrunk)
        if self._is_cut(instant) or (packed.frames.rgb is None and packed.frames.event is None):
            counts.empty += not self._is_cut(instant)
            self._packer.withdraw(packed)
            self._free.give(packed)
            return
        counts.packed += 1
        if self._feed.is_live:
            self._start.see(packed.frames.t_us, self._missing(packed))
        counts.without_rgb += packed.frames.rgb is None
        counts.without_events += packed.frames.event is None
        counts.events += packed.events
        self._drop_pairs(self._pairs.put(packed))

    def _drop_pairs(self, dropped: Sequence[Pair]) -> None:
        counts = self.report.pairs
        for pair in dropped:
            if pair.coming_us is not None:
                self.report.provisional.left_out["unseen"] += 1
            else:
                counts.dropped += 1
                counts.dropped_events += pair.events
                counts.dropped_rgb += pair.frames.rgb is not None
            self._free.give(pair)

    def _is_cut(self, instant: PairRequest) -> bool:
        """Whether the recording, or the live run, ends within this window."""
        if self._feed.is_live and self._stop.is_set():
            return True
        return instant.placed is None and self._packer.is_exhausted

    def _infer(self) -> None:
        while (packed := self._pairs.get()) is not None:
            if packed.coming_us is not None:
                self._infer_between(packed)
            else:
                with self._watchdog.working("inference"):
                    result, actions = self._decide(self._see(packed))
                self._tell(lambda sink: sink.take(result))  # noqa: B023  (called at once)
                self._tell_actions(actions)
            self._free.give(packed)
        if self._decider is not None:
            self._tell_actions(self._decider.end())
        if self._recogniser.span is not None:
            self._recogniser.span.end()
            self.report.clip_span_s = self._recogniser.span.span_s
        for items in self._items:
            items.finish()

    def _infer_between(self, packed: Pair) -> None:
        """Decide between two pairs, where that is over before the next one; actions are decided at pairs."""
        counts, begun_us = self.report.provisional, self._clock.now_us()
        if self._pace == "realtime" and not self._budget.allows(packed, begun_us):
            counts.left_out["late"] += 1
            return
        with self._watchdog.working("inference"):
            logits = self._recogniser.see_between(packed)
        self._budget.see(self._clock.now_us() - begun_us)
        if logits is None:
            return
        stages = self._stages(packed)
        counts.add(stages["total"], is_idle=self._recogniser.is_idle)
        said = self._predict(packed, logits, stages, self._lacks)
        decided = None if self._decider is None else self._decider.decided
        result = Result(packed.frames, said, decided=decided)
        self._tell(lambda sink: sink.take(result) if sink.takes_provisional else None)

    def _tell(self, take: Callable[[Sink], Any]) -> None:
        """Queue for each sink's thread what the sink takes."""
        for sink, items in zip(self._sinks, self._items, strict=True):
            item = take(sink)
            for dropped in () if item is None else items.put(item):
                self.report.sink_drops[sink.name] += 1
                sink.discard(dropped)

    def _tell_actions(self, actions: Sequence[Action]) -> None:
        for action in actions:
            self._tell(lambda sink: sink.take_action(action))  # noqa: B023  (called at once)

    def _decide(self, result: Result) -> tuple[Result, Sequence[Action]]:
        """Add the decision to a result; return both, with the actions that it starts and ends."""
        said = result.prediction
        if self._decider is None or self.report.actions is None or said is None:
            return result, ()
        actions = self._decider.see(said.seq, said.t_us, self._recogniser.scores)
        counts = self.report.actions
        for action in actions:
            if action.to_us is None:
                counts[action.label] = counts.get(action.label, 0) + 1
        return Result(result.pair, said, result.missing, self._decider.decided), actions

    def _see(self, packed: Pair) -> Result:
        report, recogniser, pair = self.report, self._recogniser, packed.frames
        report.first_us = pair.t_us if report.first_us is None else report.first_us
        report.last_us = pair.t_us
        logits = recogniser.see(packed)
        stages, self._lacks = self._stages(packed), self._missing(packed)
        if pair.skew_us is not None:
            report.skew_us.add(abs(pair.skew_us))
        if logits is None:
            return Result(pair, None, recogniser.missing)
        report.predictions += 1
        report.idle += recogniser.is_idle
        for stage, value_us in () if recogniser.is_idle else stages.items():
            report.latency_us[stage].add(value_us)
        return Result(pair, self._predict(packed, logits, stages, self._lacks))

    def _stages(self, packed: Pair) -> dict[str, int]:
        """Microseconds of what was seen last, by stage."""
        recogniser = self._recogniser
        stages = {"pack": packed.pack_us, "encode": recogniser.encode_us, "head": recogniser.head_us}
        # At pace max pairs wait in the queues on purpose: only the work counts there.
        waited = self._clock.now_us() - packed.ready_us
        stages["total"] = waited if self._pace == "realtime" else sum(stages.values())
        return stages

    def _predict(self, packed: Pair, logits: Any, stages: dict[str, int], missing: tuple[str, ...]) -> Any:
        latency_ms = {stage: value_us / 1000 for stage, value_us in stages.items()}
        return self._recogniser.predict(packed, logits, latency_ms, self.report.dropped(), missing)

    def _missing(self, packed: Pair) -> tuple[str, ...]:
        """Names of the run's cameras that the pair lacks."""
        cameras = (
            ("rgb", self._feed.rgb is not None, packed.frames.rgb),
            ("event", self._packer.has_events, packed.frames.event),
        )
        return tuple(name for name, is_wanted, frame in cameras if is_wanted and frame is None)

    def _drain(self, sink: Sink, items: Channel[Any]) -> None:
        while (item := items.get()) is not None:
            with self._watchdog.working(f"sink {sink.name}"):
                sink.write(item)

    def _close_sinks(self) -> None:
        with contextlib.ExitStack() as closing:
            for sink in self._sinks:
                closing.callback(sink.close)

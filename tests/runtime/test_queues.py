"""Bounded queues between threads, and objects that are used again."""

from __future__ import annotations

import threading

import pytest
from velora_runtime.queues import Channel, ClosedError, FreeList

from tests.fakes import FakeClock


def test_items_come_out_in_the_order_they_went_in() -> None:
    channel: Channel[int] = Channel(3, "wait")
    for item in (1, 2, 3):
        channel.put(item)
    assert [channel.get() for _ in range(3)] == [1, 2, 3]


def test_newest_hands_back_the_oldest_when_full() -> None:
    channel: Channel[int] = Channel(2, "newest")
    assert [channel.put(item) for item in (1, 2, 3, 4)] == [[], [], [1], [2]]
    channel.finish()
    assert [channel.get() for _ in range(3)] == [3, 4, None]


def serve(
    room: int, puts: int, *, every_s: float, takes_s: float, stall_s: tuple[float, float] = (0, 0)
) -> tuple[list[int], list[float]]:
    """What is taken, and for how long each waited: one is put every so often, each takes so long, none is
    begun during a stall. The time is made."""
    now_s, clock = 0.0, FakeClock()
    channel: Channel[int] = Channel(room, "lenient", clock=clock)
    taken, waited_s, free_s = [], [], 0.0

    def take_until(end_s: float) -> None:
        nonlocal now_s, free_s
        while free_s <= end_s:
            now_s = max(now_s, free_s)
            clock.t_us = round(now_s * 1e6)
            if stall_s[0] <= now_s < stall_s[1]:
                free_s = stall_s[1]
            elif (item := channel.get_within(0)) is None:
                return
            else:
                taken.append(item)
                waited_s.append(now_s - item * every_s)
                free_s = now_s + takes_s

    for k in range(puts):
        take_until(k * every_s)
        now_s = k * every_s
        clock.t_us = round(now_s * 1e6)
        channel.put(k)
        take_until(now_s)
    return taken, waited_s


@pytest.mark.parametrize(("takes_s", "stall_s"), [(0.015, 1.0), (0.025, 0.5)])
def test_lenient_bears_a_stall_without_a_loss(takes_s: float, stall_s: float) -> None:
    taken, _ = serve(32, 3000, every_s=0.033, takes_s=takes_s, stall_s=(50, 50 + stall_s))
    assert taken == list(range(taken[-1] + 1))
    assert taken[-1] >= 2998


@pytest.mark.parametrize("takes_s", [0.035, 0.04, 0.07, 0.4])
def test_lenient_gives_the_newest_to_whoever_is_too_slow(takes_s: float) -> None:
    taken, waited_s = serve(32, 3000, every_s=0.033, takes_s=takes_s)
    after = [w for w, item in zip(waited_s, taken, strict=True) if item * 0.033 > 10]
    assert sorted(after)[len(after) // 2] <= 0.04
    assert max(after) <= 0.1
    assert len(taken) >= 0.95 * 3000 * 0.033 / takes_s


def test_lenient_keeps_what_waits_for_something_else() -> None:
    channel: Channel[int] = Channel(4, "lenient", lambda: True)
    for k in range(100):
        assert channel.put(k) == []
        if k >= 3:
            assert channel.get() == k - 3


def test_lenient_never_holds_more_than_its_room() -> None:
    channel: Channel[int] = Channel(3, "lenient")
    dropped = [channel.put(k) for k in range(12)]
    assert dropped[:5] == [[], [], [], [0], [1]]
    channel.finish()
    assert list(iter(channel.get, None)) == [9, 10, 11]


def test_wait_loses_nothing_however_slow_the_taker() -> None:
    channel: Channel[int] = Channel(1, "wait")

    def put_all() -> None:
        for item in range(100):
            channel.put(item)
        channel.finish()

    putter = threading.Thread(target=put_all)
    putter.start()
    taken = list(iter(channel.get, None))
    putter.join(10)
    assert taken == list(range(100))


def test_what_is_in_a_finished_channel_can_still_be_taken() -> None:
    channel: Channel[int] = Channel(2, "wait")
    channel.put(1)
    channel.finish()
    assert (channel.get(), channel.get(), channel.get()) == (1, None, None)


def test_abort_wakes_who_waits_for_room_and_who_waits_for_an_item() -> None:
    full: Channel[int] = Channel(1, "wait")
    full.put(1)
    empty: Channel[int] = Channel(1, "wait")
    ended: list[str] = []

    def expect_closed(name: str, act: object) -> None:
        try:
            act()  # type: ignore[operator]
        except ClosedError:
            ended.append(name)

    threads = [
        threading.Thread(target=expect_closed, args=("put", lambda: full.put(2))),
        threading.Thread(target=expect_closed, args=("get", empty.get)),
    ]
    for thread in threads:
        thread.start()
    full.abort()
    empty.abort()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["get", "put"]


def test_an_aborted_channel_takes_nothing() -> None:
    channel: Channel[int] = Channel(2, "newest")
    channel.put(1)
    channel.abort()
    with pytest.raises(ClosedError):
        channel.put(2)
    with pytest.raises(ClosedError):
        channel.get()


def test_a_channel_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="expected room for at least 1 item, got 0"):
        Channel(0, "wait")


def test_what_was_given_back_is_used_again() -> None:
    free: FreeList[list[int]] = FreeList(list)
    first, second = free.take(), free.take()
    assert first is not second
    free.give(first)
    assert free.take() is first
    assert free.made == 2


def test_no_more_is_kept_than_asked_for() -> None:
    free: FreeList[list[int]] = FreeList(list, kept=2)
    taken = [free.take() for _ in range(4)]
    for one in taken:
        free.give(one)
    for _ in range(3):
        free.take()
    assert (free.made, free.freed) == (5, 2)


def test_what_is_offered_is_taken_where_nothing_waits_and_makes_room_for_all_else() -> None:
    channel: Channel[str] = Channel(3, "lenient", clock=FakeClock())
    assert (channel.offer("a"), channel.offer("b"), channel.get()) == ([], ["a"], "b")
    assert (channel.offer("c"), channel.put("d"), channel.offer("e")) == ([], ["c"], ["e"])
    channel.finish()
    assert [channel.get(), channel.get(), channel.is_over] == ["d", None, True]
    channel.abort()
    with pytest.raises(ClosedError):
        channel.offer("f")


def test_what_is_offered_keeps_its_place_where_all_wait() -> None:
    channel: Channel[str] = Channel(3, "wait")
    assert [channel.put("a"), channel.offer("b"), channel.put("c")] == [[], [], []]
    assert [channel.get() for _ in range(3)] == ["a", "b", "c"]


def test_work_on_what_was_offered_counts_as_spare_time() -> None:
    """A consumer that is busy with offers alone still gets all that waits after a stall."""
    clock = FakeClock()
    channel: Channel[int] = Channel(8, "lenient", clock=clock)
    for k in range(1000):
        clock.t_us = 10_000 * k
        channel.put(k)
        assert channel.get() == k
        for _ in range(2):
            assert channel.get_within(0) is None
            channel.offer(-1)
            assert channel.get() == -1
            clock.t_us += 4_900
    assert [channel.put(k) for k in range(8)] == [[]] * 8

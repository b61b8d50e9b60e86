"""The labelling page's server: who may see and change, what is saved, and what is kept in memory."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.recordings import write_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
pytest.importorskip("starlette", reason="needs the web extra: pip install -e '.[web]'")

WAVE = {"start": 0.1, "end": 0.25, "label": "wave"}


class Served:
    """The page of a recording of 0.4 s, events alone."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        from velora_runtime.web.labelling import LabelSite, SegmentFile, Suggestions
        from velora_runtime.web.overview import Overview
        from velora_runtime.web.server import WebServer

        write_events(folder / "day1.raw")
        self.file, self.suggestions = folder / "segments.csv", Suggestions()
        self.notes: list[str] = []
        self.overview = Overview(folder / "day1.raw", None, self.notes.append)
        segments = SegmentFile(self.file)
        self.server = WebServer(
            "127.0.0.1:0",
            token,
            lambda gate, refused: LabelSite(
                "day1", self.overview, segments, self.suggestions, ("rest",), gate
            ),
            self.notes.append,
        )
        self.overview.join(60)

    def ask(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        with contextlib.closing(connection):
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/api/recording")[1]))

    def save(self, *segments: object, version: str = "") -> tuple[int, dict[str, Any]]:
        status, said = self.ask("/api/segments", {"version": version, "segments": segments})
        return status, json.loads(said)

    def close(self) -> None:
        self.server.close()
        self.overview.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


def test_the_overview_has_the_length_the_rate_and_a_picture_for_each_window(site: Served) -> None:
    state = site.state()
    assert (state["name"], state["cameras"], state["is_read"], state["trouble"]) == (
        *("day1", ["event"], True, None),
    )
    assert state["times_us"] == [k * 33_333 for k in range(len(state["times_us"]))]
    assert state["duration"] == pytest.approx(0.4, abs=0.04)
    assert [round(rate, -2) for _, rate in state["rates"][:10]] == [10_000.0] * 10  # 4000 events in 0.4 s
    status, jpeg = site.ask("/frames/event/40000.jpg")
    assert (status, jpeg[:3]) == (200, b"\xff\xd8\xff")
    assert site.ask("/frames/rgb/40000.jpg")[0] == site.ask("/frames/other/0.jpg")[0] == 404


def test_what_is_saved_is_in_the_file_and_in_the_next_answer(site: Served) -> None:
    status, said = site.save(WAVE)
    assert status == 200
    assert site.file.read_text() == "start,end,label\n0.1,0.25,wave\n"
    state = site.state()
    assert (state["version"], state["segments"]) == (said["version"], [{**WAVE, "split": ""}])
    assert site.save(version=said["version"])[0] == 200
    assert site.file.read_text() == "start,end,label\n"


def test_a_list_made_from_an_older_one_is_refused(site: Served) -> None:
    _, said = site.save(WAVE)
    site.file.write_text("start,end,label\n0,0.1,mine\n")
    assert site.save(WAVE, version=said["version"]) == (
        409,
        {"error": "the segments were changed elsewhere", "outdated": True},
    )
    assert site.file.read_text() == "start,end,label\n0,0.1,mine\n"


def test_a_file_whose_columns_would_be_lost_is_not_written(site: Served) -> None:
    site.file.write_text("start,end,label,who\n0,0.1,wave,me\n")
    state = site.state()
    assert state["problems"] == ["segments.csv: columns that would be lost: who"]
    assert site.save(WAVE, version=state["version"])[0] == 400
    assert site.file.read_text() == "start,end,label,who\n0,0.1,wave,me\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"version": "", "segments": [{"start": NaN, "end": 1, "label": "wave"}]}',
        b'{"version": "", "segments": [{"start": 0, "end": 1e300, "label": "wave"}]}',
        b'{"version": "", "segments": [{"start": 1, "end": 1, "label": "wave"}]}',
        b'{"version": "", "segments": [{"start": 0, "end": 1, "label": " "}]}',
        b'{"version": "", "segments": [{"start": 0, "end": 1, "label": "a\\nb"}]}',
        b'{"version": "", "segments": [{"start": 0, "end": 1, "label": "wave", "split": "all"}]}',
        b'{"version": "", "segments": [{"start": 0, "end": 1, "label": "wave", "more": 1}]}',
        b'{"version": "", "segments": [' + b" " * (1 << 20) + b"]}",
    ],
)
def test_what_is_no_list_of_segments_is_refused_and_nothing_is_written(site: Served, body: bytes) -> None:
    status, said = site.ask("/api/segments", body)
    assert status == 400
    assert json.loads(said)["error"]
    assert not site.file.exists()


def test_nobody_sees_or_labels_without_the_token(tmp_path: Path) -> None:
    site = Served(tmp_path, token="s3cret")
    try:
        body = {"version": "", "segments": [WAVE]}
        for path, sent in (
            *(("/", None), ("/api/recording", None), ("/frames/event/0.jpg", None)),
            ("/api/segments", body),
        ):
            assert site.ask(path, sent)[0] == 401
        assert not site.file.exists()
        bearer = {"Authorization": "Bearer s3cret"}
        assert site.ask("/api/segments", body, bearer)[0] == 200
    finally:
        site.close()


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://elsewhere"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "elsewhere"}],
)
def test_a_page_from_elsewhere_cannot_label(site: Served, headers: dict[str, str]) -> None:
    assert site.ask("/api/segments", {"version": "", "segments": [WAVE]}, headers)[0] == 403
    assert not site.file.exists()


def test_the_labelling_page_may_run_nothing_but_its_own_script(site: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        answer = connection.getresponse()
        policy = answer.headers["Content-Security-Policy"]
        answer.read()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_predictions_become_stretches_of_one_label(site: Served) -> None:
    first_us = site.overview.first_us
    assert first_us is not None
    for t_us, label, score in ((0, "a", 0.5), (100, "a", 0.75), (200, "b", 1.0), (300, "b", 1.0)):
        site.suggestions.take(first_us + t_us * 1000, label, score)
    assert site.state()["suggestions"] == [
        {"start": 0.0, "end": 0.2, "label": "a", "score": 0.625},
        {"start": 0.2, "end": 0.3, "label": "b", "score": 1.0},
    ]


def test_pictures_are_thinned_out_where_they_take_too_much_memory(tmp_path: Path) -> None:
    from velora_runtime.web.overview import Overview

    write_events(tmp_path / "e.raw", duration_us=1_000_000)
    whole = Overview(tmp_path / "e.raw", None, lambda line: None)
    whole.join(60)
    n_bytes = sum(len(whole.picture("event", t) or b"") for t in whole.times_us())
    thin = Overview(tmp_path / "e.raw", None, lambda line: None, most_bytes=n_bytes // 3)
    thin.join(60)
    assert thin.times_us() == whole.times_us()[::4]
    assert thin.rates() == whole.rates()
    assert thin.picture("event", thin.times_us()[1] + 1) == whole.picture("event", whole.times_us()[4])

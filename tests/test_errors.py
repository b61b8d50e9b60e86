"""Errors between processes. Addresses: what is secret in them is shown nowhere, and reaches who connects."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from velora_edge.errors import (
    Address,
    CameraError,
    ConfigError,
    DatasetError,
    EngineError,
    InputError,
    MissingExtraError,
    SourceError,
    VeloraError,
    redact,
)

WHOLE = "rtsp://admin:hunter2@camera:554/stream?key=hunter2"
SHOWN = "rtsp://***@camera:554/stream?***"


def test_its_text_is_redacted_and_its_secret_is_whole() -> None:
    address = Address(WHOLE)
    assert (str(address), f"{address}", repr(address)) == (SHOWN, SHOWN, repr(SHOWN))
    assert address.secret == WHOLE
    assert Address(address).secret == WHOLE


def test_whatever_is_made_of_it_is_redacted() -> None:
    address = Address(WHOLE)
    made = [
        json.dumps({"source": address}),
        address + "!",
        address.lower(),
        str(SourceError("is not there", path=address)),
        repr({"name": address}),
        str(copy.deepcopy(address)),
        str(pickle.loads(pickle.dumps(address))),
    ]
    assert [text for text in made if "hunter2" in text] == []


@pytest.mark.parametrize(
    ("whole", "shown"),
    [
        ("rtsp://camera/stream", "rtsp://camera/stream"),
        ("http://me@camera/", "http://***@camera/"),
        ("rtsp://me:p@ss/wo?rd@camera/1", "rtsp://***@camera/1"),
        ("rtsp://me:two words\"'<>@camera/1", "rtsp://***@camera/1"),
        ("srt://camera:9000?passphrase=hunter2&mode=caller", "srt://camera:9000?***"),
        ("mqtts://me:hunter2@host:8883/a/b", "mqtts://***@host:8883/a/b"),
        ("gst://rtspsrc location=rtsp://me:hunter2@c/ user-id=me user-pw=hunter2 ! decodebin",
         "gst://rtspsrc location=rtsp://***@c/ user-id=*** user-pw=*** ! decodebin"),
        ('gst://souphttpsrc location="http://c/?a=b" proxy-pw="hunter 2" ! jpegdec',
         'gst://souphttpsrc location="http://c/?***" proxy-pw=*** ! jpegdec'),
        ("prophesee://00050123", "prophesee://00050123"),
        ("/dev/video0", "/dev/video0"),
        ("recordings/a@b.raw", "recordings/a@b.raw"),
        ("-", "-"),
        ("none", "none"),
    ],
)  # fmt: skip
def test_only_what_is_secret_is_hidden(whole: str, shown: str) -> None:
    assert str(Address(whole)) == shown
    assert Address(whole).secret == whole


def test_what_other_programs_quote_is_redacted_within_their_words() -> None:
    said = "ERROR: from rtspsrc0: could not open rtsp://me:hunter2@camera/1 (401): password = hunter2, bye"
    assert (
        redact(said) == "ERROR: from rtspsrc0: could not open rtsp://***@camera/1 (401): password = ***, bye"
    )


@pytest.mark.parametrize(
    "error",
    [
        VeloraError("plain"),
        InputError("wrong", path="a.raw", place="byte 4", remedy="copy it again"),
        DatasetError(["a: cut off", "b: missing"], path="set", remedy="copy it again"),
        ConfigError(["train.lr: missing"], path="c.yaml"),
        EngineError("out of memory"),
        CameraError("gone"),
        MissingExtraError("torch", "train", "training"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_another_process_gets_an_error_as_it_was(error: VeloraError) -> None:
    received = pickle.loads(pickle.dumps(error))
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert vars(received) == vars(error)

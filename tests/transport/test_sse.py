from __future__ import annotations

import collections
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import PlatformError
from truststram_lab.transport import Response
from truststram_lab.transport.sse import EventParser, ServerEvent, Subscription

LINE = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]))


def reference(text: str) -> list[ServerEvent]:
    """The standard's algorithm on the whole text, line by line."""
    events, kind, data, last_id = [], "", [], ""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n")[:-1]:
        if not line:
            if data:
                events.append(ServerEvent(kind or "message", "\n".join(data), last_id))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


def cut(payload: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(payload), *(place % (len(payload) + 1) for place in places)})
    return [payload[a:b] for a, b in itertools.pairwise(edges)]


@given(
    lines=st.lists(
        st.one_of(
            st.just(""),
            st.builds("data:{}".format, LINE),
            st.builds("data: {}".format, LINE),
            st.builds("event: {}".format, LINE),
            st.builds("id: {}".format, LINE),
            st.builds(":{}".format, LINE),
            LINE,
        )
    ),
    ending=st.sampled_from(["\n", "\r", "\r\n"]),
    bom=st.booleans(),
    places=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_events_do_not_depend_on_where_the_bytes_are_cut(lines, ending, bom, places):
    text = ("\ufeff" if bom else "") + "".join(line + ending for line in lines)
    parser = EventParser()
    found = [event for chunk in cut(text.encode(), places) for event in parser.feed(chunk)]
    assert found == reference(text)


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_break_the_parser(chunks):
    parser = EventParser()
    for chunk in chunks:
        parser.feed(chunk)


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory():
    parser = EventParser()
    chunks = [b"data:" + b"x" * 2**20 + b"\n"] * 20
    with pytest.raises(PlatformError, match="without an end"):
        collections.deque(map(parser.feed, chunks), maxlen=0)


def wire(*sequences: int, kind: str = "round.closed") -> bytes:
    text = ""
    for number in sequences:
        event = {
            "stream": "run:r1",
            "sequence": number,
            "type": kind,
            "data": {},
            "created_at": "2026-01-01T00:00:00Z",
        }
        text += f"id: {number}\nevent: {kind}\ndata: {json.dumps(event)}\n\n"
    return text.encode()


@given(
    last=st.integers(0, 30),
    breaks=st.lists(st.integers(1, 8), min_size=1, max_size=10),
    overlap=st.integers(0, 4),
)
def test_cuts_neither_lose_nor_repeat_an_event(last, breaks, overlap):
    subscription = Subscription("run:r1")
    seen: list[int] = []
    for length in [*breaks, 40]:
        asked = int(subscription.call().headers["last-event-id"])
        assert asked == subscription.call().query["after"] == subscription.last
        # A platform may repeat what it cannot know to have arrived.
        first = max(1, asked + 1 - overlap)
        upto = min(last, asked + length)
        payload = wire(*range(first, upto + 1)) + b'id: 99\ndata: {"half'
        seen += [event.sequence for event in subscription.feed(payload)]
        assert subscription.ended(cut=True) is not None
    assert seen == list(range(1, last + 1))


@pytest.mark.parametrize("kind", ["run.completed", "run.failed"])
def test_a_final_event_and_a_clean_end_are_the_end(kind):
    subscription = Subscription("run:r1")
    subscription.call()
    subscription.feed(wire(1, kind=kind))
    assert subscription.ended(cut=False) is None


def asked(subscription: Subscription) -> tuple[object, str | None]:
    call = subscription.call()
    return call.query["after"], call.headers.get("last-event-id")


@pytest.mark.parametrize("places", [[], [3], [7], [8], [11], [12], [1, 2, 9, 13]])
def test_a_stream_from_now_on_resumes_where_it_began(places):
    """Also when it is cut off before the first event."""
    subscription = Subscription("org", after="latest")
    assert asked(subscription) == ("latest", None)
    for chunk in cut(b": open\nid: 41\n\n", places):
        assert subscription.feed(chunk) == []
    assert subscription.ended(cut=True) is not None
    assert asked(subscription) == (41, "41")
    [event] = subscription.feed(b": open\n\n" + wire(42))
    assert event.sequence == 42
    assert asked(subscription) == (42, "42")


def test_who_was_cut_off_before_it_heard_where_it_began_asks_again():
    subscription = Subscription("org", after="latest")
    subscription.call()
    assert subscription.feed(b": open\nid: 4") == []
    assert asked(subscription) == ("latest", None)


def test_a_platform_that_does_not_say_where_it_begins_is_followed_all_the_same():
    subscription = Subscription("org", after="latest")
    subscription.call()
    [event] = subscription.feed(b": open\n\n" + wire(42))
    assert event.sequence == 42
    assert asked(subscription) == (42, "42")


def test_a_stopped_run_may_go_on():
    subscription = Subscription("run:r1")
    subscription.call()
    subscription.feed(wire(1, kind="run.stopped"))
    assert subscription.ended(cut=False) is not None


def test_a_drained_stream_ends_after_the_second_empty_connection():
    subscription = Subscription("run:r1", after=7)
    subscription.call()
    assert subscription.ended(cut=False) is not None
    subscription.call()
    assert subscription.ended(cut=False) is None


def test_the_platform_sets_the_pause_within_reason():
    subscription = Subscription("org")
    for text, pause in ((b"retry: 1500\n", 1.5), (b"retry: 99999999\n", 10.0), (b"", 0.2)):
        subscription.call()
        subscription.feed(text)
        assert subscription.ended(cut=True) == pause


def test_a_page_instead_of_a_stream_is_refused():
    check = Subscription("org").call().unwrap
    assert check is not None
    with pytest.raises(PlatformError, match="text/html"):
        check(Response(200, {"content-type": "text/html"}))

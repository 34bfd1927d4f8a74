"""Event streams over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from truststram_lab.exceptions import PlatformError, PlatformUnavailableError
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.transport import Target
from truststram_lab.transport.drivers import AsyncHttpDriver, HttpDriver
from truststram_lab.transport.engine import RetryPolicy
from truststram_lab.transport.sse import Subscription
from truststram_lab.transport.streams import AsyncEventStream, EventStream

QUICK = RetryPolicy(attempts=2, base_s=0.001)


def wire_event(number: int, kind: str = "round.closed") -> bytes:
    event = {
        "stream": "run:r",
        "sequence": number,
        "type": kind,
        "data": {"number": number},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return f"retry: 5\nid: {number}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode()


class Run:
    """A platform's stream of ``last`` events, the final one completing the run."""

    def __init__(self, last: int, *, lose_after: int | None = None) -> None:
        self.last = last
        self.lose_after = lose_after
        self.asked_after: list[int] = []

    def __call__(self, asked, wire) -> bool:
        after = int(asked.headers["last-event-id"])
        self.asked_after.append(after)
        wire.start_events()
        wire.chunk(b": heartbeat\n\n")
        for sent, number in enumerate(range(after + 1, self.last + 1)):
            if sent == self.lose_after:
                wire.chunk(wire_event(number)[:40])
                return False
            kind = "run.completed" if number == self.last else "round.closed"
            wire.chunk(wire_event(number, kind))
        wire.send(b"0\r\n\r\n")
        return False


def read(url: str, after: int = 0) -> list[int]:
    driver = HttpDriver(Target(url, "t", PROTOCOL), policy=QUICK)
    with EventStream(driver, Subscription("run:r", after)) as stream:
        return [event.sequence for event in stream]


def read_async(url: str, after: int = 0) -> list[int]:
    async def collect() -> list[int]:
        driver = AsyncHttpDriver(Target(url, "t", PROTOCOL), policy=QUICK)
        async with AsyncEventStream(driver, Subscription("run:r", after)) as stream:
            return [event.sequence async for event in stream]

    return asyncio.run(collect())


both = pytest.mark.parametrize("read", [read, read_async], ids=["sync", "async"])


@both
def test_a_stream_ends_with_the_run(serve, read):
    run = Run(5)
    server = serve(run)
    assert read(server.url) == [1, 2, 3, 4, 5]
    assert "/api/v1/events?stream=run%3Ar&after=0" in server.asked[0].path
    assert server.asked[0].headers["accept"] == "text/event-stream"


@both
def test_a_stream_cut_again_and_again_goes_on_where_it_was(serve, read):
    run = Run(7, lose_after=3)
    assert read(serve(run).url) == [1, 2, 3, 4, 5, 6, 7]
    assert run.asked_after == [0, 3, 6]


@both
def test_what_was_seen_before_is_not_asked_for(serve, read):
    assert read(serve(Run(6)).url, 4) == [5, 6]


@both
def test_a_run_that_is_over_and_read_ends_at_once(serve, read):
    assert read(serve(Run(6)).url, 6) == []


@both
def test_a_platform_that_stays_away_is_an_error(serve, read):
    def answer(asked, wire):
        server.stop_listening()
        return Run(6, lose_after=2)(asked, wire)

    server = serve(answer)
    with pytest.raises(PlatformUnavailableError):
        read(server.url)


@both
def test_an_event_that_is_none_is_an_error(serve, read):
    def answer(asked, wire):
        wire.start_events()
        wire.chunk(b"data: {}\n\n")

    with pytest.raises(PlatformError, match="not understood"):
        read(serve(answer).url)


@both
def test_an_answer_that_is_no_stream_is_an_error(serve, read):
    with pytest.raises(PlatformError, match="application/json"):
        read(serve(lambda asked, wire: wire.answer()).url)


class Silent:
    """Sends one event and then nothing."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, asked, wire) -> bool:
        wire.start_events()
        wire.chunk(wire_event(1))
        self.release.wait(30)
        return False


@pytest.fixture
def silent():
    answer = Silent()
    yield answer
    answer.release.set()


def test_another_thread_ends_an_iteration_that_waits(serve, silent):
    driver = HttpDriver(Target(serve(silent).url, "t", PROTOCOL))
    stream = EventStream(driver, Subscription("run:r"))
    first, seen = threading.Event(), []

    def listen() -> None:
        for event in stream:
            seen.append(event.sequence)
            first.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert first.wait(5)
    stream.close()
    thread.join(5)
    assert not thread.is_alive()
    assert seen == [1]
    assert list(stream) == []


def test_closing_the_driver_it_came_from_ends_a_stream_too(serve, silent):
    driver = HttpDriver(Target(serve(silent).url, "t", PROTOCOL))
    stream = EventStream(driver.sibling(), Subscription("run:r"))
    first = threading.Event()

    def listen() -> None:
        for _ in stream:
            first.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert first.wait(5)
    driver.close()
    thread.join(5)
    assert not thread.is_alive()
    assert list(EventStream(driver.sibling(), Subscription("run:r"))) == []


def test_a_stream_closed_before_it_began_is_empty(serve):
    driver = HttpDriver(Target(serve(Run(3)).url, "t", PROTOCOL))
    stream = EventStream(driver, Subscription("run:r"))
    stream.close()
    assert list(stream) == []


def test_a_cancelled_listener_leaves_nothing_open(serve, silent):
    async def scenario() -> list[int]:
        driver = AsyncHttpDriver(Target(serve(silent).url, "t", PROTOCOL))
        seen: list[int] = []

        async def listen() -> None:
            async with AsyncEventStream(driver, Subscription("run:r")) as stream:
                async for event in stream:
                    seen.append(event.sequence)

        task = asyncio.create_task(listen())
        while not seen:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert driver.closed
        return seen

    assert asyncio.run(scenario()) == [1]

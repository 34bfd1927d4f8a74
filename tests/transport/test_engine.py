"""The laws of a call, on the engine alone: no socket, no clock."""

from __future__ import annotations

import email.utils
import json
import traceback
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab import exceptions
from truststram_lab.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    InsufficientResourcesError,
    InvalidInputError,
    PlatformError,
    PlatformUnavailableError,
    RateLimitExceededError,
    RequestTimeoutError,
    TrustStramException,
)
from truststram_lab.schemas.base import PROTOCOL
from truststram_lab.schemas.registry import CreateModel
from truststram_lab.schemas.serving import PredictRequest
from truststram_lab.transport import Call, Response, Target
from truststram_lab.transport.bodies import content_digest, json_bytes
from truststram_lab.transport.engine import (
    Engine,
    Failure,
    Request,
    Resolve,
    RetryPolicy,
    Wait,
)

SECRET = "tsk-7f3a9c1e5b2d4860"
HERE = Target("http://127.0.0.1:9", SECRET, PROTOCOL)

REFUSED = Failure("connect", "Connection refused", sent=False)
CUT = Failure("cut", "reset by peer", sent=True)
LATE = Failure("timeout", "timed out", sent=True)
OK = Response(200, {}, b"{}")

READ: Call[None] = Call("GET", "/api/v1/models", None)
CHANGE: Call[None] = Call("POST", "/api/v1/models", None, json=CreateModel(name="a"))
UNSAFE: Call[None] = Call("POST", "/api/v1/unsafe", None, idempotency_key="")
PREDICT: Call[None] = Call(
    "POST", "/api/v1/endpoints/a/predict", None, idempotency_key="", repeatable=True
)


def busy(status: int, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): text for name, text in headers.items()}, b"")


@dataclass
class Trace:
    """What an engine asked for."""

    requests: list[Request] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    resolved: list[Target | None] = field(default_factory=list)
    value: Any = None
    error: TrustStramException | None = None


def drive(
    call: Call[Any],
    replies: Iterable[Response | Failure],
    *,
    engine: Engine | None = None,
    targets: Iterable[Target] = (HERE,),
) -> Trace:
    """Run a call against scripted replies; the last target stays."""
    trace, answers, places = Trace(), iter(replies), list(targets)
    steps = (engine or Engine(jitter=lambda: 1.0)).run(call)
    result: Any = None
    try:
        while True:
            step = steps.send(result)
            if isinstance(step, Resolve):
                trace.resolved.append(step.stale)
                result = places.pop(0) if len(places) > 1 else places[0]
            elif isinstance(step, Wait):
                trace.waits.append(step.seconds)
                result = None
            else:
                trace.requests.append(step)
                result = next(answers)
    except StopIteration as done:
        trace.value = done.value
    except TrustStramException as error:
        trace.error = error
    return trace


@pytest.mark.parametrize("call", [READ, CHANGE, PREDICT])
@pytest.mark.parametrize("trouble", [REFUSED, CUT, LATE, *map(busy, (429, 502, 503, 504))])
def test_a_harmless_call_is_tried_three_times(call, trouble):
    assert drive(call, [trouble, trouble, OK]).error is None
    trace = drive(call, [trouble] * 9)
    assert len(trace.requests) == 3
    assert trace.error is not None


@pytest.mark.parametrize("trouble", [CUT, LATE, *map(busy, (429, 502, 503, 504))])
def test_an_unsafe_call_is_never_sent_twice(trouble):
    trace = drive(UNSAFE, [trouble, OK])
    assert len(trace.requests) == 1
    assert trace.error is not None


def test_an_unsafe_call_that_never_left_is_tried_again():
    assert drive(UNSAFE, [REFUSED, REFUSED, OK]).error is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 501])
def test_an_answer_that_will_not_change_is_not_asked_for_again(status):
    assert len(drive(READ, [busy(status)] * 3).requests) == 1


def test_a_change_keeps_its_key_over_retries_and_each_change_has_its_own():
    first = drive(CHANGE, [CUT, busy(503), OK])
    second = drive(CHANGE, [OK])
    keys = {request.headers["idempotency-key"] for request in first.requests}
    assert len(keys) == 1
    assert uuid.UUID(keys.pop()).version == 4
    assert keys.isdisjoint({second.requests[0].headers["idempotency-key"]})


@pytest.mark.parametrize("call", [READ, PREDICT, UNSAFE])
def test_reads_and_predictions_carry_no_key(call):
    assert "idempotency-key" not in drive(call, [OK]).requests[0].headers


def test_a_first_try_still_in_flight_is_waited_for():
    trace = drive(CHANGE, [CUT, busy(409, retry_after="1"), OK])
    assert trace.error is None
    assert trace.waits[1] >= 1
    # Without a first try of ours it is somebody else's conflict.
    assert isinstance(drive(CHANGE, [busy(409, retry_after="1")]).error, ConflictError)


@given(
    attempts=st.integers(1, 8),
    base_s=st.floats(0.001, 10),
    cap_s=st.floats(0.001, 10),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_pauses_stay_below_a_doubling_ceiling_and_the_cap(attempts, base_s, cap_s, jitter):
    policy = RetryPolicy(attempts=attempts, base_s=base_s, cap_s=cap_s)
    trace = drive(READ, [LATE] * 10, engine=Engine(policy, jitter=lambda: jitter))
    assert len(trace.requests) == attempts
    assert len(trace.waits) == attempts - 1
    for number, pause in enumerate(trace.waits):
        assert 0 <= pause <= min(cap_s, base_s * 2**number)


def test_jitter_is_full_and_spread():
    engine = Engine(RetryPolicy(attempts=2, base_s=1.0))
    pauses = [drive(READ, [LATE, LATE], engine=engine).waits[0] for _ in range(400)]
    assert min(pauses) < 0.1
    assert max(pauses) > 0.9


@given(seconds=st.integers(0, 60))
def test_retry_after_is_honoured_as_a_number_and_as_a_date(seconds):
    now = 1_800_000_000.0
    for text in (str(seconds), email.utils.formatdate(now + seconds, usegmt=True)):
        engine = Engine(jitter=lambda: 0.0, clock=lambda: now)
        trace = drive(READ, [busy(429, retry_after=text), OK], engine=engine)
        assert trace.error is None
        assert trace.waits == [pytest.approx(seconds)]


def test_a_long_retry_after_is_handed_to_the_caller_at_once():
    trace = drive(READ, [busy(429, retry_after="3600")])
    assert trace.waits == []
    assert isinstance(trace.error, RateLimitExceededError)
    assert trace.error.retry_after == 3600


def test_a_retry_after_that_means_nothing_is_ignored():
    assert drive(READ, [busy(503, retry_after="soon"), OK]).error is None


def test_a_platform_that_does_not_answer_is_looked_for_again():
    moved = Target("http://127.0.0.1:10", "new", PROTOCOL)
    trace = drive(READ, [REFUSED, OK], targets=[HERE, moved])
    assert trace.resolved == [None, HERE]
    assert [request.url for request in trace.requests] == [
        "http://127.0.0.1:9/api/v1/models",
        "http://127.0.0.1:10/api/v1/models",
    ]
    assert trace.requests[1].headers["authorization"] == "Bearer new"


def test_a_refused_credential_is_looked_up_once_more():
    renewed = Target(HERE.base_url, "renewed", PROTOCOL)
    trace = drive(UNSAFE, [busy(401), OK], targets=[HERE, renewed])
    assert trace.error is None
    assert trace.requests[1].headers["authorization"] == "Bearer renewed"
    assert isinstance(drive(READ, [busy(401)]).error, AuthenticationError)


def test_an_unknown_platform_is_asked_for_its_protocol_once():
    place = Target("https://platform.example.org", SECRET)
    health = {"status": "ok", "version": "9", "instance": "i", "protocol": PROTOCOL}
    greeting = Response(200, {}, json.dumps(health).encode())
    engine = Engine()
    first = drive(READ, [greeting, OK], engine=engine, targets=[place])
    assert [request.url for request in first.requests] == [
        "https://platform.example.org/health",
        "https://platform.example.org/api/v1/models",
    ]
    # Whoever it is has not shown yet that it may see the credential.
    assert "authorization" not in first.requests[0].headers
    assert len(drive(READ, [OK], engine=engine, targets=[place]).requests) == 1


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1, None])
def test_another_protocol_is_a_configuration_error_that_names_both(protocol):
    place = Target("https://platform.example.org", SECRET)
    health = {"status": "ok", "version": "9", "instance": "i", "protocol": protocol}
    trace = drive(READ, [Response(200, {}, json.dumps(health).encode())], targets=[place])
    assert isinstance(trace.error, ConfigurationError)
    assert len(trace.requests) == 1
    known = drive(READ, [], targets=[Target(HERE.base_url, SECRET, PROTOCOL + 1)])
    assert isinstance(known.error, ConfigurationError)
    assert str(PROTOCOL + 1) in str(known.error)


def test_a_page_that_is_not_a_platform_is_a_configuration_error():
    trace = drive(READ, [Response(404, {}, b"<html>")], targets=[Target("https://example.org")])
    assert isinstance(trace.error, ConfigurationError)


def test_a_redirect_is_not_followed():
    trace = drive(READ, [busy(307, location="https://elsewhere.example.org")])
    assert isinstance(trace.error, ConfigurationError)
    assert len(trace.requests) == 1


ERRORS: list[type[TrustStramException]] = [
    kind
    for name in exceptions.__all__
    if isinstance(kind := getattr(exceptions, name), type)
    and issubclass(kind, TrustStramException)
    and kind is not TrustStramException
]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "choices": st.lists(st.text()),
    "retry_after": st.floats(0, 1000),
}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_error_crosses_the_wire_unchanged(kind, data):
    message = data.draw(st.text(min_size=1))
    attributes = {
        name: data.draw(st.none() | VALUES.get(name, st.text())) for name in kind.attributes
    }
    problem = kind(message, **attributes).to_problem()
    answer = Response(kind.status, {}, json.dumps(problem).encode())
    error = drive(READ, [answer] * 3).error
    assert type(error) is kind
    assert error.message == message
    assert {name: getattr(error, name) for name in kind.attributes} == attributes


@given(status=st.integers(400, 599), body=st.binary(max_size=40))
def test_any_other_answer_becomes_the_error_of_its_status(status, body):
    error = drive(READ, [Response(status, {}, body)] * 3).error
    assert isinstance(error, TrustStramException)


@pytest.mark.parametrize(
    ("trouble", "kind", "python"),
    [
        (REFUSED, PlatformUnavailableError, ConnectionError),
        (CUT, PlatformUnavailableError, ConnectionError),
        (LATE, RequestTimeoutError, TimeoutError),
    ],
)
def test_silence_is_the_matching_error_with_its_cause(trouble, kind, python):
    error = drive(READ, [trouble] * 3).error
    assert isinstance(error, kind)
    assert isinstance(error, python)
    assert HERE.base_url in error.message
    assert str(error.__cause__) == trouble.reason


def test_no_capacity_says_when_to_come_back():
    error = drive(READ, [busy(503, retry_after="2")] * 3).error
    assert isinstance(error, InsufficientResourcesError)
    assert error.retry_after == 2


def test_a_damaged_body_is_fetched_again():
    call: Call[bytes] = Call("GET", "/file", bytes)
    good = Response(200, {"content-digest": content_digest(b"weights")}, b"weights")
    bad = Response(200, dict(good.headers), b"weighty")
    assert drive(call, [bad, good]).value == b"weights"
    assert isinstance(drive(call, [bad] * 3).error, PlatformUnavailableError)


def test_fields_of_a_newer_platform_are_ignored_and_missing_ones_named():
    from truststram_lab.schemas.base import Health

    call: Call[Health] = Call("GET", "/health", Health)
    whole = {"status": "ok", "version": "1", "protocol": 1, "instance": "i", "new": {"x": 1}}
    assert drive(call, [Response(200, {}, json.dumps(whole).encode())]).value.instance == "i"
    del whole["instance"]
    error = drive(call, [Response(200, {}, json.dumps(whole).encode())]).error
    assert isinstance(error, PlatformError)
    assert "instance" in error.message


def test_an_answer_with_a_credential_is_not_quoted():
    from truststram_lab.schemas.federation import Invitation

    call: Call[list[Invitation]] = Call("GET", "/x", list[Invitation])
    body = json.dumps([{"participant": 5, "token": SECRET}]).encode()
    assert SECRET not in told(drive(call, [Response(200, {}, body)]).error)


def told(error: BaseException | None) -> str:
    """All that a verbose traceback shows, the variables of our frames included."""
    assert error is not None
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    pending: list[traceback.TracebackException | None] = [whole]
    text = ["".join(whole.format()), repr(error), str(error)]
    while pending:
        part = pending.pop()
        if part is None:
            continue
        for frame in part.stack:
            if "truststram_lab" in frame.filename:
                text += (frame.locals or {}).values()
        pending += [part.__cause__, part.__context__]
    return "\n".join(text)


@pytest.mark.parametrize("trouble", [REFUSED, CUT, LATE, busy(401), busy(500), busy(302)])
def test_the_credential_is_in_no_error(trouble):
    assert SECRET not in told(drive(CHANGE, [trouble] * 3).error)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HERE,
        lambda: drive(CHANGE, [OK]).requests[0],
        lambda: Resolve(HERE),
        lambda: Call("PUT", "/x", None, content=SECRET.encode(), headers={"a": SECRET}),
        lambda: Response(200, {"x": SECRET}, SECRET.encode()),
    ],
)
def test_the_credential_is_in_no_repr(make: Callable[[], object]):
    assert SECRET not in repr(make())
    assert SECRET not in f"{make()}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), {1, 2}, object()])
def test_a_value_that_json_cannot_carry_is_refused_with_its_place(value):
    with pytest.raises(InvalidInputError, match=r"data\[1\]\.mean radius") as caught:
        json_bytes(PredictRequest(data=[{"mean radius": 1.0}, {"mean radius": value}]))
    assert caught.value.field == "data[1].mean radius"


def test_numpy_numbers_are_numbers():
    np = pytest.importorskip("numpy")
    row = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": None, "e": "é"}
    sent = json.loads(json_bytes(PredictRequest(data=row)))
    assert sent["data"] == {"a": 0.5, "b": 3, "c": True, "d": None, "e": "é"}


def test_queries_leave_out_what_is_none():
    call: Call[None] = Call("GET", "/x", None, query={"limit": None, "search": "a b&c", "n": 2})
    assert drive(call, [OK]).requests[0].url.endswith("/x?search=a+b%26c&n=2")


def test_unwrap_makes_the_value():
    call: Call[int] = Call("GET", "/x", bytes, unwrap=len)
    assert drive(call, [Response(200, {}, b"four")]).value == 4

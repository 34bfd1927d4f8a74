"""Another try where the platform is busy, and answers kept by what was asked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import numpy as np
import pytest
import truststram
from hypothesis import given
from hypothesis import strategies as st

import truststram_lab
from truststram_lab.client.utilities import MISSING, PredictionCache, retry_on_failure
from truststram_lab.exceptions import (
    InsufficientResourcesError,
    InvalidInputError,
    ModelNotFoundError,
    RateLimitExceededError,
    TrustStramException,
)


@given(
    failures=st.integers(0, 6),
    attempts=st.integers(1, 5),
    delay=st.floats(0, 3),
    backoff=st.floats(1, 3),
    asked=st.none() | st.floats(0, 20),
)
def test_it_is_tried_so_often_and_waits_at_least_as_long_as_asked(
    failures, attempts, delay, backoff, asked
) -> None:
    waits: list[float] = []
    calls: list[int] = []

    @retry_on_failure(attempts, delay, backoff, sleep=waits.append)
    def busy() -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise RateLimitExceededError("Too many requests; wait.", retry_after=asked)
        return "done"

    if failures < attempts:
        assert busy() == "done"
        assert len(calls) == failures + 1
    else:
        with pytest.raises(RateLimitExceededError):
            busy()
        assert len(calls) == attempts
    assert len(waits) == len(calls) - 1
    for place, wait in enumerate(waits):
        assert wait == max(delay * backoff**place, asked or 0.0)


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    @retry_on_failure(sleep=calls.append)
    def missing() -> None:
        raise ModelNotFoundError("There is no model 'x'; make it.", model_id="x")

    with pytest.raises(ModelNotFoundError):
        missing()
    assert calls == []


def test_a_coroutine_waits_on_its_loop() -> None:
    calls = []

    @retry_on_failure(max_retries=3, delay=0.001)
    async def busy(value: int) -> int:
        calls.append(value)
        if len(calls) < 3:
            raise InsufficientResourcesError("No worker is free; try again.", retry_after=0.001)
        return value

    assert asyncio.run(busy(7)) == 7
    assert calls == [7, 7, 7]


@given(
    size=st.integers(1, 5),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from([None, 0, "", 5]))),
)
def test_the_cache_is_a_dictionary_of_the_most_recently_used(size, steps) -> None:
    cache, model = PredictionCache(size), OrderedDict()
    for sets, key, value in steps:
        row = {"b": key, "a": [key]}
        if sets:
            cache.set(row, value)
            model[key] = value
            model.move_to_end(key)
            if len(model) > size:
                model.popitem(last=False)
        else:
            found = cache.get({"a": [key], "b": key}, MISSING)
            assert found is model[key] if key in model else found is MISSING
            if key in model:
                model.move_to_end(key)
        assert len(cache) == len(model)


def test_rows_that_differ_are_different_keys_and_the_order_of_columns_does_not_matter() -> None:
    cache = PredictionCache()
    for place, value in enumerate([1, 1.0, True, "1", None, [1]]):
        cache.set({"x": value}, place)
    assert [cache.get({"x": value}) for value in [1, 1.0, True, "1", None, [1]]] == [*range(6)]
    cache.set({"a": np.float64(0.5), "b": np.int64(2)}, "numpy")
    assert cache.get({"b": 2, "a": 0.5}) == "numpy"


def test_falsy_answers_are_kept_and_errors_are_not() -> None:
    asked: list[int] = []

    @PredictionCache(cache_size=2).cached
    def predict(row: int) -> int:
        asked.append(row)
        if row < 0:
            raise ModelNotFoundError("There is no model 'x'; make it.", model_id="x")
        return 0

    assert [predict(3), predict(3)] == [0, 0]
    for _ in range(2):
        with pytest.raises(ModelNotFoundError):
            predict(-1)
    assert asked == [3, -1, -1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: PredictionCache(0), "cache_size is 0; use 1 or more."),
        (lambda: retry_on_failure(0), "max_retries is 0; use 1 or more."),
        (lambda: retry_on_failure(delay=-1), "delay is -1; use 0 or more."),
        (lambda: retry_on_failure(backoff=0.5), "backoff is 0.5; use 1 or more."),
        (lambda: PredictionCache().get({"x": object()}), "cannot be a key"),
        (lambda: PredictionCache().set({(1,): 1}, 1), "cannot be a key"),
    ],
)
def test_what_cannot_be_is_one_sentence(call, said) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["PredictionCache", "retry_on_failure", "truststram_session"])
def test_both_packages_have_them(name) -> None:
    assert getattr(truststram, name) is getattr(truststram_lab, name)


def test_a_session_closes_its_client() -> None:
    with truststram_lab.truststram_session("tsk_x", base_url="http://127.0.0.1:9") as client:
        pass
    with pytest.raises(TrustStramException, match="closed"):
        client.accounts.whoami()

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.render.bars import bar, sparkline
from truststram_lab.render.numbers import (
    clean,
    clip,
    duration,
    latency,
    moment,
    percent,
    scalar,
    share,
    short_list,
    signed,
    size,
)

SHARES = st.floats(0, 1)


@given(SHARES)
def test_only_certainty_reads_100_percent_and_only_impossibility_0(value):
    text = percent(value)
    assert (text == "100 %") == (value == 1.0)
    assert (text == "0 %") == (value == 0.0)


@given(SHARES)
def test_only_a_perfect_share_reads_1_and_only_none_reads_0(value):
    text = share(value)
    assert (float(text.lstrip("<>")) == 1.0) == (value == 1.0)
    assert (float(text.lstrip("<>")) == 0.0) == (value == 0.0)


@given(SHARES)
def test_a_percentage_is_right_to_its_last_digit(value):
    text = percent(value).removesuffix(" %")
    if text[0] in "<>":
        edge = float(text[1:])
        assert 100 * value < edge if text[0] == "<" else 100 * value > edge
    else:
        places = len(text.partition(".")[2])
        assert abs(float(text) - 100 * value) <= 0.5000001 * 10**-places


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.97, "97 %"), (0.03, "3 %"), (0.999, "99.9 %"), (0.99999, ">99.99 %"),
     (1e-9, "<0.01 %"), (0.004, "0.4 %"), (1.0, "100 %"), (0.0, "0 %"), (-0.0, "0 %"),
     (math.nan, "unknown")],
)  # fmt: skip
def test_percentages(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9441, "0.94"), (0.997, "0.997"), (0.99999, ">0.9999"), (1.0, "1.00"), (0.0, "0.00")],
)
def test_shares(value, text):
    assert share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.6, "+2.60"), (-0.4, "-0.40"), (0.0, "0.00"), (0.0012, "+0.0012"), (-1e-9, "-1e-09"),
     (1234.5, "+1,234.50"), (math.inf, "unknown")],
)  # fmt: skip
def test_signed_numbers(value, text):
    assert signed(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_is_not_zero_never_reads_zero(value):
    assert (float(signed(value).replace(",", "")) == 0) == (value == 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (24_310, "24 kB"), (999_600, "1.0 MB"),
     (9_960, "10 kB"), (3_400_000, "3.4 MB"), (5 * 10**16, "50,000 TB")],
)  # fmt: skip
def test_sizes_are_decimal(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (1.44, "1.4 s"), (9.97, "10 s"), (14.2, "14 s"), (59.7, "1 min 00 s"),
     (185, "3 min 05 s"), (3599.9, "1 h 00 min"), (7620, "2 h 07 min"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_durations(value, text):
    assert duration(value) == text


def test_latencies():
    assert [latency(ms) for ms in (0.41, 4.2, 0.97, 250.4, 1900)] == [
        "0.4 ms", "4 ms", "1 ms", "250 ms", "1.9 s"
    ]  # fmt: skip


def test_values_of_rows():
    assert [scalar(v) for v in (None, True, False, 3, 20.400000001, 10**15, "red")] == [
        "missing", "true", "false", "3", "20.4", "1e+15", "red"
    ]  # fmt: skip


def test_times_are_utc_and_unknown_ones_stay():
    assert moment("2026-11-22T10:30:00+01:00") == "2026-11-22 09:30 UTC"
    assert moment("2026-11-22T09:30:00Z", zone="") == "2026-11-22 09:30"
    assert moment("yesterday") == "yesterday"


def test_a_name_cannot_steer_a_terminal_or_reorder_a_line():
    assert clean("a\x1b[2Jb\u202ec\u2028d\ud800\r") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffd\ufffd"
    assert clean("two\nlines\tand a tab") == "two lines and a tab"
    assert clean("naïve 日本 👩‍⚕️") == "naïve 日本 👩‍⚕️"


def test_long_names_say_that_they_were_cut():
    assert clip("x" * 100, 10) == "x" * 9 + "…"
    assert short_list(list("abcdefg")) == "a, b, c, d, e and 2 more"


@given(SHARES, st.integers(1, 40))
def test_a_bar_is_as_long_as_its_share_to_a_sixteenth_of_a_cell(value, cells):
    eighths = sum({"█": 8}.get(c, " ▏▎▍▌▋▊▉".find(c)) for c in bar(value, cells))
    assert abs(eighths - value * cells * 8) <= 1
    assert (eighths == 0) == (value == 0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_a_sparkline_ends_with_the_last_value_and_fits(values):
    line = sparkline(values)
    assert len(line) == min(len(values), 30)
    if len(values) <= 30 and max(values) > min(values):
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"


def test_bars_and_sparklines_of_nothing_are_empty():
    assert bar(math.nan, 10) == bar(-1, 10) == sparkline([]) == sparkline([math.nan]) == ""
    assert bar(7.0, 4) == "████"

"""In a terminal a run is lines of text."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import pytest

from truststram_lab.schemas.federation import CreateRun, RoundReport, Run, RunReport
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Column, Signature
from truststram_lab.widgets import TerminalView, view_of


@dataclass
class Text:
    text: str

    def bundle(self) -> dict[str, object]:
        return {"text/plain": self.text}


@dataclass(eq=False)
class GoingRun:
    """A run whose rounds the test closes."""

    history: list[RoundReport] = field(default_factory=list)

    def card(self) -> Text:
        return Text(f"after {len(self.history)} rounds")

    def snapshot(self) -> Run:
        plan = CreateRun(
            model="icu",
            federation="icu",
            sites=["site-1", "site-2"],
            rounds=3,
            architecture=Architecture(inputs=1, layers=[DenseLayer(units=1)]),
            signature=Signature(
                columns=[Column(name="age", kind="numeric")], target="died", classes=["0", "1"]
            ),
            initial_weights_sha256="0" * 64,
        )
        return Run(
            id="run_1",
            name="icu-1",
            status="training",
            plan=plan,
            round=len(self.history),
            report=RunReport(history=list(self.history), elapsed_s=2.0),
            created_at="2026-01-01T00:00:00Z",
            updated_at="2026-01-01T00:00:00Z",
        )

    def close_round(self) -> None:
        number = len(self.history) + 1
        self.history.append(RoundReport(number=number, accuracy=0.9, loss=0.25))


@pytest.fixture
def run() -> GoingRun:
    return GoingRun()


def test_every_round_is_one_line_and_the_card_comes_last(run):
    stream = io.StringIO()
    view = TerminalView(run, stream)
    view.show()
    view.refresh()
    run.close_round()
    view.refresh()
    view.refresh()
    run.close_round()
    run.close_round()
    view.close()
    view.close()
    assert stream.getvalue().splitlines() == [
        "icu-1: 3 rounds, 2 sites; Ctrl-C stops",
        "round 1/3  accuracy 0.900  loss 0.250  2 s",
        "round 2/3  accuracy 0.900  loss 0.250  2 s",
        "round 3/3  accuracy 0.900  loss 0.250  2 s",
        "after 3 rounds",
    ]


def test_rounds_of_before_a_resumption_are_not_told_again(run):
    run.close_round()
    stream = io.StringIO()
    view = TerminalView(run, stream)
    view.show()
    run.close_round()
    view.refresh()
    assert [line[:9] for line in stream.getvalue().splitlines()[1:]] == ["round 2/3"]


def test_outside_a_kernel_the_view_is_the_terminals(run, capsys):
    view = view_of(run)
    view.show()
    assert capsys.readouterr().out == "icu-1: 3 rounds, 2 sites; Ctrl-C stops\n"

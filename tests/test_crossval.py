"""The state machine of crossval: order, rates and starts of the runs, and going on from every moment."""

import dataclasses
import json

import pytest

from tonnetz.crossval import FINAL, Outcome, Rules, State, following
from tonnetz.errors import UserError

SCORES = [0.3, 0.5, 0.4, 0.45, None]
RATES = [4e-4, 3e-4, 2e-4, 1.5e-4, 1e-4]
OUTCOMES = [
    Outcome(name, score, 3, rate)
    for name, score, rate in zip(["fold_1", "fold_2", "fold_3", "fold_4", FINAL], SCORES, RATES, strict=True)
]


class Killed(Exception):
    """What stands for the end of the process."""


def steps(rules, outcomes):
    return [following(rules, outcomes[:n]) for n in range(len(rules.names))]


def test_relay_starts_from_the_best_so_far_at_falling_rates():
    found = steps(Rules(folds=4), OUTCOMES)
    assert [step.name for step in found] == ["fold_1", "fold_2", "fold_3", "fold_4", FINAL]
    assert [step.fold for step in found] == [0, 1, 2, 3, None]
    assert [step.start for step in found] == [None, "fold_1", "fold_2", "fold_2", "fold_2"]
    ratio = (1e-4 / 4e-4) ** (1 / 3)
    expected = [1e-3, 4e-4, 4e-4 * ratio, 4e-4 * ratio**2, 4e-4 * ratio ** (3.5 - 2)]
    assert [step.rate for step in found] == pytest.approx(expected)


def test_anchor_and_position_can_be_given():
    found = steps(Rules(folds=4, anchor=8e-4, position=5), OUTCOMES)
    assert found[1].rate == pytest.approx(8e-4)
    assert found[4].rate == pytest.approx(1e-4)  # the floor is reached one place after the last fold


def test_no_rate_is_above_the_anchor_or_below_the_floor():
    two = [Outcome("fold_1", 0.1, 0, 1e-9), Outcome("fold_2", 0.1, 0, 1e-9)]  # the best epoch at the end of a cosine
    for folds in (2, 3, 10):
        rules = Rules(folds=folds)
        done = [*two, *(dataclasses.replace(two[0], name=f"fold_{k}") for k in range(3, folds + 1))]
        assert all(1e-4 * (1 - 1e-9) <= step.rate <= 1e-3 for step in steps(rules, done))
    assert following(Rules(folds=2), OUTCOMES[:2]).rate == pytest.approx(4e-4)


def test_an_optimizer_that_finds_its_rate_keeps_it():
    assert [step.rate for step in steps(Rules(folds=4, rate=1.0, steady=True), OUTCOMES)] == [1.0] * 5


def test_lower_scores_can_be_better():
    assert following(Rules(folds=4, best="min"), OUTCOMES[:3]).start == "fold_1"


def test_runs_without_a_score_go_on_from_the_last():
    blind = [dataclasses.replace(outcome, score=None) for outcome in OUTCOMES]
    assert [step.start for step in steps(Rules(folds=4), blind)] == [None, "fold_1", "fold_2", "fold_3", "fold_4"]


def test_ensemble_and_all_start_afresh():
    found = steps(Rules(mode="ensemble", folds=3), OUTCOMES)
    assert [(step.name, step.fold, step.rate, step.start) for step in found] == [
        (f"fold_{k + 1}", k, 1e-3, None) for k in range(3)
    ]
    assert [(step.name, step.fold, step.start) for step in steps(Rules(mode="all", folds=1), [])] == [
        (FINAL, None, None)
    ]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"folds": 1}, "job.folds"),
        ({"folds": 0, "mode": "ensemble"}, "job.folds"),
        ({"mode": "realy"}, "relay"),
        ({"floor": 0.0}, "job.floor"),
        ({"floor": 1e-2}, "job.floor"),
        ({"anchor": 1e-5}, "job.anchor"),
        ({"position": 1.5}, "job.position"),
    ],
)
def test_impossible_rules_are_refused(wrong, word):
    with pytest.raises(UserError, match=word):
        Rules(**wrong)


def chain(path, rules, break_at):
    """Run to the end; `break_at` counts moments at which everything ends and begins anew, None for an unbroken run."""
    trained, moment, breaks = [], 0, 0

    def passing():
        nonlocal moment, breaks
        moment += 1
        if moment == break_at:
            breaks += 1
            raise Killed

    class Breaking(State):
        def write(self, running):
            passing()  # before the file is there
            super().write(running)
            passing()  # after it

    def train(step):
        passing()
        trained.append(step)
        passing()
        return dataclasses.replace(OUTCOMES[rules.names.index(step.name)], name=step.name)

    for _ in range(3):
        try:
            assert Breaking.open(path, rules).advance(train)
            break
        except Killed:
            continue
    return trained, breaks, json.loads(path.read_text())


@pytest.mark.parametrize("mode", ["relay", "ensemble", "all"])
def test_killed_at_any_moment_it_ends_alike(tmp_path, mode):
    rules = Rules(mode=mode, folds=4)
    whole, _, expected = chain(tmp_path / "whole.json", rules, None)
    assert [step.name for step in whole] == rules.names
    moments = 6 * len(rules.names)
    for moment in range(1, moments + 1):
        trained, breaks, found = chain(tmp_path / f"{moment}.json", rules, moment)
        assert breaks == 1
        assert found == expected
        assert list(dict.fromkeys(trained)) == whole  # at most one run is done twice, from the same start and rate
        assert len(trained) <= len(whole) + 1
    assert chain(tmp_path / "more.json", rules, moments + 1)[1] == 0  # there were no more moments


def test_a_stopped_run_is_not_finished(tmp_path):
    state = State.open(tmp_path / "state.json", Rules(folds=4))
    assert not state.advance(lambda step: OUTCOMES[0] if step.name == "fold_1" else None)
    again = State.open(tmp_path / "state.json", Rules(folds=4))
    assert [outcome.name for outcome in again.finished] == ["fold_1"]
    assert json.loads(again.path.read_text())["running"] == "fold_2"


def test_other_rules_and_broken_files_are_refused(tmp_path):
    path = tmp_path / "state.json"
    State.open(path, Rules(folds=4)).write(None)
    with pytest.raises(UserError, match=r"begun with folds=4 \(now 5\)"):
        State.open(path, Rules(folds=5))
    for text in ("{", "[]", '{"finished": [{}], "rules": {}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="is no state"):
            State.open(path, Rules())
    path.write_text(
        json.dumps({"rules": dataclasses.asdict(Rules(folds=4)), "finished": [dataclasses.asdict(OUTCOMES[1])]})
    )
    with pytest.raises(UserError, match="not in order"):
        State.open(path, Rules(folds=4))

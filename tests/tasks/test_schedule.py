"""Schedules: points of their curves, torch's own, resuming; optimizer groups; YAML against signatures."""

from __future__ import annotations

import inspect
import io
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from tonnetz.errors import UserError
from tonnetz.tasks import schedule
from tonnetz.tasks.optimizer import parameter_groups, prodigy

CONFIG = Path(__file__).parents[2] / "config"
SHAPES = ["cosine", "one_cycle", "step", "constant"]


def adam(lr: float = 0.5) -> torch.optim.Adam:
    return torch.optim.Adam(
        [{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(2))]}], lr=lr
    )


def curve(scheduler: LRScheduler, steps: int) -> list[float]:
    """Rates of the next `steps` optimizer steps."""
    rates = []
    for _ in range(steps):
        first, second = scheduler.optimizer.param_groups
        assert first["lr"] == second["lr"]
        rates.append(first["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_cosine_warms_up_peaks_and_ends_at_its_floor() -> None:
    rates = curve(schedule.cosine(adam(), 100, warmup=0.1, floor=0.2), 103)
    assert rates[:11] == pytest.approx([0.5 * (t + 1) / 11 for t in range(11)])
    assert rates[10] == max(rates) == 0.5
    assert rates[55] == pytest.approx(0.5 * (1 + 0.2) / 2)
    assert rates[100:] == pytest.approx([0.1] * 3)
    assert rates[99] > 0.1
    assert all(a > b for a, b in itertools.pairwise(rates[10:101]))


def test_cosine_without_warmup_equals_torch() -> None:
    optimizer = adam()
    expected = curve(CosineAnnealingLR(optimizer, 40, eta_min=0.05), 40)
    assert curve(schedule.cosine(adam(), 40, warmup=0, floor=0.1), 40) == pytest.approx(expected)


def test_one_cycle_equals_torch() -> None:
    optimizer = adam()
    expected = curve(OneCycleLR(optimizer, 0.5, 101, pct_start=31 / 101, cycle_momentum=False), 100)
    assert curve(schedule.one_cycle(adam(), 100), 100) == pytest.approx(expected)
    assert expected[0] == pytest.approx(0.02)


def test_step_equals_torch() -> None:
    expected = curve(StepLR(adam(), 30, 0.1), 100)
    assert curve(schedule.step(adam(), 100, every=0.3), 100) == pytest.approx(expected)
    assert curve(schedule.step(adam(), 7, every=30), 7) == [0.5] * 7  # a span longer than the run


def test_constant_warms_up_and_stays() -> None:
    assert curve(schedule.constant(adam(), 10), 12) == [0.5] * 12
    assert curve(schedule.constant(adam(), 10, warmup=4), 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_warmup_as_a_count_equals_the_fraction() -> None:
    assert curve(schedule.cosine(adam(), 50, warmup=10), 50) == curve(schedule.cosine(adam(), 50, warmup=0.2), 50)
    assert all(0 < r <= 0.5 for r in curve(schedule.cosine(adam(), 5, warmup=500), 5))  # longer than the run


def test_plateau_waits_and_shrinks_in_the_direction_of_its_mode() -> None:
    for mode, sign in (("max", 1), ("min", -1)):
        scheduler = schedule.plateau(adam(), 100, factor=0.1, patience=2, mode=mode, floor=0.02)
        rates = []
        for value in [0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]:
            scheduler.step(sign * value)
            rates.append(scheduler.optimizer.param_groups[1]["lr"])
        assert rates == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.01] * 2)  # never below 0.02 of the first rate


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_finite_positive_rates(name: str, steps: int) -> None:
    rates = curve(getattr(schedule, name)(adam(), steps), steps)
    assert all(math.isfinite(rate) and 0 < rate <= 0.5 for rate in rates)


@pytest.mark.parametrize("name", [*SHAPES, "plateau"])
def test_resumed_run_goes_on_as_if_unbroken(name: str) -> None:
    def advance(scheduler: Any, begin: int, end: int) -> list[float]:
        rates = []
        for t in range(begin, end):
            rates.append(scheduler.optimizer.param_groups[0]["lr"])
            scheduler.optimizer.step()
            scheduler.step(*((math.cos(t),) if name == "plateau" else ()))
        return rates

    make = getattr(schedule, name)
    whole = advance(make(adam(), 40), 0, 40)
    first = make(adam(), 40)
    begin = advance(first, 0, 17)
    file = io.BytesIO()
    torch.save({"optimizer": first.optimizer.state_dict(), "schedule": first.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = make(adam(), 40)
    second.optimizer.load_state_dict(state["optimizer"])
    second.load_state_dict(state["schedule"])
    assert begin + advance(second, 17, 40) == whole
    assert len(set(whole)) > 1 or name == "constant"


def test_resumed_run_follows_a_new_number_of_steps() -> None:
    first = schedule.cosine(adam(), 20)
    curve(first, 20)
    second = schedule.cosine(adam(), 40)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert curve(second, 20)[1:] == pytest.approx(curve(schedule.cosine(adam(), 40), 40)[21:])


@pytest.mark.parametrize("name", [*SHAPES, "plateau"])
@pytest.mark.parametrize("steps", [0, -1, math.inf])
def test_runs_without_steps_are_refused(name: str, steps: int) -> None:
    with pytest.raises(UserError, match="steps"):
        getattr(schedule, name)(adam(), steps)


@pytest.mark.parametrize("span", [-1, -0.1, 1.5])
def test_bad_spans_are_refused(span: float) -> None:
    with pytest.raises(UserError, match="warmup"):
        schedule.cosine(adam(), 10, warmup=span)
    with pytest.raises(UserError, match="factor"):
        schedule.plateau(adam(), 10, factor=1.0)


@pytest.mark.parametrize("name", [*SHAPES, "plateau", "decay"])
def test_schedule_yaml_holds_the_defaults_of_its_signature(name: str) -> None:
    values = yaml.safe_load((CONFIG / "schedule" / f"{name}.yaml").read_text())
    assert values.pop("_target_") == f"tonnetz.tasks.schedule.{name}"
    parameters = list(inspect.signature(getattr(schedule, name)).parameters.values())[2:]
    # the direction of plateau is the task's, not the user's
    assert values == {p.name: p.default for p in parameters if p.name != "mode"}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_optimizer_yaml_builds_and_steps(name: str) -> None:
    values = yaml.safe_load((CONFIG / "optimizer" / f"{name}.yaml").read_text())
    make = getattr(torch.optim, values.pop("_target_").removeprefix("torch.optim."))
    module = nn.Linear(3, 2)
    optimizer = make(parameter_groups(module, values["weight_decay"]), **values)
    before = module.weight.clone()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, module.weight)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [values["weight_decay"], 0.0]


def test_parameter_groups_spare_vectors_and_keep_every_parameter_once() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    module.tied = module[0].weight
    module[3].requires_grad_(False)
    module.scale = nn.Parameter(torch.tensor(1.0))
    decayed, plain = parameter_groups(module, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(module[0].weight), id(module[3].weight)}
    names: dict[int, Tensor] = {id(p): p for p in module.parameters()}
    assert sorted(map(id, decayed["params"] + plain["params"])) == sorted(names)
    assert all(p.ndim <= 1 for p in plain["params"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(parameter_groups(nn.BatchNorm1d(2), 0.1)) == 1


def test_frozen_parameters_neither_move_nor_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 1))
    before = module[0].weight.clone()
    optimizer = torch.optim.AdamW(parameter_groups(module, 0.5), lr=0.1)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(module[0].weight, before)


def coverhunter(steps: int, rate: float, every: int, gamma: float, floor: float, hold: int) -> list[float]:
    """The recipe as it is written: after step s, multiply when s % every == 0, unless s <= hold; never below floor."""
    rates = []
    for s in range(1, steps + 1):
        rates.append(rate)
        if s % every == 0 and s > hold:
            rate = max(rate * gamma, floor)
    return rates


@pytest.mark.parametrize("hold", [0, 2, 24, 25, 30, 31, 1000])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_decay_follows_the_recipe(hold: int, floor: float) -> None:
    rates = curve(schedule.decay(adam(), 100, every=10, gamma=0.8, floor=floor, hold=hold), 100)
    assert rates == pytest.approx(coverhunter(100, 0.5, 10, 0.8, floor, hold))


def test_decay_held_for_2500_steps_shrinks_first_at_step_3000() -> None:
    factor = schedule.decay(adam(1e-3), 10_000, hold=2500, floor=1e-4).lr_lambdas[0]
    rates = [1e-3 * factor(t) for t in range(40_000)]
    assert rates[:3000] == [1e-3] * 3000
    assert rates[3000:4000] == pytest.approx([0.9e-3] * 1000)
    assert rates[4000] == pytest.approx(0.81e-3)
    assert rates[-1] == pytest.approx(1e-4)  # the rate itself stays above the floor


def test_decay_warms_up() -> None:
    rates = curve(schedule.decay(adam(), 30, every=10, gamma=0.5, floor=0.0, warmup=4), 30)
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[10:] == pytest.approx([0.25] * 10 + [0.125] * 10)
    assert curve(schedule.decay(adam(1e-5), 5, every=1), 5) == [1e-5] * 5  # a rate below the floor stays


@pytest.mark.parametrize(
    "values", [{"every": 0}, {"hold": -1}, {"warmup": -1}, {"gamma": 0}, {"gamma": 1.1}, {"floor": -1}]
)
def test_bad_decays_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        schedule.decay(adam(), 10, **values)


def test_prodigy_yaml_holds_the_defaults_and_finds_a_rate() -> None:
    values = yaml.safe_load((CONFIG / "optimizer" / "prodigy.yaml").read_text())
    assert values.pop("_target_") == "tonnetz.tasks.optimizer.prodigy"
    parameters = list(inspect.signature(prodigy).parameters.values())[1:]
    assert values == {p.name: list(p.default) if p.name == "betas" else p.default for p in parameters}
    torch.manual_seed(0)
    module, x = nn.Linear(3, 1), torch.randn(20, 3)
    optimizer = prodigy(parameter_groups(module, values["weight_decay"]), **values)
    losses = []
    for _ in range(200):
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_prodigy_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    prodigy([nn.Parameter(torch.ones(1))], weight_decay=0.01)
    assert capsys.readouterr() == ("", "")


def test_prodigy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(UserError, match=r"pip install 'tonnetz\[prodigy\]'"):
        prodigy([nn.Parameter(torch.ones(1))])

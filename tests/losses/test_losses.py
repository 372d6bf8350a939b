"""Classification losses against naive loops over cells, torch's own losses, and values worked out by hand."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

import tonnetz.losses
from tonnetz.errors import UserError
from tonnetz.losses import BCE, AsymmetricFocal, BCEPosWeight, CrossEntropy, FamilyLoss, Focal
from tonnetz.losses.classification import positive_weights

CONFIG = Path(__file__).parents[2] / "config" / "loss"


def batch(seed: int = 0, rows: int = 7, classes: int = 5, unknown: float = 0.4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=g)
    target = (torch.rand(rows, classes, generator=g) < 0.4).float()
    target[torch.rand(rows, classes, generator=g) < unknown] = torch.nan
    return logits, target


def one_hot(seed: int = 0, rows: int = 7, classes: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=g), F.one_hot(torch.randint(classes, (rows,), generator=g)).float()


def weighted() -> BCEPosWeight:
    loss = BCEPosWeight()
    loss.fit_counts(torch.tensor([5, 10, 50, 0, 90]), torch.tensor([100, 100, 100, 100, 100]))
    return loss


def balanced_focal() -> Focal:
    loss = Focal(balance=True)
    loss.fit_counts(torch.tensor([5, 10, 50, 0, 90]), torch.full((5,), 100))
    return loss


BINARY = {
    "bce": BCE,
    "bce_smooth": lambda: BCE(label_smoothing=0.1),
    "pos_weight": weighted,
    "focal": Focal,
    "focal_alpha": lambda: Focal(gamma=0.5, alpha=0.25, label_smoothing=0.1),
    "focal_balanced": balanced_focal,
    "asymmetric": AsymmetricFocal,
    "asymmetric_unshifted": lambda: AsymmetricFocal(1.0, 0.5, 0.0),
    "family": lambda: FamilyLoss([0, 1, 0, -1, 1]),
}


def naive(loss: nn.Module, logits: Tensor, target: Tensor) -> float:
    """Mean over known cells, one cell at a time, straight from the definitions."""
    costs = []
    smoothing = loss.label_smoothing
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            if math.isnan(target[i, j]):
                continue
            p = 1 / (1 + math.exp(-float(logits[i, j])))
            sides = []
            for y in (1, 0):
                p_t = p if y else 1 - p
                if isinstance(loss, Focal):
                    alpha_t = 1 if loss.alpha is None else (loss.alpha if y else 1 - loss.alpha)
                    weight = float(loss.pos_weight[j]) if y and loss.balance else 1
                    cost = -weight * alpha_t * (1 - p_t) ** loss.gamma * math.log(p_t)
                elif isinstance(loss, AsymmetricFocal) and y:
                    cost = -((1 - p) ** loss.gamma_positive) * math.log(p)
                elif isinstance(loss, AsymmetricFocal):
                    q = max(p - loss.shift, 0)
                    cost = -(q**loss.gamma_negative) * math.log(1 - q)
                else:
                    weight = float(loss.pos_weight[j]) if y and isinstance(loss, BCEPosWeight) else 1
                    cost = -weight * math.log(p_t)
                sides.append(cost)
            y = float(target[i, j]) * (1 - smoothing) + smoothing / 2
            costs.append(y * sides[0] + (1 - y) * sides[1])
    return sum(costs) / len(costs)


@pytest.mark.parametrize("name", [n for n in BINARY if n != "family"])
@pytest.mark.parametrize("seed", range(3))
def test_binary_losses_equal_a_double_loop(name: str, seed: int) -> None:
    loss = BINARY[name]()
    logits, target = batch(seed)
    assert loss(logits, target).item() == pytest.approx(naive(loss, logits, target), rel=1e-5)
    target = torch.where(target.isnan(), target, torch.rand_like(target))  # soft targets
    assert loss(logits, target).item() == pytest.approx(naive(loss, logits, target), rel=1e-5)


@pytest.mark.parametrize(("p", "y", "cost"), [(0.95, 0, 2.70), (0.05, 0, 0.0001), (0.05, 1, 2.70), (0.95, 1, 0.0001)])
def test_focal_costs_hard_cells_and_spares_easy_ones_of_both_signs(p: float, y: float, cost: float) -> None:
    value = Focal(gamma=2.0)(torch.tensor([[p]]).logit(), torch.tensor([[float(y)]])).item()
    assert value == pytest.approx(cost, rel=0.3 if cost < 0.01 else 0.002)
    assert round(value, 4 if cost < 0.01 else 2) == cost


def test_bce_and_pos_weight_equal_torch_without_unknown_cells() -> None:
    logits, target = batch(unknown=0)
    assert torch.equal(BCE()(logits, target), F.binary_cross_entropy_with_logits(logits, target))
    loss = weighted()
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=loss.pos_weight)
    torch.testing.assert_close(loss(logits, target), expected)


def test_focal_and_asymmetric_reduce_to_bce() -> None:
    logits, target = batch()
    expected = BCE()(logits, target)
    torch.testing.assert_close(Focal(gamma=0.0)(logits, target), expected)
    torch.testing.assert_close(AsymmetricFocal(0.0, 0.0, 0.0)(logits, target), expected)
    torch.testing.assert_close(AsymmetricFocal(2.0, 2.0, 0.0)(logits, target), Focal()(logits, target))


@pytest.mark.parametrize("name", BINARY)
def test_unknown_cells_change_neither_value_nor_gradient(name: str) -> None:
    loss = BINARY[name]()
    logits, target = batch(unknown=0.4)
    if name == "family":  # a family with an unknown member may still be positive, so whole rows are hidden instead
        target = torch.where(torch.arange(len(target))[:, None] % 2 == 0, torch.nan, target.nan_to_num(0.0))
    unknown = target.isnan()
    worst = torch.nan if name != "family" else 1e4  # a maximum sends NaN back even with a gradient of 0
    wild = torch.where(unknown, torch.tensor([1e4, -1e4, torch.inf, worst, 0.0]), logits)
    first, second = logits.clone().requires_grad_(), wild.clone().requires_grad_()
    a, b = loss(first, target), loss(second, target)
    a.backward()
    b.backward()
    assert torch.equal(a, b)
    assert torch.equal(first.grad, second.grad)
    assert not first.grad[unknown].any()
    assert first.grad[~unknown].any()


@pytest.mark.parametrize("name", [n for n in BINARY if n not in ("pos_weight", "focal_balanced", "family")])
def test_masking_equals_removing_cells(name: str) -> None:
    loss = BINARY[name]()
    logits, target = batch()
    known = ~target.isnan()
    torch.testing.assert_close(loss(logits, target), loss(logits[known][:, None], target[known][:, None]))


@pytest.mark.parametrize("name", [*BINARY, "ce"])
@pytest.mark.parametrize("rows", [0, 4])
def test_batch_without_known_cells_gives_a_zero_with_a_gradient(name: str, rows: int) -> None:
    loss = {**BINARY, "ce": CrossEntropy}[name]()
    logits = torch.randn(rows, 5, requires_grad=True)
    value = loss(logits, torch.full((rows, 5), torch.nan))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(rows, 5))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("size", [0.0, 30.0, 200.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_for_extreme_logits(name: str, size: float, dtype: torch.dtype) -> None:
    logits = (size * torch.tensor([[1.0, -1, 1, -1, 1], [-1, 1, 1, -1, -1]])).to(dtype).requires_grad_()
    value = BINARY[name]()(logits, torch.tensor([[1.0, 1, 0, 0, 1], [1, 0, 1, 0, 0]]))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_torch_on_rows_with_one_positive(smoothing: float) -> None:
    logits, target = one_hot()
    loss = CrossEntropy(smoothing)
    expected = F.cross_entropy(logits, target.argmax(1), label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, target), expected)
    partial = torch.where(target > 0, target, torch.nan)  # only the positive is known
    torch.testing.assert_close(loss(logits, partial), expected)
    extra = torch.tensor([[0.0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, torch.nan, 0, 0, 0], [torch.nan] * 5])
    wild = torch.full((4, 5), torch.nan)
    value = loss(torch.cat([logits, wild]).requires_grad_(), torch.cat([target, extra]))
    torch.testing.assert_close(value, expected)


def test_cross_entropy_of_mixtures_is_the_mixture_of_cross_entropies() -> None:
    logits, first = one_hot()
    second = first.roll(1, 0)
    mixed = CrossEntropy()(logits, 0.7 * first + 0.3 * second)
    torch.testing.assert_close(mixed, 0.7 * CrossEntropy()(logits, first) + 0.3 * CrossEntropy()(logits, second))


def test_positive_weights() -> None:
    weights = positive_weights(torch.tensor([20, 5, 0, 100, 0, 50]), torch.tensor([100, 100, 100, 100, 0, 60]), cap=10)
    torch.testing.assert_close(weights, torch.tensor([4.0, 10.0, 10.0, 0.1, 1.0, 0.2]))
    torch.testing.assert_close(
        positive_weights(torch.tensor([5]), torch.tensor([100]), torch.inf), torch.tensor([19.0])
    )


@pytest.mark.parametrize("make", [BCEPosWeight, lambda: Focal(balance=True)])
def test_weights_are_refused_before_counts_and_travel_in_the_state(make) -> None:
    logits, target = batch()
    with pytest.raises(UserError, match="fit_counts"):
        make()(logits, target)
    fitted = make()
    fitted.fit_counts(torch.tensor([5, 10, 50, 0, 90]), torch.full((5,), 100))
    holder, restored = nn.ModuleDict({"loss": fitted}), nn.ModuleDict({"loss": make()})
    restored.load_state_dict(holder.state_dict())
    assert torch.equal(restored["loss"](logits, target), fitted(logits, target))
    make().load_state_dict(make().state_dict())  # neither has counts


@pytest.mark.parametrize(
    "make",
    [
        lambda: BCE(label_smoothing=1.0),
        lambda: BCEPosWeight(cap=0.5),
        lambda: Focal(gamma=-1.0),
        lambda: Focal(alpha=1.5),
        lambda: AsymmetricFocal(shift=1.0),
    ],
)
def test_bad_values_are_user_errors(make) -> None:
    with pytest.raises(UserError):
        make()


@pytest.mark.parametrize("name", ["bce", "bce_pos_weight", "ce", "focal", "asymmetric_focal"])
def test_yaml_holds_the_defaults_of_its_signature(name: str) -> None:
    values = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    target = values.pop("_target_").removeprefix("tonnetz.losses.")
    signature = inspect.signature(getattr(tonnetz.losses, target))
    assert values == {key: parameter.default for key, parameter in signature.parameters.items()}


def test_auto_chooses_by_the_kind_of_labels() -> None:
    assert isinstance(tonnetz.losses.auto(multilabel=True), BCE)
    assert isinstance(tonnetz.losses.auto(multilabel=False), CrossEntropy)

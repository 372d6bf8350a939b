"""The stacked engine against the one-by-one engine, autograd, scikit-learn; early stopping, failures, seeds."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tonnetz.errors import UserError
from tonnetz.probing import Goal, Probe, Protocol, expand, fit
from tonnetz.probing.grid import groups, widths
from tonnetz.probing.serial import fit_alone
from tonnetz.probing.stack import Examples, Stack, draws, evaluate, initial

NAMES = ("a", "b", "c", "d")
AXES = {
    "standardize": [False, True],
    "lr": [3e-3, 1e-1],
    "weight_decay": [0.0, 1e-2],
}


def toy(kind, items=240, width=12, noise=1.0):
    """Features that tell targets with noise, and their split in three."""
    g = torch.Generator().manual_seed(5)
    klass = torch.randint(4, (items,), generator=g)
    x = torch.randn(items, width, generator=g) * torch.linspace(0.1, 3, width)
    x[:, :4] += torch.eye(4)[klass] / noise
    if kind == "multilabel":
        target = (torch.eye(4)[klass] + (torch.rand(items, 4, generator=g) < 0.1)).clamp(max=1).T
        target[0, ::9] = torch.nan
    elif kind == "number":
        target = (x @ torch.randn(width, 4, generator=g) + torch.randn(items, 4, generator=g)).T
        target[1, ::7] = torch.nan
    else:
        target = klass
        target[::17] = -1
    cut = slice(0, items // 2), slice(items // 2, 3 * items // 4), slice(3 * items // 4, items)
    return [Examples(x[part], target[..., part]) for part in cut]


def goal_of(kind):
    return Goal(kind, NAMES) if kind != "key" else Goal(kind, tuple(f"{i}" for i in range(24)))


@pytest.mark.parametrize("kind", ["multilabel", "classes", "key", "number"])
@pytest.mark.parametrize("hidden", [(), (16,), (10, 6)])
def test_gradients_are_those_of_autograd(kind, hidden):
    train, *_ = toy(kind)
    goal = goal_of(kind)
    probes = [Probe(hidden, 32, 1e-2, p, 0.0, s) for s in (False, True) for p in (0.0, 0.5)]
    stack = Stack(probes, [12, *hidden, len(goal.names)], 3, Protocol())
    for value in stack.weights:
        value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    before = [value.clone() for value in stack.weights]
    index, uniform = next(draws(0, 120, 32, [12, *hidden], Protocol()))
    sides = [train.x[index], train.x[index] * 2 - 1]
    stack.step(sides, train.target[..., index], uniform, goal)
    for i, probe in enumerate(stack.probes):
        own = [value[i].clone().requires_grad_() for value in before]
        h = sides[probe.standardize]
        for n, (weight, bias) in enumerate(zip(own[::2], own[1::2], strict=True)):
            h = torch.nn.functional.linear(
                (h.relu() if n else h) * (uniform[n] >= probe.dropout) / (1 - probe.dropout), weight, bias
            )
        goal.loss(h.T, train.target[..., index]).backward()
        for ours, theirs in zip(stack.grads, own, strict=True):
            torch.testing.assert_close(ours[i], theirs.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(every=4, patience=6, max_steps=160),
        Protocol(every=None, patience=4, sampling="epochs", plateau=(0.3, 1), max_epochs=30),
        Protocol(every=5, patience=9, optimizer="adamw", max_steps=43, dropout_input=False),
        Protocol(every=4, stop="loss", patience=6, plateau=(0.3, 2), max_steps=160),
    ],
    ids=["draws", "epochs", "adamw", "loss"],
)
@pytest.mark.parametrize("kind", ["multilabel", "classes", "key", "number"])
@pytest.mark.parametrize("hidden", [(), (16,), ("between",)])
def test_all_at_once_equals_one_by_one(kind, hidden, protocol):
    """Same scores, same best and last steps, same winner, dropout included: all draws are shared."""
    train, valid, test = toy(kind)
    goal = goal_of(kind)
    probes = expand({**AXES, "hidden": [hidden], "batch": [32], "dropout": [0.0, 0.4]})
    fitted = fit(probes, goal, train, valid, protocol, seed=2)
    alone = [fit_alone(probe, goal, train, valid, protocol, seed=2) for probe in probes]
    assert fitted.score.tolist() == pytest.approx([one["score"] for one in alone], abs=1e-4)
    same = sum(a == one["steps"] for a, one in zip(fitted.steps.tolist(), alone, strict=True))
    assert same >= len(probes) - 1  # scores that differ by rounding may stop a probe elsewhere
    winner = int(fitted.score.argmax())
    assert winner == max(range(len(probes)), key=lambda i: alone[i]["score"])
    model = alone[winner]["model"]
    x = (test.x - fitted.mean) / fitted.std if probes[winner].standardize else test.x
    torch.testing.assert_close(fitted.outputs(winner, test.x), model(x).T.detach(), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["multilabel", "classes", "key", "number"])
def test_losses_are_those_of_each(kind):
    train = toy(kind)[0]
    goal = goal_of(kind)
    z = torch.randn(5, len(goal.names), len(train.x), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(goal.losses(z, train.target), torch.stack([goal.loss(one, train.target) for one in z]))


def test_the_loss_of_windows_stops_and_the_score_of_tracks_compares():
    """Overfitting raises the loss long before it lowers the score."""
    train, valid, _ = toy("classes", noise=3.0)
    unit = torch.arange(len(valid.x)).repeat_interleave(2)
    windows = Examples(valid.x[unit], valid.target, unit)
    probes = [Probe((), 32, lr, 0.0, 0.0, True) for lr in (1e-2, 1e-1)]
    by_loss, by_score = (
        fit(probes, goal_of("classes"), train, windows, Protocol(every=4, stop=stop, patience=40), rules=("prob",))
        for stop in ("loss", "score")
    )
    for i in range(2):
        score = goal_of("classes").value(by_loss.outputs(i, valid.x)[None], valid.target)
        assert by_loss.score[i] == pytest.approx(float(score))  # of the step that had the least loss
    assert (by_loss.score <= by_score.score).all()
    assert (by_loss.best_step != by_score.best_step).any()


def test_one_hot_toy_of_the_specification():
    """1,000 items in 4 classes, 8:1:1, no dropout: 72 configurations agree with the oracle, the winner is right."""
    g = torch.Generator().manual_seed(0)
    klass = torch.randint(4, (1000,), generator=g)
    x = torch.eye(4)[klass]
    train, valid, test = (Examples(x[a:b], klass[a:b]) for a, b in ((0, 800), (800, 900), (900, 1000)))
    goal, protocol = Goal("classes", NAMES), Protocol(every=8, patience=5, max_steps=120)
    probes = expand(
        {
            "standardize": [False, True],
            "hidden": [[], [32]],
            "batch": [64, 256],
            "lr": [1e-5, 1e-4, 1e-3],
            "dropout": [0.0],
            "weight_decay": [0.0, 1e-4, 1e-3],
        }
    )
    assert len(probes) == 72
    scores, alone = torch.zeros(72), []
    for group in groups(probes):
        fitted = fit([probes[i] for i in group], goal, train, valid, protocol)
        scores[group] = fitted.score.float()
        for place, i in enumerate(group):
            one = fit_alone(probes[i], goal, train, valid, protocol)
            alone.append((i, one["score"]))
            assert int(fitted.steps[place]) == one["steps"], probes[i]
            if scores[i] == 1:
                assert (fitted.outputs(place, test.x).argmax(0) == test.target).all()
    by_one = [score for _, score in sorted(alone)]
    assert scores.tolist() == pytest.approx(by_one, abs=1e-4)
    assert scores.max() == 1.0
    assert scores.tolist().index(scores.max()) == by_one.index(max(by_one))  # the same winner


def test_metrics_of_sklearn_choose_the_same():
    train, valid, _ = toy("multilabel", noise=2.0)
    train.target[:], valid.target[:] = train.target.nan_to_num(), valid.target.nan_to_num()
    goal, protocol = goal_of("multilabel"), Protocol(every=4, patience=5)
    probes = expand({**AXES, "batch": [32], "dropout": [0.25]})
    fitted = fit(probes, goal, train, valid, protocol)
    for i, probe in enumerate(probes):
        one = fit_alone(
            probe, goal, train, valid, protocol, metric=lambda z, y: roc_auc_score(y.T.numpy(), z.T.numpy())
        )
        assert fitted.score[i].item() == pytest.approx(one["score"], abs=1e-6)


def test_a_probe_that_diverges_is_given_up_alone():
    train, valid, _ = toy("number")
    probes = [Probe((8,), 32, lr, 0.0, 0.0, False) for lr in (1e-2, 1e38, 1e-1)]
    protocol = Protocol(every=4, patience=5, max_steps=200)
    fitted = fit(probes, goal_of("number"), train, valid, protocol)
    assert list(fitted.failed) == [1]
    assert fitted.score[[0, 2]].min() > 0
    calm = fit([probes[0], probes[2]], goal_of("number"), train, valid, protocol)
    torch.testing.assert_close(fitted.score[[0, 2]], calm.score)


def test_best_weights_are_kept_and_patience_counts():
    train, valid, _ = toy("classes", noise=3.0)
    probes = [Probe((), 32, lr, 0.0, 0.0, True) for lr in (1e-3, 1e-1)]
    fitted = fit(probes, goal_of("classes"), train, valid, Protocol(every=4, patience=7))
    for i in range(2):
        assert int(fitted.steps[i] - fitted.best_step[i]) == 28
        z = fitted.outputs(i, valid.x)
        assert float(goal_of("classes").value(z[None], valid.target)[0]) == fitted.score[i].item()


def test_windows_are_joined_by_every_rule():
    goal = Goal("classes", NAMES)
    z = torch.randn(3, 4, 11, generator=torch.Generator().manual_seed(0))
    unit = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2])
    for c in range(3):
        for n in range(3):
            part = z[c, :, unit == n]
            votes = torch.tensor([(part.argmax(0) == k).sum().item() for k in range(4)]).float()
            expected = {"logit": part.mean(1), "prob": part.softmax(0).mean(1), "max": part.amax(1), "vote": None}
            for rule, value in expected.items():
                found = goal.join(z, unit, 3, rule)[c, :, n]
                torch.testing.assert_close(found, votes / part.shape[1] if value is None else value)


def test_the_rule_is_chosen_on_validation():
    """Windows of which one in five is sure and right, the others weakly wrong: their mean is right, their votes not."""
    klass = torch.arange(60) % 2
    sign = (2.0 * klass - 1).repeat_interleave(5)
    x = torch.where(torch.arange(300) % 5 == 0, 6 * sign, -sign)[:, None]
    valid = Examples(x, klass, torch.arange(60).repeat_interleave(5))
    stack = Stack([Probe(dropout=0.0)], [1, 2], 0, Protocol())
    for direction, expected in ((1.0, 1), (-1.0, 0)):
        stack.weights[0][0, :, 0] = direction * torch.tensor([-1.0, 1.0])
        stack.weights[1].zero_()
        score, rule, _ = evaluate(stack, Goal("classes", ("no", "yes")), [x, x], valid, ("vote", "logit"))
        assert (score.item(), rule.item()) == (1.0, expected)


def test_seeds_decide_and_other_probes_do_not():
    train, valid, _ = toy("classes", noise=2.0)
    probes = expand({**AXES, "batch": [32], "hidden": [[8]], "dropout": [0.25, 0.5]})
    protocol, goal = Protocol(every=4, patience=5), goal_of("classes")
    first, again, other = (fit(probes, goal, train, valid, protocol, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.score, again.score)
    assert not torch.equal(first.score, other.score)
    few = fit(probes[::5], goal, train, valid, protocol, seed=1)
    torch.testing.assert_close(few.score, first.score[::5], atol=0.02, rtol=0)


def test_the_grid_of_jukemir():
    values = {"standardize": [False, True], "hidden": [[], [512]], "batch": [64, 256]}
    values |= {"lr": [1e-5, 1e-4, 1e-3], "dropout": [0.25, 0.5, 0.75], "weight_decay": [0.0, 1e-4, 1e-3]}
    probes = expand(values)
    assert len({probe.id for probe in probes}) == 216
    assert [len(group) for group in groups(probes)] == [54] * 4
    assert Probe().jukemir_id("debug", "debug") == "931d09133314c180443615815249a7415da09c86"
    assert len({probe.jukemir_id("a", "b") for probe in probes}) == 216


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"lrr": [1]}, "did you mean 'lr'"),
        ({"lr": [-1.0]}, "makes no sense"),
        ({"lr": 1e-3}, "must be a list"),
        ({"dropout": [1.0]}, "makes no sense"),
        ({"hidden": [[0]]}, "makes no sense"),
        ({"hidden": [["between", 8]]}, "all of them 'between'"),
        ({"hidden": [["wide"]]}, "makes no sense"),
    ],
)
def test_wrong_axes(axes, message):
    with pytest.raises(UserError, match=message):
        expand(axes)


@pytest.mark.parametrize(
    ("hidden", "inputs", "outputs", "expected"),
    [
        ((), 512, 50, []),
        ((256, 128), 512, 50, [256, 128]),
        (("between",), 512, 50, [282]),  # 281 is odd
        (("between",), 512, 24, [268]),
        (("between",), 5, 2, [4]),  # 3.5
        (("between",), 8, 50, [30]),  # 29, wider than the features
        (("between",) * 2, 512, 50, [358, 204]),
        (("between",) * 3, 4800, 10, [3602, 2406, 1208]),
    ],
)
def test_hidden_layers_between_features_and_outputs(hidden, inputs, outputs, expected):
    assert widths(Probe(hidden), inputs, outputs) == [inputs, *expected, outputs]
    even = np.linspace(inputs, outputs, len(hidden) + 2)[1:-1]
    if "between" in hidden:
        assert all(width % 2 == 0 and -1 < width - place <= 1 for width, place in zip(expected, even, strict=True))


def test_initial_weights_are_torch_s_and_leave_its_state_alone():
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    weight, bias = initial([40, 3], 4)
    assert torch.equal(torch.rand(3), expected)
    assert weight.shape == (3, 40)
    assert bias.shape == (3,)
    assert weight.abs().max() <= 1 / math.sqrt(40)


@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize("kind", ["multilabel", "number"])
def test_weighted_taps_equal_one_by_one(kind, hidden):
    """Three taps of four dimensions; each probe learns its own weights."""
    train, valid, test = toy(kind)
    goal, protocol = goal_of(kind), Protocol(every=4, patience=6, max_steps=60)
    probes = expand({**AXES, "hidden": [hidden], "batch": [32], "dropout": [0.0, 0.4]})
    fitted = fit(probes, goal, train, valid, protocol, seed=2, taps=3)
    alone = [fit_alone(probe, goal, train, valid, protocol, seed=2, taps=3) for probe in probes]
    assert fitted.score.tolist() == pytest.approx([one["score"] for one in alone], abs=1e-4)
    mix = fitted.weights[-1]
    assert mix.shape == (len(probes), 3)
    assert (mix - mix.mean()).abs().max() > 1e-3
    winner = int(fitted.score.argmax())
    x = (test.x - fitted.mean) / fitted.std if probes[winner].standardize else test.x
    torch.testing.assert_close(
        fitted.outputs(winner, test.x), alone[winner]["model"](x).T.detach(), atol=2e-3, rtol=2e-3
    )

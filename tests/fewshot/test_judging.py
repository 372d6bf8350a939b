"""Measures of few-shot answers against naive loops and scikit-learn."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tonnetz.errors import UserError
from tonnetz.fewshot.judging import Ladder, answer_table, chance, comparisons, episode_table, measures
from tonnetz.fewshot.protocol import Answers

NAMES = ("banjo", "cello", "flute", "oboe", "piano", "trumpet", "violin")
EPISODES, WAYS, QUERIES, STRANGE = 8, 4, 5, 6


def made(seed=0, skill=1.5, sure=1.0):
    """Answers of eight episodes; the last lacks a class, and two queries do not exist."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.Generator().manual_seed(99)  # the same episodes for every seed
    classes = torch.stack([torch.randperm(7, generator=drawn)[:WAYS].sort().values for _ in range(EPISODES)])
    target = torch.arange(WAYS).repeat_interleave(QUERIES).repeat(EPISODES, 1)
    logits = torch.randn(EPISODES, WAYS * QUERIES, WAYS, generator=g)
    logits += skill * torch.nn.functional.one_hot(target, WAYS)
    asked = torch.ones_like(target, dtype=torch.bool)
    asked[0, 3] = asked[2, 19] = False
    classes[-1, 3], logits[-1, :, 3], asked[-1, 3 * QUERIES :] = -1, -math.inf, False
    row = classes.gather(1, target) * 9 + torch.randint(9, target.shape, generator=drawn)
    strange = torch.randn(EPISODES, STRANGE, WAYS, generator=g) - 0.3
    strange[-1, :, 3] = -math.inf
    heard = torch.ones(EPISODES, STRANGE, dtype=torch.bool)
    heard[1, 2:] = False
    return Answers(sure * logits, target, asked, row.clamp(min=0), classes, sure * strange, heard)


@pytest.fixture(scope="module")
def ladder():
    return Ladder.of(NAMES, "hornbostel_sachs")


def queries(found, e):
    """(true code, answered code, probabilities, row) of the queries of an episode."""
    for m in range(found.target.shape[1]):
        if found.asked[e, m]:
            values = found.logits[e, m].double()
            slot = int(np.argmax(values.numpy()))
            true, said = (int(found.classes[e, i]) for i in (found.target[e, m], slot))
            yield true, said, values.softmax(0).numpy(), int(found.row[e, m])


def everything(found):
    return [item for e in range(EPISODES) for item in queries(found, e)]


def over_episodes(found, value):
    """Mean over episodes of the mean of `value` over queries; of queries where it is None nothing counts."""
    means = []
    for e in range(EPISODES):
        values = [v for v in (value(*item) for item in queries(found, e)) if v is not None]
        if values:
            means.append(np.mean(values))
    return float(np.mean(means))


def naive_f1(true, said):
    return f1_score(true, said, labels=sorted({*true, *said}), average="macro")


def test_the_ladder_climbs_from_classes_to_families(ladder):
    assert ladder.levels[:, 0].tolist() == [ladder.nodes.index(name) for name in NAMES]
    families = [ladder.nodes[node] for node in ladder.levels[:, -1].tolist()]
    assert families[1] == families[6] == families[4] == families[0]  # strings
    assert families[2] == families[3] == families[5]  # winds
    assert families[1] != families[2]
    for a in range(7):
        for b in range(7):
            padded = next((h for h in range(ladder.depth) if ladder.levels[a, h] == ladder.levels[b, h]), ladder.depth)
            assert ladder.padded[a, b] == padded
            assert ladder.natural[a, b] <= padded
            assert (ladder.natural[a, b] == 0) == (a == b)
    with pytest.raises(UserError, match=r"reference=ez: does not tell oboe and english_horn apart; .*data.taxonomy=ez"):
        Ladder.of([*NAMES, "english_horn"], "ez")
    flat = Ladder.of(NAMES, None)
    assert flat.depth == 1
    assert (flat.natural == 1 - torch.eye(7)).all()


def test_accuracy_severity_and_f1_equal_a_loop(ladder):
    found = made()
    values = measures(found, ladder)
    natural, padded = ladder.natural.numpy(), ladder.padded.numpy()
    assert values["accuracy"] == pytest.approx(over_episodes(found, lambda t, s, *_: t == s))
    assert values["height"] == pytest.approx(over_episodes(found, lambda t, s, *_: natural[t, s]))
    for name, table in (("severity", natural), ("severity_padded", padded)):
        expected = over_episodes(found, lambda t, s, *_, table=table: table[t, s] if t != s else None)
        assert values[name] == pytest.approx(expected)
    assert values["mistakes"] == sum(t != s for t, s, *_ in everything(found))
    assert values["macro_f1"] == pytest.approx(naive_f1(*zip(*((t, s) for t, s, *_ in everything(found)), strict=True)))
    levels = ladder.levels.numpy()
    for h in range(1, ladder.depth):
        right = over_episodes(found, lambda t, s, *_, h=h: levels[t, h] == levels[s, h])
        assert values[f"level{h}_accuracy"] == pytest.approx(right)
        pairs = [(levels[t, h], levels[s, h]) for t, s, *_ in everything(found)]
        assert values[f"level{h}_macro_f1"] == pytest.approx(naive_f1(*zip(*pairs, strict=True)))


def test_the_interval_is_students_over_episodes(ladder):
    from scipy import stats

    found = made()
    each = [np.mean([t == s for t, s, *_ in queries(found, e)]) for e in range(EPISODES)]
    low, high = stats.t.interval(0.95, EPISODES - 1, np.mean(each), stats.sem(each))
    values = measures(found, ladder)
    assert (values["accuracy_low"], values["accuracy_high"]) == pytest.approx((low, high), abs=1e-6)


def test_height_at_three_equals_a_loop(ladder):
    found, means = made(), []
    for e in range(EPISODES):
        heights = []
        for m in range(found.target.shape[1]):
            if found.asked[e, m]:
                true = int(found.classes[e, found.target[e, m]])
                order = sorted(range(WAYS), key=lambda c: -float(found.logits[e, m, c]))
                best = [int(found.classes[e, c]) for c in order if found.classes[e, c] >= 0][:3]
                heights.append(np.mean([int(ladder.natural[said, true]) for said in best]))
        means.append(np.mean(heights))
    assert measures(found, ladder)["height_at3"] == pytest.approx(np.mean(means))


def test_path_f1_equals_a_loop(ladder):
    found = made()
    paths = [set(np.flatnonzero(line)) for line in ladder.lines.numpy()]
    expected = []
    for e in range(EPISODES):
        pairs = [(paths[t], paths[s]) for t, s, *_ in queries(found, e)]
        shared = sum(len(a & b) for a, b in pairs)
        precision, recall = shared / sum(len(b) for _, b in pairs), shared / sum(len(a) for a, _ in pairs)
        expected.append(2 * precision * recall / (precision + recall))
    assert measures(found, ladder)["path_f1"] == pytest.approx(np.mean(expected))


def test_calibration_equals_a_loop_over_bins(ladder):
    found = made(sure=2.0)
    said = [(p.max(), t == s) for t, s, p, _ in everything(found)]
    error = 0.0
    for low in range(15):
        inside = [(p, right) for p, right in said if low / 15 < p <= (low + 1) / 15]
        if inside:
            error += abs(np.mean([r for _, r in inside]) - np.mean([p for p, _ in inside])) * len(inside) / len(said)
    assert measures(found, ladder)["ece"] == pytest.approx(error)


def test_careful_answers_equal_a_loop(ladder):
    """The answer of least expected height, and the lowest node that holds the mass."""
    found, mass = made(), 0.6
    natural, levels = ladder.natural.numpy(), ladder.levels.numpy()
    right, severity, height, covered, level, answered = ([] for _ in range(6))
    for e in range(EPISODES):
        codes = [int(c) for c in found.classes[e] if c >= 0]
        heights, mine = [], []
        for true, _, prob, _ in queries(found, e):
            risk = [sum(prob[j] * natural[a, b] for j, b in enumerate(codes)) for a in codes]
            safe = codes[int(np.argmin(risk))]
            right.append(safe == true)
            heights.append(natural[safe, true])
            for h in range(ladder.depth + 1):
                if h == ladder.depth:
                    mine.append((True, h, False))
                    break
                shares = {
                    n: sum(p for p, c in zip(prob, codes, strict=False) if levels[c, h] == n) for n in levels[:, h]
                }
                best = max(shares, key=shares.get)
                if shares[best] > mass:
                    mine.append((levels[true, h] == best, h, True))
                    break
        height.append(np.mean(heights))
        severity.append(np.mean([h for h in heights if h]))
        for values, column in zip((covered, level, answered), zip(*mine, strict=True), strict=True):
            values.append(np.mean(column))
    values = measures(found, ladder, mass)
    assert values["crm_accuracy"] == pytest.approx(np.mean(right))
    assert values["crm_severity"] == pytest.approx(np.mean(severity))
    assert values["crm_height"] == pytest.approx(np.mean(height))
    assert values["backoff_accuracy"] == pytest.approx(np.mean(covered))
    assert values["backoff_level"] == pytest.approx(np.mean(level))
    assert values["backoff_answered"] == pytest.approx(np.mean(answered))
    assert 0 < values["backoff_level"] < ladder.depth


def test_prototypes_of_nodes_equal_a_loop(ladder):
    found, levels = made(), ladder.levels.numpy()
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(EPISODES, ladder.depth, WAYS * QUERIES, WAYS, generator=g)
    logits[-1, ..., 3] = -math.inf
    values = measures(found, ladder, levels=logits)
    for h in range(1, ladder.depth):
        right, agree = [], []
        for e in range(EPISODES):
            pairs = []
            for m in range(WAYS * QUERIES):
                if found.asked[e, m]:
                    chosen = levels[int(found.classes[e, int(logits[e, h, m].argmax())]), h]
                    true = levels[int(found.classes[e, found.target[e, m]]), h]
                    said = levels[int(found.classes[e, int(found.logits[e, m].argmax())]), h]
                    pairs.append((chosen == true, chosen == said))
            for means, column in zip((right, agree), zip(*pairs, strict=True), strict=True):
                means.append(np.mean(column))
        assert values[f"level{h}_prototype_accuracy"] == pytest.approx(np.mean(right))
        assert values[f"level{h}_consistency"] == pytest.approx(np.mean(agree))


def test_rejection_of_unknown_classes_equals_sklearn_and_a_loop(ladder):
    found = made()
    known, right = [], []
    for e in range(EPISODES):
        for m in range(WAYS * QUERIES):
            if found.asked[e, m]:
                known.append(float(found.logits[e, m].max()))
                right.append(int(found.logits[e, m].argmax()) == found.target[e, m])
    strange = [float(found.strange[e, u].max()) for e in range(EPISODES) for u in range(STRANGE) if found.heard[e, u]]
    score, label = [*known, *strange], [1] * len(known) + [0] * len(strange)
    values = measures(found, ladder)
    assert values["auroc"] == pytest.approx(roc_auc_score(label, score))
    assert values["aupr"] == pytest.approx(average_precision_score(label, score))
    limits = sorted(score, reverse=True)
    first = next(limit for limit in limits if np.mean(np.array(known) >= limit) >= 0.95)
    assert values["fpr95"] == pytest.approx(np.mean(np.array(strange) >= first))
    points = [(0.0, 0.0)]
    for limit in limits:
        accepted = [r and k >= limit for k, r in zip(known, right, strict=True)]
        points.append((np.mean(np.array(strange) >= limit), np.mean(accepted)))
    x, y = np.array(points).T
    assert values["oscr"] == pytest.approx(np.trapezoid(y, x))


def test_nothing_is_said_of_levels_or_the_unknown_where_there_are_none():
    found = made()
    found = Answers(**{**vars(found), "heard": torch.zeros_like(found.heard)})
    values = measures(found, Ladder.of(NAMES, None))
    assert set(values) == {
        *("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "severity", "height", "mistakes", "ece")
    }
    assert values["severity"] == 1


def test_chance_is_the_mean_of_random_answers(ladder):
    """Its exact values by a loop over all possible answers."""
    found, levels, natural = made(), ladder.levels.numpy(), ladder.natural.numpy()
    values = chance(found, ladder)
    accuracy, severity, height = [], [], []
    at = {h: [] for h in range(1, ladder.depth)}
    for e in range(EPISODES):
        codes = [int(c) for c in found.classes[e] if c >= 0]
        asked = [true for true, *_ in queries(found, e)]
        accuracy.append(1 / len(codes))
        height.append(np.mean([natural[t, c] for t in asked for c in codes]))
        severity.append(np.mean([np.mean([natural[t, c] for c in codes if c != t]) for t in asked]))
        for h, shares in at.items():
            shares.append(np.mean([levels[t, h] == levels[c, h] for t in asked for c in codes]))
    assert values["accuracy"] == pytest.approx(np.mean(accuracy))
    assert values["severity"] == pytest.approx(np.mean(severity))
    assert values["height"] == pytest.approx(np.mean(height))
    for h, shares in at.items():
        assert values[f"level{h}_accuracy"] == pytest.approx(np.mean(shares))
        nodes = [{levels[c, h] for c in found.classes[e].tolist() if c >= 0} for e in range(EPISODES)]
        assert values[f"level{h}_consistency"] == pytest.approx(np.mean([1 / len(own) for own in nodes]))
    random = [measures(made(seed, skill=0.0), ladder) for seed in range(40)]
    for name, value in values.items():
        if not name.endswith("consistency"):
            assert np.mean([one[name] for one in random]) == pytest.approx(value, rel=0.06), name


def test_tables_equal_a_loop(ladder):
    found = made()
    episodes = episode_table(found, ladder)
    answers = answer_table(found, ladder, [f"clip{i}" for i in range(63)])
    natural, levels = ladder.natural.numpy(), ladder.levels.numpy()
    assert episodes["episode"].to_list() == list(range(EPISODES))
    expected = []
    for e, row in enumerate(episodes.iter_rows(named=True)):
        items = list(queries(found, e))
        wrong = [natural[t, s] for t, s, *_ in items if t != s]
        assert row["accuracy"] == pytest.approx(1 - len(wrong) / len(items))
        assert row["mistakes"] == len(wrong)
        assert row["severity"] == pytest.approx(np.mean(wrong))
        assert row["height"] == pytest.approx(np.sum(wrong) / len(items))
        for h in range(1, ladder.depth):
            assert row[f"level{h}_accuracy"] == pytest.approx(
                np.mean([levels[t, h] == levels[s, h] for t, s, *_ in items])
            )
        clips = [f"clip{row}" for *_, row in items]
        told = zip(items, clips, strict=True)
        expected += [(e, clip, clip, NAMES[t], NAMES[s], pytest.approx(p.max())) for (t, s, p, _), clip in told]
    assert answers.rows() == expected


def test_heads_are_compared_by_recordings():
    """A recording counts once, however many episodes ask it."""
    found = {"weak": made(1, skill=0.3), "strong": made(2, skill=3.0), "same": made(1, skill=0.3)}
    table = comparisons(found, "weak", rounds=300)
    shares = {}
    for name, answers in found.items():
        asked = {}
        for true, said, _, row in everything(answers):
            asked.setdefault(row, []).append(true == said)
        shares[name] = {row: np.mean(values) for row, values in asked.items()}
    for name, row in table.items():
        assert row["mean"] == pytest.approx(np.mean(list(shares[name].values())))
        assert row["low"] < row["mean"] < row["high"]
    assert "difference" not in table["weak"]
    gap = np.mean([shares["strong"][row] - shares["weak"][row] for row in shares["weak"]])
    assert table["strong"]["difference"] == pytest.approx(gap)
    assert 0 < table["strong"]["difference_low"] < gap < table["strong"]["difference_high"]
    assert table["strong"]["p"] == pytest.approx(2 * 2 / 301)  # the smallest there is, twice after Holm
    assert (table["same"]["difference"], table["same"]["p"]) == (0, 1)


def test_clips_of_a_recording_are_drawn_together():
    """The same answers twice, as windows of one recording, do not narrow the interval."""
    found = {"weak": made(1, skill=0.3), "strong": made(2, skill=3.0)}
    alone = comparisons(found, "weak", rounds=500)["strong"]
    twice = {
        name: replace(
            one,
            row=torch.cat([one.row, one.row + 100], 1),
            **{key: torch.cat([getattr(one, key)] * 2, 1) for key in ("logits", "target", "asked")},
        )
        for name, one in found.items()
    }
    units = torch.arange(200) % 100
    together = comparisons(twice, "weak", rounds=500, units=units)["strong"]
    apart = comparisons(twice, "weak", rounds=500)["strong"]
    width = {name: row["high"] - row["low"] for name, row in (("one", alone), ("two", together), ("many", apart))}
    assert width["two"] == pytest.approx(width["one"], rel=0.15)
    assert width["many"] < width["two"]

"""What few-shot answers are worth: measures at every level of a tree, with chance, intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.fewshot.protocol import Answers
from tonnetz.heads import least_risk
from tonnetz.metrics import hierarchy, openset
from tonnetz.metrics.expected_calibration import expected_calibration_error
from tonnetz.metrics.paired import compare, mean_interval
from tonnetz.taxonomy import Taxonomy

BEST = 3  # classes of a ranking


@dataclass(frozen=True)
class Ladder:
    """What measures know of the classes of a split, whatever tree a model was trained with.

    levels (K, L) are node ids from the class upwards on the evenly padded tree, padded and natural (K, K) heights of
    common ancestors, lines (K, nodes) which nodes lie above a class, nodes their names.
    """

    names: tuple[str, ...]
    levels: Tensor
    padded: Tensor
    natural: Tensor
    lines: Tensor
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], reference: str | None) -> Ladder:
        """Of the classes' places in a taxonomy, or without levels.

        Raises UserError where the taxonomy lacks a class, or has one name for two.
        """
        if reference is None:
            count = len(names)
            apart = 1 - torch.eye(count, dtype=torch.long)
            return cls(tuple(names), torch.arange(count)[:, None], apart, apart, torch.eye(count) > 0, tuple(names))
        tree = Taxonomy.load(reference)
        nodes = tree.resolve_all(names, "task.evaluation.reference")
        if twins := [name for name, node in zip(names, nodes, strict=True) if nodes.count(node) > 1]:
            raise UserError(
                f"task.evaluation.reference={reference}: does not tell {' and '.join(twins[:2])} apart; take a finer "
                f"tree, or name the classes by it, data.taxonomy={reference}"
            )
        levels, padded, natural, lines = (
            torch.from_numpy(np.ascontiguousarray(table))
            for table in (
                tree.levels(nodes),
                tree.lca_heights(nodes),
                tree.lca_heights(nodes, padded=False),
                tree.ancestor_matrix(nodes),
            )
        )
        return cls(tuple(names), levels, padded, natural, lines, tuple(tree.nodes))

    @property
    def depth(self) -> int:
        """Levels, the classes' own included."""
        return self.levels.shape[1]


def measures(found: Answers, ladder: Ladder, mass: float = 0.75, levels: Tensor | None = None) -> dict[str, float]:
    """All measures of a head at one number of shots, means over episodes; `levels` (E, L, M, C) are logits of nodes.

    accuracy with its Student interval over episodes, macro_f1 pooled; accuracy and F1 of the ancestor at every level;
    severity (mean height of the common ancestor of mistakes, on the natural and the padded tree), height (of all);
    ece; what is reached by least expected severity (crm) and by backing off to a node that holds `mass` of the
    probability; how well unknown classes are rejected, where there are any.
    """
    said, true = found.codes()
    goal = torch.where(found.asked, true, -1)
    prob = found.logits.double().softmax(-1)
    values = _basic(found, said, goal, ladder)
    values["ece"] = expected_calibration_error(prob.amax(-1)[found.asked], (said == goal)[found.asked])
    if ladder.depth > 1:
        values |= _levels(found, said, goal, ladder, levels)
        values |= _careful(found, prob, goal, ladder, mass) | _height_at(found, goal, ladder)
    if found.heard.any():
        values |= _open(found)
    return values


def by_origin(found: Answers, seen: Tensor) -> dict[str, float]:
    """Accuracy on clips of classes that training saw (K,) and of new ones, their harmonic mean; {} where one lacks."""
    said, true = (codes[found.asked] for codes in found.codes())
    old = seen[true]
    if old.all() or not old.any():
        return {}
    base, novel = (float((said == true)[mine].double().mean()) for mine in (old, ~old))
    harmonic = 2 * base * novel / max(base + novel, 1e-12)
    return {"accuracy_base": base, "accuracy_novel": novel, "accuracy_harmonic": harmonic}


def _basic(found: Answers, said: Tensor, goal: Tensor, ladder: Ladder) -> dict[str, float]:
    interval = mean_interval(found.accuracy)
    bad = hierarchy.severity(said, goal, ladder.natural)
    return {
        "accuracy": interval.mean,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "macro_f1": float(hierarchy.class_f1(said, goal, len(ladder.names)).nanmean()),
        "severity": float(bad.mistake.nanmean()),
        "height": float(bad.all.nanmean()),
        "mistakes": int(bad.mistakes.sum()),
    }


def _levels(found: Answers, said: Tensor, goal: Tensor, ladder: Ladder, logits: Tensor | None) -> dict[str, float]:
    values: dict[str, float] = {}
    accuracy = hierarchy.level_accuracy(said, goal, ladder.levels).nanmean(0)
    f1 = hierarchy.level_f1(said, goal, ladder.levels)
    for level in range(1, ladder.depth):
        values[f"level{level}_accuracy"] = float(accuracy[level])
        values[f"level{level}_macro_f1"] = float(f1.macro[level])
    values["severity_padded"] = float(hierarchy.severity(said, goal, ladder.padded).mistake.nanmean())
    values["path_f1"] = float(hierarchy.path_scores(said, goal, ladder.lines)[2].nanmean())
    if logits is not None:
        values |= _prototypes(found, said, goal, ladder, logits)
    return values


def _prototypes(found: Answers, said: Tensor, goal: Tensor, ladder: Ladder, logits: Tensor) -> dict[str, float]:
    """Of the nearest prototype of a node: how often it is right, and lies above the nearest class."""
    slots = logits.argmax(-1).transpose(1, 2)  # (E, M, L)
    nodes = ladder.levels[found.classes.clamp(min=0)]  # (E, C, L)
    chosen = nodes.gather(1, slots)  # (E, M, L)
    right = (chosen == ladder.levels[goal.clamp(min=0)]) & (goal >= 0)[..., None]
    share = right.double().sum(1) / found.asked.sum(1, keepdim=True).clamp(min=1)  # (E, L)
    agree = hierarchy.consistency(chosen, said, ladder.levels, goal).nanmean(0)
    values = {f"level{h}_prototype_accuracy": float(share[:, h].mean()) for h in range(1, ladder.depth)}
    return values | {f"level{h}_consistency": float(agree[h]) for h in range(1, ladder.depth)}


def _height_at(found: Answers, goal: Tensor, ladder: Ladder) -> dict[str, float]:
    """Mean height over the `BEST` likeliest classes of a query: are the next ones relatives? Of all where fewer are."""
    ranked = found.logits.masked_fill(found.classes[:, None] < 0, -torch.inf).topk(min(BEST, found.classes.shape[1]))
    codes = found.classes.gather(1, ranked.indices.flatten(1)).view_as(ranked.indices)  # (E, M, k), -1 for no class
    there = (codes >= 0).double()
    height = ladder.natural[codes.clamp(min=0), goal.clamp(min=0)[..., None]] * there
    each = height.sum(-1) / there.sum(-1).clamp(min=1)  # (E, M)
    kept = goal >= 0
    return {f"height_at{BEST}": float(((each * kept).sum(1) / kept.sum(1)).nanmean())}


def _careful(found: Answers, prob: Tensor, goal: Tensor, ladder: Ladder, mass: float) -> dict[str, float]:
    classes = found.classes.clamp(min=0)
    cost = ladder.natural[classes[:, :, None], classes[:, None]]  # (E, C, C)
    safe = classes.gather(1, least_risk(prob, cost, found.classes >= 0))
    bad = hierarchy.severity(safe, goal, ladder.natural)
    backed = openset.back_off(prob, ladder.levels[classes], mass)
    scores = openset.back_off_scores(backed, goal, ladder.levels)
    return {
        "crm_accuracy": _share(safe == goal, goal),
        "crm_severity": float(bad.mistake.nanmean()),
        "crm_height": float(bad.all.nanmean()),
        "backoff_accuracy": float(scores.accuracy.nanmean()),
        "backoff_level": float(scores.height.nanmean()),
        "backoff_answered": float(scores.answered.nanmean()),
    }


def _share(right: Tensor, goal: Tensor) -> float:
    asked = goal >= 0
    return float((right & asked).sum() / asked.sum().clamp(min=1))


def _open(found: Answers) -> dict[str, float]:
    """Rejection of unknown classes by the largest score."""
    known, strange = found.logits.amax(-1)[found.asked], found.strange.amax(-1)[found.heard]
    score = torch.cat([known, strange]).double()
    is_known = torch.cat([torch.ones_like(known), torch.zeros_like(strange)]) > 0
    right = torch.cat([(found.answer == found.target)[found.asked], torch.zeros_like(strange) > 0])
    return {
        "auroc": openset.auroc(score, is_known),
        "aupr": openset.aupr(score, is_known),
        "fpr95": openset.false_positives_at(score, is_known),
        "oscr": openset.oscr(score, is_known, right).area,
    }


def chance(found: Answers, ladder: Ladder) -> dict[str, float]:
    """What uniformly random answers are expected to get."""
    goal = torch.where(found.asked, found.codes()[1], -1)
    by_padded = hierarchy.chance(goal, found.classes, ladder.levels, ladder.padded)
    by_natural = hierarchy.chance(goal, found.classes, ladder.levels, ladder.natural)
    values = {
        "accuracy": float(by_natural.accuracy[:, 0].nanmean()),
        "macro_f1": float(by_natural.macro_f1[0]),
        "severity": float(by_natural.mistake.nanmean()),
        "height": float(by_natural.all.nanmean()),
    }
    if ladder.depth > 1:
        values["severity_padded"] = float(by_padded.mistake.nanmean())
        for level in range(1, ladder.depth):
            values[f"level{level}_accuracy"] = float(by_natural.accuracy[:, level].nanmean())
            values[f"level{level}_macro_f1"] = float(by_natural.macro_f1[level])
            values[f"level{level}_consistency"] = float(by_natural.consistency[:, level].nanmean())
    return values


def episode_table(found: Answers, ladder: Ladder) -> pl.DataFrame:
    """One row an episode: what is paired between heads and between runs."""
    said, true = found.codes()
    goal = torch.where(found.asked, true, -1)
    bad = hierarchy.severity(said, goal, ladder.natural)
    columns: dict[str, Tensor] = {
        "episode": torch.arange(len(goal)),
        "accuracy": found.accuracy,
        "mistakes": bad.mistakes,
        "severity": bad.mistake,
        "height": bad.all,
    }
    at_levels = hierarchy.level_accuracy(said, goal, ladder.levels)
    columns |= {f"level{level}_accuracy": at_levels[:, level] for level in range(1, ladder.depth)}
    return pl.DataFrame({name: values.numpy() for name, values in columns.items()})


def answer_table(
    found: Answers, ladder: Ladder, ids: Sequence[str], recordings: Sequence[str] | None = None
) -> pl.DataFrame:
    """One row a query: episode, clip, its recording (song, player), true and predicted class, probability."""
    said, true = found.codes()
    asked = found.asked
    names = np.array(ladder.names, object)
    episode = torch.arange(len(asked))[:, None].expand(asked.shape)[asked]
    prob = found.logits.double().softmax(-1).amax(-1)[asked]
    return pl.DataFrame(
        {
            "episode": episode.numpy(),
            "clip": np.array(ids, object)[found.row[asked].numpy()].tolist(),
            "recording": np.array(recordings or ids, object)[found.row[asked].numpy()].tolist(),
            "true": names[true[asked].numpy()].tolist(),
            "predicted": names[said[asked].numpy()].tolist(),
            "probability": prob.numpy(),
        }
    )


def comparisons(
    found: Mapping[str, Answers], reference: str, rounds: int = 1000, units: Tensor | None = None
) -> dict[str, dict[str, float]]:
    """Heads against one of them on the same queries: a bootstrap over recordings and classes, p after Holm.

    A clip counts once, by its share of right answers over all episodes, so that episodes drawn from one pool do not
    feign precision; clips of one unit (rows,), a recording, song or player, are drawn together.
    """
    shares, clusters = {}, None
    for name, answers in found.items():
        row, right = answers.row[answers.asked], (answers.answer == answers.target)[answers.asked]
        clip, place, count = row.unique(return_inverse=True, return_counts=True)
        shares[name] = torch.zeros(len(count), dtype=torch.float64).index_add(0, place, right.double()) / count
        true = answers.codes()[1][answers.asked]
        owner = torch.zeros(len(count), dtype=torch.long).index_put((place,), true)
        clusters = torch.stack([clip if units is None else units[clip], owner], 1)
    table = {}
    for name, found_of in compare(shares, reference, clusters, draws=max(rounds, 1)).items():
        table[name] = {"mean": found_of.value.mean, "low": found_of.value.low, "high": found_of.value.high}
        if (gap := found_of.difference) is not None:
            bounds = {"difference": gap.mean, "difference_low": gap.low, "difference_high": gap.high}
            table[name] |= bounds | {"p": found_of.p}
    return table

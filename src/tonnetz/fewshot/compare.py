"""Settings of few-shot tests against one another: means over seeds, paired tests, episodes and instruments."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl
import torch
from torch import Tensor

from tonnetz.metrics.paired import Difference, holm, mean_interval, paired_difference, wilcoxon

KEYS = ("setting", "seed", "head", "shots", "kind", "episode")
LOWER = (
    "severity",
    "height",
    "severity_padded",
    "crm_severity",
    "crm_height",
    "height_at3",
    "ece",
    "fpr95",
)  # less is better
BOUNDS = ("_low", "_high")
EQUAL = 1e-9  # margins up to it are rounding
NAN = float("nan")
NONE = Difference(NAN, NAN, NAN, NAN, NAN, 0)


def measured(frame: pl.DataFrame) -> list[str]:
    """The columns of heads.csv or episodes.csv that are measures: neither keys nor what a run compared by itself."""
    other = (*KEYS, "mistakes", "difference", "p")
    return [name for name in frame.columns if name not in other and not name.endswith(BOUNDS)]


def summary(heads: pl.DataFrame, episodes: pl.DataFrame, metric: str) -> pl.DataFrame:
    """A row a setting and number of shots: mean over seeds with Student's interval, deviation and number of runs.

    Of what episodes are measured by, also their interval (episodes_low, episodes_high): of the means over seeds.
    """
    rows = []
    for (setting, shots), runs in heads.group_by("setting", "shots", maintain_order=True):
        found = mean_interval(_numbers(runs[metric]))
        row = {"setting": setting, "shots": shots, "mean": found.mean, "low": found.low, "high": found.high}
        row |= {"deviation": runs[metric].std(), "runs": found.n}
        if metric in episodes.columns:
            mine = episodes.filter(pl.col("setting") == setting, pl.col("shots") == shots)
            one = mean_interval(_numbers(mean_episodes(mine, metric)["value"]))
            row |= {"episodes_low": one.low, "episodes_high": one.high, "episodes": one.n}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)


def mean_episodes(episodes: pl.DataFrame, metric: str) -> pl.DataFrame:
    """`value` of each episode of a setting and number of shots: the mean over seeds, NaN left out."""
    value = pl.col(metric).cast(pl.Float64).fill_nan(None).mean().alias("value")
    return episodes.group_by("setting", "shots", "episode", maintain_order=True).agg(value)


def episode_pairs(episodes: pl.DataFrame, metric: str, rounds: int = 1000) -> pl.DataFrame:
    """Every two settings at every number of shots, paired by episode number and seed: difference first - second.

    p is Wilcoxon's, p_holm corrected over the pairs of the same shots; the interval is a bootstrap over episodes and
    seeds; effect is the mean difference by its deviation.
    """
    rows: list[dict[str, Any]] = []
    for (shots,), part in episodes.group_by("shots", maintain_order=True):
        found = []
        for a, b, both in _joined(part.select("setting", "seed", "episode", metric), ["seed", "episode"]):
            one, two = _numbers(both[metric]), _numbers(both[f"{metric}_right"])
            clusters = torch.stack([_codes(both["episode"]), _codes(both["seed"])], 1)
            gap = _difference(one, two, clusters, rounds)
            found.append(_row(a, b, shots, both["seed"].n_unique(), gap) | {"p": wilcoxon(one, two)})
        rows += _corrected(found)
    return pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)


def recording_pairs(answers: pl.DataFrame, rounds: int = 1000) -> pl.DataFrame:
    """Every two settings by their shares of right answers to each clip, a bootstrap over recordings and classes.

    A clip counts once, by its mean over episodes and the seeds of both, so that episodes drawn from one pool do not
    feign precision. Clips of a recording (song, player) stay together.
    """
    if "recording" not in answers.columns:
        answers = answers.with_columns(recording=pl.col("clip").str.replace(r"@[\d.]+$", ""))
    right = (pl.col("true") == pl.col("predicted")).cast(pl.Float64).mean().alias("right")
    clips = answers.group_by("setting", "seed", "clip", "recording", "true", maintain_order=True).agg(right)
    rows = []
    for a, b, both in _joined(clips, ["seed", "clip", "recording", "true"]):
        seeds = both["seed"].n_unique()
        both = both.group_by("clip", "recording", "true", maintain_order=True).agg(
            pl.col("right", "right_right").mean()
        )
        recording = both["recording"]
        clusters = torch.stack([_codes(recording), _codes(both["true"])], 1)
        gap = _difference(_numbers(both["right"]), _numbers(both["right_right"]), clusters, rounds)
        rows.append(_row(a, b, None, seeds, gap) | {"p": gap.p, "recordings": recording.n_unique()})
    return pl.DataFrame(_corrected(rows), infer_schema_length=None).drop("shots", strict=False).fill_nan(None)


def _joined(frame: pl.DataFrame, keys: list[str]) -> list[tuple[str, str, pl.DataFrame]]:
    """Every two settings with the rows that both have."""
    parts = {str(name): rows.drop("setting") for (name,), rows in frame.group_by("setting", maintain_order=True)}
    return [(a, b, parts[a].join(parts[b], on=keys, maintain_order="left")) for a, b in combinations(parts, 2)]


def _difference(a: Tensor, b: Tensor, clusters: Tensor, rounds: int) -> Difference:
    some = bool((~(a - b).isnan()).any())
    return paired_difference(a, b, clusters, max(rounds, 1)) if some else NONE


def _row(a: str, b: str, shots: Any, seeds: int, gap: Difference) -> dict[str, Any]:
    head = {"first": a, "second": b, "shots": shots, "seeds": seeds, "pairs": gap.n, "difference": gap.mean}
    return head | {"low": gap.low, "high": gap.high, "effect": gap.effect}


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with p_holm over those that have pairs."""
    told = [row for row in rows if row["pairs"]]
    p = dict(zip(map(id, told), holm([row["p"] for row in told]), strict=True))
    return [row | {"p": row["p"] if id(row) in p else None, "p_holm": p.get(id(row))} for row in rows]


def extremes(
    episodes: pl.DataFrame, answers: pl.DataFrame, reference: str, metric: str, count: int = 10
) -> pl.DataFrame:
    """The episodes that each setting wins and loses most clearly against the reference, with margin and classes."""
    means = mean_episodes(episodes, metric)
    base = means.filter(pl.col("setting") == reference).select("shots", "episode", reference="value")
    sign = -1 if metric in LOWER else 1
    both = means.filter(pl.col("setting") != reference).join(base, on=["shots", "episode"], maintain_order="left")
    both = both.with_columns(margin=pl.col("value") - pl.col("reference")).drop_nulls("margin")
    parts = []
    for name, better in (("won", True), ("lost", False)):
        gain = pl.col("margin") * (sign if better else -sign)
        best = both.filter(gain > EQUAL).sort(gain, descending=True, maintain_order=True)
        parts.append(
            best.group_by("setting", "shots", maintain_order=True).head(count).with_columns(result=pl.lit(name))
        )
    seen = answers.group_by("episode").agg(pl.col("true").unique().sort().str.join(" ").alias("classes"))
    columns = ("setting", "shots", "result", "episode", "margin", "value", "reference")
    found = pl.concat(parts).select(columns).join(seen, on="episode", how="left", maintain_order="left")
    return found.sort("setting", "shots", maintain_order=True)


def instruments(answers: pl.DataFrame, reference: str) -> pl.DataFrame:
    """F1 of every class and setting, pooled over episodes, mean over seeds; the difference to the reference's.

    low and high are Student's interval of the difference over the seeds that both have, from two on.
    """
    keys = ["setting", "seed"]
    hit = pl.col("true") == pl.col("predicted")
    true = answers.group_by(*keys, pl.col("true").alias("class")).agg(pl.len().alias("asked"), hit.sum().alias("hits"))
    said = answers.group_by(*keys, pl.col("predicted").alias("class")).agg(pl.len().alias("said"))
    f1 = (2 * pl.col("hits") / (pl.col("asked") + pl.col("said").fill_null(0))).alias("f1")
    each = true.join(said, on=[*keys, "class"], how="left").with_columns(f1)
    base = each.filter(pl.col("setting") == reference).select("seed", "class", base="f1")
    gaps = each.join(base, on=["seed", "class"], how="left").with_columns(gap=pl.col("f1") - pl.col("base"))
    order = answers["setting"].unique(maintain_order=True)
    rows = []
    for (setting, name), part in gaps.group_by("setting", "class"):
        row: dict[str, Any] = {"setting": setting, "class": name, "f1": part["f1"].mean()}
        if setting != reference:
            gap = mean_interval(_numbers(part["gap"]))
            row |= {"difference": gap.mean, "low": gap.low, "high": gap.high}
        rows.append(row)
    place = {name: i for i, name in enumerate(order)}
    rows.sort(key=lambda row: (place[row["setting"]], row["class"]))
    return pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)


def _numbers(column: pl.Series) -> Tensor:
    return torch.tensor(column.cast(pl.Float64).fill_null(NAN).to_list(), dtype=torch.float64)


def _codes(column: pl.Series) -> Tensor:
    return torch.tensor(column.rank("dense").cast(pl.Int64).to_list(), dtype=torch.long)

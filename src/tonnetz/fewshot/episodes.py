"""Few-shot episodes: which rows support a class and which ask. Every draw is a function of its key, of nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonnetz.atomic import replacing
from tonnetz.errors import UserError, suggest

UNITS = ("clip", "track", "artist")
INSUFFICIENT = ("fail", "drop", "fewer")
KEYS = {"train": "task.plan.ways", "valid": "task.evaluation.valid_ways", "test": "task.evaluation.ways"}
MORE = "give it more classes (data.valid, data.test, data.fixed, data.split_level=1)"


@dataclass(frozen=True)
class Episodes:
    """Episodes as rows of a table; -1 stands for nothing, where classes or rows are fewer than the arrays hold.

    classes (E, C) are codes, support (E, C, S) and query (E, C, Q) rows, unknown (E, U, Q) rows of classes outside
    the episode.
    """

    classes: np.ndarray
    support: np.ndarray
    query: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def part(self, start: int, stop: int) -> Episodes:
        """Some of the episodes."""
        return Episodes(*(getattr(self, name)[start:stop] for name in ("classes", "support", "query", "unknown")))

    def fewer(self, shots: int) -> Episodes:
        """The same episodes with the first `shots` of each class's support."""
        return Episodes(self.classes, self.support[:, :, :shots], self.query, self.unknown)


class Pool:
    """The rows of a split by class, ready for drawing.

    Args:
        groups: class code of each row, (rows,); a row with a negative code is never drawn.
        units: code of what must not be on both sides of an episode (recording, artist), (rows,); null for nothing.
        names: of the classes, by code.
        related: (K, K) bool, classes that may not meet in an episode: one is above the other in the taxonomy.
    """

    def __init__(
        self,
        groups: np.ndarray,
        units: np.ndarray | None,
        names: Sequence[str],
        related: np.ndarray | None = None,
    ) -> None:
        self.groups, self.names = groups, tuple(names)
        self.related = related if related is not None and related.any() else None
        order = np.argsort(groups, kind="stable")
        codes, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
        found = zip(codes, first, counts, strict=True)
        self.rows = {int(c): order[a : a + n] for c, a, n in found if c >= 0}
        self.units: dict[int, np.ndarray] | None = None  # class -> unit of each of its rows, from 0
        if units is not None:
            self.units = {c: np.unique(units[rows], return_inverse=True)[1] for c, rows in self.rows.items()}

    def sufficient(
        self,
        shots: int,
        queries: int,
        ways: int,
        insufficient: str = "fail",
        again: bool = False,
        stage: str = "train",
    ) -> np.ndarray:
        """Codes of the classes that every draw can serve. Raises UserError, naming class and count, when they are few.

        `stage` (train, valid, test) is for the message.
        """
        short = self.lacking(shots, queries, insufficient, again)
        if short and insufficient == "fail":
            raise UserError(self._shortage(min(short, key=lambda c: len(self.rows[c])), shots, queries))
        fit = [code for code in self.rows if code not in short]
        if len(fit) < ways:
            remedy = f"take fewer ways or shots, or {MORE}" if len(fit) > 1 else MORE
            raise UserError(
                f"{KEYS[stage]}={ways}: the {stage} split has {_counted(len(fit), 'class', 'classes')} with enough "
                f"clips for {shots} shots and queries ({', '.join(self.names[c] for c in fit) or 'none'}); {remedy}"
            )
        return np.array(fit, np.int64)

    def lacking(self, shots: int, queries: int, insufficient: str = "fail", again: bool = False) -> list[int]:
        """Codes of the classes with too few clips for some draw.

        Of a class with units a draw takes whole units for the support until they hold `shots` rows, in the worst case
        shots - 1 and a largest unit. One clip suffices where clips are drawn `again`.
        """
        needed = shots + (1 if insufficient == "fewer" else queries)
        return [c for c, rows in self.rows.items() if not again and len(rows) - (self._largest(c) - 1) < needed]

    def dropped(self, shots: int, queries: int, insufficient: str, again: bool = False) -> dict[str, int]:
        """The classes that are in no episode, with their clips, which are too few; to `fail` names one instead."""
        if insufficient == "fail":
            return {}
        return {self.names[c]: len(self.rows[c]) for c in self.lacking(shots, queries, insufficient, again)}

    def _largest(self, code: int) -> int:
        return 1 if self.units is None else int(np.bincount(self.units[code]).max())

    def _shortage(self, code: int, shots: int, queries: int) -> str:
        count = len(self.rows[code])
        units = "" if self.units is None else f" of {int(self.units[code].max()) + 1} recordings or artists"
        return (
            f"class '{self.names[code]}' has {count} clips{units}, but an episode needs {shots} for support and "
            f"{queries} others as queries; lower task.plan.shots, task.plan.queries (or task.evaluation's), or "
            "leave such classes out: task.plan.insufficient=drop (fewer takes what there is)"
        )

    def draw(
        self,
        key: Sequence[int],
        fit: np.ndarray,
        ways: int,
        shots: int,
        queries: int,
        unknown: int = 0,
        again: bool = False,
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """One episode: class codes (ways,) in order, then rows of support, query and unknown classes, a list each.

        Rows are drawn without replacement, and no unit is on both sides; with `again` they are drawn with
        replacement and nothing is kept apart, as Music Trees does.
        """
        random = np.random.default_rng(list(key))
        chosen = self._classes(random, fit, ways + unknown)
        classes, others = np.sort(chosen[:ways]), chosen[ways:]
        sides = [self._sides(random, int(code), shots, queries, again) for code in (*classes, *others)]
        support = [side[0] for side in sides[:ways]]
        query = [side[1] for side in sides]
        return classes, support, query[:ways], query[ways:]

    def _classes(self, random: np.random.Generator, fit: np.ndarray, count: int) -> np.ndarray:
        order = random.permutation(fit)
        if self.related is None:
            return order[:count]
        chosen: list[int] = []
        for code in order:
            if not self.related[code, chosen].any():
                chosen.append(int(code))
        if len(chosen) < count:
            raise UserError(
                f"ways={count}: classes of this split lie above one another in the taxonomy, so only {len(chosen)} can "
                "meet in an episode; take fewer ways"
            )
        return np.array(chosen[:count])

    def _sides(
        self, random: np.random.Generator, code: int, shots: int, queries: int, again: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[code]
        if again:
            return random.choice(rows, shots), random.choice(rows, queries)
        order = random.permutation(len(rows))
        if self.units is None:
            return rows[order[:shots]], rows[order[shots : shots + queries]]
        unit = self.units[code][order]  # (n,) of the shuffled rows
        turn = random.permutation(int(unit.max()) + 1)[unit]  # (n,) place of its unit among the shuffled units
        sizes = np.bincount(turn)
        inside = np.cumsum(sizes)
        least = int(np.searchsorted(inside, shots)) + 1  # units that hold the support
        most = int(np.searchsorted(inside, len(rows) - queries, side="right"))  # units that leave enough queries
        share = round(len(sizes) * shots / (shots + queries))
        share = max(least, min(share, most))
        again_of_unit = _occurrence(unit)
        turns = np.lexsort((np.arange(len(rows)), again_of_unit))  # a row of every unit before the second of any
        side = turn[turns] < share
        return rows[order[turns[side][:shots]]], rows[order[turns[~side][:queries]]]


def left_out(split: str, dropped: Mapping[str, int], shots: int, queries: int, insufficient: str) -> str:
    """A line that names the classes of a split that are in no episode, with their clips."""
    others = "another" if insufficient == "fewer" else f"{queries} others"
    clips = ", ".join(f"{name} ({_counted(count, 'clip', 'clips')})" for name, count in dropped.items())
    return (
        f"{split}: in no episode, which takes {shots} for support and {others} as queries, no recording on both sides "
        f"(task.plan.insufficient={insufficient}): {clips}"
    )


def _counted(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _occurrence(values: np.ndarray) -> np.ndarray:
    """How many equal values stand before each, (n,)."""
    order = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.repeat(first, counts)
    return found


def draw_many(
    pool: Pool,
    count: int,
    ways: int,
    shots: int,
    queries: int,
    seed: int,
    part: int = 0,
    unknown: int = 0,
    again: bool = False,
    insufficient: str = "fail",
    stage: str = "train",
) -> Episodes:
    """Episodes 0 to count - 1 of (seed, part): each depends on its number alone."""
    fit = pool.sufficient(shots, queries, ways + unknown, insufficient, again, stage)
    found = [pool.draw([seed, part, i], fit, ways, shots, queries, unknown, again) for i in range(count)]
    return stack(found, queries)


def stack(
    found: Iterable[tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[np.ndarray]]], queries: int
) -> Episodes:
    """Episodes of unequal sizes as padded arrays."""
    classes, support, query, unknown = (list(values) for values in zip(*found, strict=True))
    ways = max(len(c) for c in classes)
    shots = max(len(rows) for side in support for rows in side)
    strange = max(len(side) for side in unknown)
    codes = np.full((len(classes), ways), -1)
    for line, values in zip(codes, classes, strict=True):
        line[: len(values)] = values
    return Episodes(
        codes, _pad(support, ways, shots), _pad(query, ways, queries), _pad(unknown, strange, queries if strange else 0)
    )


def _pad(sides: list[list[np.ndarray]], ways: int, size: int) -> np.ndarray:
    out = np.full((len(sides), ways, size), -1)
    for block, side in zip(out, sides, strict=True):
        for line, rows in zip(block, side, strict=False):
            line[: len(rows)] = rows
    return out


def save_episodes(episodes: Episodes, path: Path, ids: Sequence[str], names: Sequence[str]) -> None:
    """Write episodes as JSON Lines of clip ids, so that others can use the very same ones."""
    with replacing(path) as part, part.open("w") as file:
        for codes, support, query, unknown in zip(
            episodes.classes, episodes.support, episodes.query, episodes.unknown, strict=True
        ):
            line = {
                "classes": [names[c] for c in codes if c >= 0],
                "support": [[ids[r] for r in rows if r >= 0] for rows, c in zip(support, codes, strict=True) if c >= 0],
                "query": [[ids[r] for r in rows if r >= 0] for rows, c in zip(query, codes, strict=True) if c >= 0],
                "unknown": [[ids[r] for r in rows if r >= 0] for rows in unknown],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def load_episodes(path: str | Path, ids: Sequence[str], names: Sequence[str]) -> Episodes:
    """Read episodes that `save_episodes` wrote. Raises UserError for a clip or class that this split lacks."""
    place = {name: row for row, name in enumerate(ids)}
    code = {name: i for i, name in enumerate(names)}
    try:
        lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [_read(line, place, code) for line in lines]
    except OSError:
        raise UserError(f"{path}: no such list of episodes; job=episodes writes one") from None
    except LookupError as error:
        known = code if str(error.args[0]) in {c for line in lines for c in line.get("classes", ())} else place
        name = error.args[0]
        raise UserError(f"{path}: '{name}' is not in this split{suggest(str(name), list(known)[:1000])}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a list of episodes ({error}); job=episodes writes one") from None
    if not found:
        raise UserError(f"{path}: holds no episode; job=episodes writes a list")
    return stack(found, max(len(rows) for _, _, query, more in found for rows in (*query, *more)))


def _read(
    line: dict[str, list[list[str]]], place: dict[str, int], code: dict[str, int]
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    classes = np.array([code[str(name)] for name in line["classes"]])
    sides = [
        [np.array([place[name] for name in rows]) for rows in line[key]] for key in ("support", "query", "unknown")
    ]
    return classes, sides[0], sides[1], sides[2]

"""Splits and folds of works with several recordings: by recording, never by file or copy, and by whole works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tonnetz.errors import UserError
from tonnetz.tracks import SPLITS
from tonnetz.windows import counter

TRAIN, VALID, TEST = range(len(SPLITS))
LEAST, ENOUGH = 2, 6  # unseen works of a split, where so many are to share: one work alone is always found
KEPT = 2  # recordings of a seen work that stay in training: with fewer it has no pair to learn from


def split_works(
    frame: pl.DataFrame,
    valid: float = 0.0,
    test: float = 0.0,
    valid_unseen: float = 0.15,
    test_unseen: float = 0.15,
    seed: int = 0,
) -> pl.DataFrame:
    """Give every track without a split one: whole works that training never sees, and recordings of those it does.

    Unseen works: of the open works with two recordings or more (others have no pair to find), max(1, floor(fraction))
    go to test, then as many to valid, drawn at random; one at least stays for training. Of six or more a split that has
    one gets a second, if two stay for training: among versions of a single work there is nothing to confuse.
    Seen works: of n recordings max(1, floor(fraction x n)) go to test and to valid, as long as two stay in training.
    So works of one or two recordings are kept whole, and of three recordings one is held back, for either by lot.

    A recording is a group (column group) or a file: tracks that share either are one recording, and works that share
    a recording are one work here. Tracks that have a split keep it and lend it to their recording; a split that the
    corpus itself gives is not filled up. The result depends on the seed, not on the order of the rows.

    Args:
        frame: track table with columns id, work, group, path and split.
        valid, test: fractions of the recordings of each seen work.
        valid_unseen, test_unseen: fractions of the works.
        seed: the same seed gives the same split.
    """
    for what, a, b in (("", valid, test), ("_unseen", valid_unseen, test_unseen)):
        if not 0 <= a < 1 or not 0 <= b < 1 or a + b >= 1:
            raise UserError(
                f"data.valid{what}={a} data.test{what}={b}: fractions must be in [0, 1) and leave some for training"
            )
    recording, work = _units(frame)
    lent = frame.select("split").with_columns(code=recording).select(pl.col("split").max().over("code"))[:, 0]
    split = frame["split"].fill_null(lent)
    given, opened = set(split.drop_nulls()), split.is_null().to_numpy()
    if not opened.any():
        return frame.with_columns(split.alias("split"))
    _, first, place = np.unique(recording[opened], return_index=True, return_inverse=True)
    owner = work[opened][first]  # (recordings,) the work of each open recording
    pure = ~np.isin(owner, work[~opened])  # no recording of the work has a split
    wanted = [split for split in (TEST, VALID) if SPLITS[split] not in given]
    unseen, seen = {TEST: test_unseen, VALID: valid_unseen}, {TEST: test, VALID: valid}
    random = np.random.default_rng(seed)
    spare = 0 if "train" in given else 1
    result = _unseen_works(owner, pure, {split: unseen[split] for split in wanted}, spare, random)
    left = result < 0
    result[left] = _seen_recordings(owner[left], {split: seen[split] for split in wanted}, random)
    names = np.full(frame.height, None, object)
    names[opened] = np.array(SPLITS, object)[result[place]]
    return frame.with_columns(split.fill_null(pl.Series(names.tolist(), dtype=pl.String)).alias("split"))


def _unseen_works(
    owner: np.ndarray, pure: np.ndarray, fractions: dict[int, float], spare: int, random: np.random.Generator
) -> np.ndarray:
    """The split of recordings (N,) whose whole work is drawn, -1 for others.

    `owner` (N,) is their work, `pure` (N,) says whether all of it is open; `spare` fit works are left for training.
    """
    works, code, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    fit = np.flatnonzero((sizes >= 2) & (np.bincount(code, pure) == sizes))
    order, start = random.permutation(fit), 0
    drawn = np.full(len(works), -1)
    for split, fraction in fractions.items():
        end = min(start + int(_shares(fraction, np.array(len(fit)))), max(len(fit) - spare, 0))
        drawn[order[start:end]] = split
        start = max(start, end)
    for split in (split for split, fraction in fractions.items() if fraction > 0 and len(fit) >= ENOUGH):
        end = min(start + LEAST - int((drawn == split).sum()), len(fit) - LEAST * spare)
        drawn[order[start:end]] = split
        start = max(start, end)
    return drawn[code]


def _seen_recordings(owner: np.ndarray, fractions: dict[int, float], random: np.random.Generator) -> np.ndarray:
    """The split of recordings (N,) of seen works. `owner` (N,) is their work."""
    _, code, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    rank = _ranks(code, random)
    room = np.maximum(sizes - KEPT, 0)  # (works,)
    test, valid = (np.minimum(_shares(fractions.get(split, 0.0), sizes), room) for split in (TEST, VALID))
    test_first = random.random(len(sizes)) < 0.5  # the lot, where there is no room for both
    test = np.where(test_first, test, np.minimum(test, room - valid))
    valid = np.minimum(valid, room - test)
    return np.select([rank < test[code], rank < (test + valid)[code]], [TEST, VALID], TRAIN)


def _shares(fraction: float, counts: np.ndarray) -> np.ndarray:
    """max(1, floor(fraction x count)), or 0 when the fraction is 0."""
    shares = np.maximum(1, np.floor(fraction * counts + 1e-9)).astype(int)
    return shares if fraction > 0 else np.zeros_like(shares)


def kfold(frame: pl.DataFrame, k: int, seed: int = 0) -> pl.Series:
    """Return the column fold (0..k-1): recordings dealt out so that a work of 2k or more is in every fold.

    A smaller work is in as many as get two of its recordings: alone in a fold, a recording would find nothing. Parts of
    works go to the fold with the fewest recordings, those of works in many parts first, then the largest; tracks of one
    recording share its fold.
    """
    recording, work = _units(frame)
    _, first = np.unique(recording, return_index=True)
    owner = work[first]  # (recordings,)
    _check_folds(k, len(owner), "recordings")
    random = np.random.default_rng(seed)
    part = _parts(owner, k, random)  # (recordings,)
    _check_folds(k, part.max() + 1, "parts of works, of two recordings each")
    home, size = np.zeros(part.max() + 1, int), np.bincount(part)  # (parts,)
    home[part] = owner
    siblings = np.bincount(home)[home]  # (parts,) of the same work
    filled, taken = np.zeros(k), np.zeros((owner.max() + 1, k), bool)
    fold = np.empty(len(size), np.int64)
    for place in np.lexsort((random.random(len(size)), -size, -siblings)):
        full = filled + np.where(taken[home[place]], np.inf, 0.0)  # parts of a work go to different folds
        fold[place] = chosen = random.choice(np.flatnonzero(full == full.min()))
        filled[chosen] += size[place]
        taken[home[place], chosen] = True
    return pl.Series("fold", fold[part][recording])


def _parts(owner: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """The part (N,) of its work, numbered over all works, that each recording falls into; `owner` (N,) is its work.

    A work of n recordings has k parts, or n // 2 when these are fewer, of equal size (give or take one), at random.
    """
    sizes = np.bincount(owner)  # (works,)
    counts = np.clip(sizes // KEPT, 1, k)
    return (np.cumsum(counts) - counts)[owner] + _ranks(owner, random) % counts[owner]


def _ranks(owner: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The place (N,), drawn at random, of each recording within its work `owner` (N,)."""
    order = np.lexsort((random.random(len(owner)), owner))  # works together, shuffled inside
    rank = np.empty(len(owner), int)
    rank[order] = counter(owner[order], owner.max(initial=-1) + 1)
    return rank


def kfold_works(frame: pl.DataFrame, k: int, seed: int = 0) -> pl.Series:
    """Return the column fold (0..k-1) with every work in one fold alone.

    Works are dealt out from large to small, there and back: folds differ by no more recordings than the largest work.
    """
    recording, work = _units(frame)
    _, first = np.unique(recording, return_index=True)
    sizes = np.bincount(work[first])  # (works,) recordings
    _check_folds(k, len(sizes), "works")
    random = np.random.default_rng(seed)
    turn = np.arange(len(sizes)) % (2 * k)
    fold = np.empty(len(sizes), np.int64)
    fold[np.lexsort((random.random(len(sizes)), -sizes))] = np.minimum(turn, 2 * k - 1 - turn)
    return pl.Series("fold", fold[work])


FOLDED = ("recordings", "works", "table")


def fold_tracks(frame: pl.DataFrame, folds: int | None, fold: int | str, by: str, seed: int = 0) -> pl.DataFrame:
    """Deal the tracks of train and valid out to `folds` (column fold); number `fold` validates, the others train.

    ``fold="all"`` makes all of them train. Tracks of other splits stay as they are.
    """
    pool = frame["split"].is_in(["train", "valid"])
    if fold == "all":
        return frame.with_columns(split=pl.when(pool).then(pl.lit("train")).otherwise("split"))
    if folds is None or isinstance(fold, str) or not 0 <= fold < folds or by not in FOLDED:
        raise UserError(
            f"data.fold={fold} data.folds={folds} data.fold_by={by}: need a fold from 0 up to folds - 1 or all, and "
            f"one of {', '.join(FOLDED)}"
        )
    mine = frame.filter(pool)
    if by == "table":
        numbers = mine["fold"]
        if numbers.null_count() or not numbers.is_between(0, folds - 1).all():
            raise UserError(
                f"data.fold_by=table: the column fold must hold 0 to {folds - 1} for every track; correct it"
            )
    else:
        numbers = (kfold if by == "recordings" else kfold_works)(mine, folds, seed)
    dealt = np.full(frame.height, -1)
    dealt[pool.to_numpy()] = numbers.to_numpy()
    number = pl.Series("fold", dealt).replace(-1, None)
    split = pl.when(pool).then(pl.when(number == fold).then(pl.lit("valid")).otherwise(pl.lit("train")))
    return frame.with_columns(number, split=split.otherwise("split"))


def _check_folds(k: int, count: int, what: str) -> None:
    if not 2 <= k <= count:
        raise UserError(f"{k} folds of {count} {what}: choose from 2 up to the number of {what}")


def _units(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The recording and the work of each row, as two arrays (rows,) of codes from 0 that no order of rows changes.

    Rows of one group or one file are one recording. Rows of one recording or one work are one work, so works that
    share a recording are one; a row without a work is a work of its own.
    """
    if not frame.height:
        raise UserError("no tracks to split")
    recording = _together([_first_alike(frame["group"]), _first_alike(frame["path"])])
    work = _together([_first_alike(pl.Series(recording)), _first_alike(frame["work"])])
    key = frame.select(pl.concat_str("id", "path", "offset", separator="\n", ignore_nulls=True))[:, 0]
    return _in_order(recording, key), _in_order(work, key)


def _first_alike(values: pl.Series) -> np.ndarray:
    """For each row the first row with the same value; its own number where it has none."""
    frame = values.to_frame("value").with_row_index("own")
    first = pl.when(pl.col("value").is_null()).then("own").otherwise(pl.col("own").min().over("value"))
    return frame.select(first.cast(pl.Int64))[:, 0].to_numpy()


def _together(links: Sequence[np.ndarray]) -> np.ndarray:
    """Codes (rows,) of rows that hang together, where each of `links` names a row that a row belongs to."""
    count = len(links[0])
    left, right = np.tile(np.arange(count), len(links)), np.concatenate(links)
    graph = coo_array((np.ones(len(left), np.int8), (left, right)), (count, count))
    return connected_components(graph, directed=False)[1]


def _in_order(codes: np.ndarray, key: pl.Series) -> np.ndarray:
    """Codes renumbered by the least key of their rows."""
    least = pl.DataFrame({"code": codes, "key": key}).select(pl.col("key").min().over("code").rank("dense"))[:, 0]
    return least.to_numpy().astype(np.int64) - 1

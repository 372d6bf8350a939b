"""The embedded corpus: synthetic instruments, works and mixtures, generated from numbers on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tonnetz import synthesis
from tonnetz.atomic import replacing
from tonnetz.datasets.base import Corpus
from tonnetz.errors import UserError, suggest
from tonnetz.synthesis import INSTRUMENTS, Job, Score
from tonnetz.synthesis.player import key
from tonnetz.synthesis.render import written

PARTS = ("instruments", "works", "mixtures")
PLAYERS = 20  # of each instrument; they belong to one split each
HELD_OUT = 0.15  # share of players or works in each of valid and test

Item = tuple[dict[str, Any], Score]  # a row without its path, and what is to be heard


class Synthetic(Corpus):
    """Synthetic recordings with exact labels and notes.

    Args: root: folder to generate into; each set of parameters has a folder of its own below it. part:
    ``instruments`` (one label a clip; notes and short phrases; players of a split are in no other one),
    ``works`` (several versions of each work; works of a split are in no other one) or ``mixtures`` (two or
    three instruments at once, all of them labels). files: clips per instrument (in mixtures: about that many
    clips per instrument). seconds: length of a clip. works: number of works. versions: versions of each work.
    instruments: names to use, null for all; part=works always uses its own. sample_rate: of the files, in Hz.
    seed: another seed is another corpus. workers: processes that generate, 0 takes one a core; the files do
    not depend on it. split: put every file into this split; null keeps the corpus's own.
    """

    name: ClassVar[str] = "synthetic"

    def __init__(
        self,
        root: str | Path,
        part: str = "instruments",
        files: int = 60,
        seconds: float = 3.0,
        works: int = 60,
        versions: int = 6,
        instruments: Sequence[str] | None = None,
        sample_rate: int = 16000,
        seed: int = 0,
        workers: int = 0,
        split: str | None = None,
    ) -> None:
        super().__init__(root, split=split)
        self.part, self.files, self.seconds = part, files, float(seconds)
        self.works, self.versions, self.sample_rate, self.seed = works, versions, sample_rate, seed
        self.instruments = list(instruments) if instruments is not None else list(INSTRUMENTS)
        self._workers = workers
        self._check()
        self.multilabel = part != "instruments"

    def _check(self) -> None:
        """Raise UserError for values that no corpus can be made of."""
        if self.part not in PARTS:
            raise UserError(f"data.corpus.part={self.part}: no such part{suggest(self.part, PARTS)}")
        for name in self.instruments:
            if name not in INSTRUMENTS:
                raise UserError(f"data.corpus.instruments: unknown instrument {name}{suggest(name, INSTRUMENTS)}")
        if self.part == "mixtures" and len(set(self.instruments)) < 3:
            raise UserError("data.corpus.instruments: mixtures need three instruments or more; name more of them")
        for name, least in (
            ("files", 1),
            ("works", 1),
            ("versions", 1),
            ("seconds", 0.5),
            ("sample_rate", 8000),
        ):
            if getattr(self, name) < least:
                raise UserError(f"data.corpus.{name}={getattr(self, name)}: too small; give {least} or more")

    @property
    def key(self) -> str:
        """Folder name of what is prepared: the part and the fingerprint of place and parameters."""
        place = hashlib.blake2b(str(self.folder.resolve()).encode(), digest_size=4).hexdigest()
        return f"{self.name}-{self.part}-{place}"

    @property
    def folder(self) -> Path:
        """Where the files of these parameters and this version of the synthesiser lie."""
        return self.root / f"{self.part}-{self.fingerprint}"

    @property
    def fingerprint(self) -> str:
        """12 hex digits of all that the files depend on."""
        facts: dict[str, Any] = {
            "version": synthesis.VERSION,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "seed": self.seed,
        }
        if self.part == "works":
            facts |= {"works": self.works, "versions": self.versions}
        else:
            facts |= {"files": self.files, "instruments": self.instruments}
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=6).hexdigest()

    def fetch(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Generate the files that are missing; the index is written last, atomically."""
        index = self.folder / "index.jsonl"
        rows, jobs = [], []
        for row, score in self._items():
            path = self.folder / f"{row['id']}.wav"
            rows.append(row)
            jobs.append(Job(str(path), score, self.seconds, self.sample_rate, self.seed))
        made = synthesis.generate(jobs, self._workers, progress)
        if made or not index.exists():
            with replacing(index) as part:
                part.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tracks(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the index, with paths. Raises UserError when it has not been generated yet."""
        index = self.folder / "index.jsonl"
        if not index.exists():
            raise UserError(f"{index}: the synthetic corpus is not generated yet; call fetch first (job=prepare)")
        with index.open() as lines:
            for line in lines:
                row = json.loads(line)
                yield {**row, "path": str(self.folder / f"{row['id']}.wav")}

    def _items(self) -> Iterator[Item]:
        """All rows and scores of the part, in order."""
        makers = {"instruments": self._clips, "works": self._versions, "mixtures": self._mixtures}
        yield from makers[self.part]()

    def _clips(self) -> Iterator[Item]:
        """Clip i of an instrument is played by player i mod P, so that every split has all players' share."""
        players = min(PLAYERS, self.files)
        splits = assign(players)
        for name in self.instruments:
            for index in range(self.files):
                who = index % players
                score = synthesis.clip(name, index, who, seconds=self.seconds, seed=self.seed)
                artist = f"{name}-{who:02d}"
                row = _row(f"{name}/{index:04d}", score, splits[who])
                yield {**row, "artist": artist, "group": artist}, score

    def _versions(self) -> Iterator[Item]:
        """Versions of a work share a split: covers are found among works never seen in training."""
        splits = assign(self.works)
        for number in range(self.works):
            for index in range(self.versions):
                score, plain = synthesis.version_score(number, index, seconds=self.seconds, seed=self.seed)
                how = synthesis.version(number, index, self.seed)
                name = f"work-{number:04d}"
                facts = {
                    "work": name,
                    "group": name,
                    "artist": f"{how.instrument}-{how.who:02d}",
                    "lead": how.instrument,
                    "key_shift": how.key_shift,
                    "tempo": round(how.tempo, 2),
                    "form": how.form,
                    "start_beat": how.start,
                    "ornament": how.ornament,
                    "melody": written(plain),
                }
                yield {**_row(f"{name}/{index:02d}", score, splits[number]), **facts}, score

    def _mixtures(self) -> Iterator[Item]:
        """Two or three instruments a clip, dealt from shuffled decks so that all are heard about equally
        often.
        """
        total = max(1, round(self.files * len(self.instruments) / 2.5))
        splits = assign(total)
        pool = {split: [p for p, s in enumerate(assign(PLAYERS)) if s == split] for split in ("train", "valid", "test")}
        rng = np.random.default_rng([self.seed, key("deck")])
        deck: list[str] = []
        for index in range(total):
            count = int(rng.integers(2, 4))
            names: list[str] = []
            while len(names) < count:
                deck = deck or [str(name) for name in rng.permutation(sorted(set(self.instruments)))]
                card = next((name for name in deck if name not in names), None)
                if card is None:  # what is left in the deck sounds already: shuffle a new one
                    deck = []
                    continue
                deck.remove(card)
                names.append(card)
            players = [int(rng.choice(pool[splits[index]])) for _ in names]
            score = synthesis.mixture(names, players, index, seconds=self.seconds, seed=self.seed)
            yield _row(f"mixture/{index:05d}", score, splits[index]), score


def assign(count: int) -> list[str]:
    """Splits of `count` players, works or files: 70/15/15, at least one of each where there are three or
    more.
    """
    held = max(1, round(HELD_OUT * count)) if count >= 3 else 0
    return ["train"] * (count - 2 * held) + ["valid"] * held + ["test"] * held


def _row(name: str, score: Score, split: str) -> dict[str, Any]:
    """The columns that all parts share."""
    return {
        "id": name,
        "labels": score.labels,
        "split": split,
        "work": None,
        "artist": None,
        "group": None,
        "notes": score.notes,
    }

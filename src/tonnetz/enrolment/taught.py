"""Classes that a user taught by a few examples: the prototypes file, and what it says of new vectors.

The file is safetensors: `vectors` (N, D), one mean vector an example, `windows` (M, D) of which these are the means,
`row` (M,) the example of each window, and where the task keeps them `center` (D,), the mean of training, and
`background.mean`, `.matrix` and `.variance`, how training classes lie (`tonnetz.fewshot.background`). The key `tonnetz`
of its header is JSON: format, what the vectors were made with, the classes and the examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tonnetz.atomic import replacing
from tonnetz.enrolment.examples import Example
from tonnetz.enrolment.lineage import Place, families, lines, nearest_family, place_of, some, table
from tonnetz.enrolment.measure import Measure
from tonnetz.enrolment.novelty import ACCEPT, Limit, chosen, threshold
from tonnetz.errors import UserError, suggest
from tonnetz.fewshot.background import Background
from tonnetz.heads import BDCSPN, KNN, TIM, BaselinePP, Head, LogisticRegression, SimpleShot
from tonnetz.metrics.openset import back_off
from tonnetz.taxonomy import Taxonomy
from tonnetz.windows import mean_by_row

FORMAT = 1
OWN = "own"  # the head of the file's measure
HEADS: dict[str, Callable[[], Head]] = {  # others, by the names that they have in a test
    "simpleshot_l2": lambda: SimpleShot("l2"),
    "simpleshot_cl2": lambda: SimpleShot("cl2"),
    "logistic": LogisticRegression,
    "baselinepp": BaselinePP,
    "knn": KNN,
    "bdcspn": BDCSPN,
    "tim": TIM,
}
LIKE = 1e-3  # distance of vectors of unit length below which two examples are one
NEAR = 0.75  # of the spread of their examples: prototypes nearer than that nearly coincide
UNKNOWN, UNSURE = "unknown", "unsure"
LIE = "background."  # tensors of the file that say how training classes lie


@dataclass(frozen=True)
class Answers:
    """What M vectors are: tensors (M,), and names."""

    label: Tensor  # the likeliest class
    probability: Tensor  # of that class
    distance: Tensor  # to the nearest prototype
    novelty: Tensor  # to the class that it is least new to
    unknown: Tensor  # too new to all
    level: Tensor  # of the node that is sure enough, 0 the class; the number of levels when none is
    node: list[str]  # its name; "" for none
    text: list[str]  # class, "some bowed lute", "unsure" or "unknown"


class Enrolment:
    """Classes by their examples; never changed, `add` and `remove` return another one.

    Args:
        facts: what made the vectors: encoder and frontend (fingerprints), window and hop in seconds, pad, normalize,
            segment, segment_hop; measure (keys of `Measure`); tree, the name of a taxonomy or None.
        places: the classes, in the order of their names.
        examples: files (N).
        vectors: (N, D) float32, one an example.
        windows, row: (M, D) and (M,) the windows of the examples.
        center: (D,) mean of training, for heads that subtract it.
        background: how training classes lie, for likelihood ratios.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        places: Sequence[Place],
        examples: Sequence[Example],
        vectors: Tensor,
        windows: Tensor,
        row: Tensor,
        center: Tensor | None = None,
        background: Background | None = None,
    ) -> None:
        self.facts, self.places, self.examples = facts, list(places), list(examples)
        self.vectors, self.windows, self.row, self.center = vectors, windows, row, center
        self.background = background
        self.names = [place.name for place in self.places]
        self.code = torch.tensor([self.names.index(e.label) for e in self.examples], dtype=torch.long)  # (N,)
        self.count = torch.bincount(self.code, minlength=len(self.names))  # (C,)
        self.measure = Measure(**facts["measure"])
        self.tree = Taxonomy.load(facts["tree"]) if facts["tree"] else None
        self.levels, self.nodes = table(lines(self.places, self.tree))  # (C, L), names from C on

    # --- making

    @classmethod
    def build(
        cls,
        facts: dict[str, Any],
        examples: Sequence[Example],
        windows: Tensor,
        row: Tensor,
        attach: bool = True,
        center: Tensor | None = None,
        background: Background | None = None,
    ) -> Enrolment:
        """Learn the classes of examples from the vectors of their windows (M, D), `row` (M,) counting examples.

        A class whose name the tree lacks hangs below the family whose prototype is nearest, or stands alone with
        `attach` off. Raises UserError for fewer than two classes.
        """
        empty = cls(facts, [], [], windows[:0], windows[:0], row[:0], center, background)
        return empty.add(examples, windows, row, attach)

    def add(self, examples: Sequence[Example], windows: Tensor, row: Tensor, attach: bool = True) -> Enrolment:
        """With more examples, of new classes or of old ones; see `build`. What was there stays as it is."""
        joined = [*self.examples, *examples]
        fresh = sorted({e.label for e in examples} - {*self.names})
        places = sorted([*self.places, *(place_of(name, self.tree) for name in fresh)], key=lambda p: p.name)
        if len(places) < 2:
            raise UserError(f"one class alone ({places[0].name}) tells nothing apart; give examples of two or more")
        vectors = torch.cat([self.vectors, mean_by_row(windows, row, len(examples))])
        windows, row = torch.cat([self.windows, windows]), torch.cat([self.row, row + len(self.examples)])
        found = self._like(places, joined, vectors, windows, row)
        return found._attached(fresh) if attach and found.tree else found

    def _attached(self, fresh: Sequence[str]) -> Enrolment:
        """The same with new classes of no place under their nearest families."""
        assert self.tree is not None
        homes = families(self.places, self.tree)
        wanted = [i for i, place in enumerate(self.places) if place.name in fresh and not place.node]
        if not homes or not wanted:
            return self
        member = torch.zeros(len(homes), len(self.names), dtype=torch.bool)
        for i, classes in enumerate(homes.values()):
            member[i, classes] = True
        family = self.measure.prototypes(self.prototypes, member)  # (families, D)
        away = self.measure.away(self.prototypes[wanted], family).tolist()
        places = list(self.places)
        for i, distances in zip(wanted, away, strict=True):
            places[i] = nearest_family(self.names[i], dict(zip(homes, distances, strict=True)))
        return self._like(places, self.examples, self.vectors, self.windows, self.row)

    def _like(
        self, places: Sequence[Place], examples: Sequence[Example], vectors: Tensor, windows: Tensor, row: Tensor
    ) -> Enrolment:
        """Other classes and examples, made alike."""
        return Enrolment(self.facts, places, examples, vectors, windows, row, self.center, self.background)

    def remove(self, names: Sequence[str]) -> Enrolment:
        """Without classes. Raises UserError for one that is not there, and when fewer than two are left."""
        for name in names:
            if name not in self.names:
                raise UserError(f"job.names: no class '{name}'{suggest(name, self.names)}")
        places = [place for place in self.places if place.name not in names]
        if len(places) < 2:
            raise UserError(f"job.names: {len(places)} classes would be left; two or more must stay")
        kept = torch.tensor([e.label not in names for e in self.examples])
        windows = kept[self.row]
        row = (kept.cumsum(0) - 1)[self.row[windows]]
        examples = [e for e in self.examples if e.label not in names]
        return self._like(places, examples, self.vectors[kept], self.windows[windows], row)

    # --- on disk

    @classmethod
    def load(cls, path: str | Path, encoder: str | None = None, frontend: str | None = None) -> Enrolment:
        """Read a prototypes file. Raises UserError when it is missing, broken, foreign, or made with another encoder or
        front-end than the fingerprints given."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such prototypes file; make one with job=enroll job.prototypes={path}")
        try:
            with safe_open(path, "pt") as file:
                meta = (file.metadata() or {}).get("tonnetz")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: cannot be read as prototypes ({error}); make it anew with job=enroll") from None
        found = cls._parsed(path, meta, tensors)
        found.check(path, encoder, frontend)
        return found

    @classmethod
    def _parsed(cls, path: Path, meta: str | None, tensors: dict[str, Tensor]) -> Enrolment:
        if meta is None:
            raise UserError(f"{path}: is no prototypes file; make one with job=enroll")
        try:
            head = json.loads(meta)
            if head["format"] != FORMAT:
                raise UserError(f"{path}: format {head['format']} is not known to this version; make it anew")
            places = [Place(c["name"], c["node"], c["attached"]) for c in head["classes"]]
            examples = [Example(**example) for example in head["examples"]]
            vectors, windows, row = (tensors[name] for name in ("vectors", "windows", "row"))
            lie = {name.removeprefix(LIE): value for name, value in tensors.items() if name.startswith(LIE)}
            background = Background.of(lie) if lie else None
            found = cls(head["facts"], places, examples, vectors, windows, row, tensors.get("center"), background)
            if len(found.vectors) != len(examples) or len(found.windows) != len(found.row):
                raise ValueError("examples and vectors differ in number")
            return found
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: the prototypes are broken ({error}); make them anew with job=enroll") from None

    def check(self, path: str | Path, encoder: str | None, frontend: str | None) -> None:
        """Raise UserError when another encoder or front-end made the vectors; None is not compared."""
        for name, value in (("encoder", encoder), ("frontend", frontend)):
            if value is not None and self.facts[name] != value:
                raise UserError(
                    f"{path}: was made with {name} {self.facts[name]}, the checkpoint's is {value}; "
                    "take the checkpoint it was made with, or enroll anew"
                )

    def save(self, path: str | Path) -> None:
        """Write the file, all of it or nothing."""
        tensors = {"vectors": self.vectors, "windows": self.windows, "row": self.row}
        tensors |= {"center": self.center} if self.center is not None else {}
        lie = self.background.tensors() if self.background is not None else {}
        tensors |= {LIE + name: value for name, value in lie.items()}
        with replacing(path) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"tonnetz": json.dumps(self.describe())})

    def describe(self) -> dict[str, Any]:
        """Everything but the vectors, as the header of the file holds it."""
        accuracy, spread = self.accuracy.tolist(), self.spread.tolist()
        classes = [
            {**asdict(place), "count": int(self.count[i]), "accuracy": _known(accuracy[i]), "spread": _known(spread[i])}
            for i, place in enumerate(self.places)
        ]
        limits: dict[str, Any] = {kind: asdict(self.limit(kind)) for kind in ("file", "window")}
        return {
            "format": FORMAT,
            "facts": self.facts,
            "accuracy": _known(float(self.right[self.shared].double().mean())),
            "reject": {
                **limits,
                "novelty": self.judged(None),
                "how": f"{ACCEPT:.0%} of left-out examples are less novel",
            },
            "classes": classes,
            "examples": [asdict(example) for example in self.examples],
        }

    # --- what examples say of each other

    @cached_property
    def points(self) -> Tensor:
        """The examples (N, D) where they are compared."""
        return self.measure.points(self.vectors)

    @cached_property
    def prototypes(self) -> Tensor:
        """One point (C, D) a class."""
        return self.measure.prototypes(self.points, self.code == torch.arange(len(self.names))[:, None])

    @cached_property
    def left_out(self) -> Tensor:
        """Distances (N, C) of each example from the prototypes without it; infinite to a class it was alone in."""
        rows = torch.arange(len(self.code))
        return self.measure.left_out(self.points, self.code, len(self.names), self.points, rows)

    @property
    def shared(self) -> Tensor:
        """Which examples (N,) are not alone in their class: only these can be left out."""
        return self.count[self.code] > 1

    @property
    def right(self) -> Tensor:
        """Which examples (N,) are recognised when left out."""
        return self.left_out.argmin(1) == self.code

    @property
    def accuracy(self) -> Tensor:
        """Share (C,) of right left-out examples; NaN for a class with one example."""
        right = torch.bincount(self.code, self.right.double(), len(self.names)) / self.count
        return right.masked_fill(self.count < 2, torch.nan)

    @property
    def spread(self) -> Tensor:
        """Mean distance (C,) of left-out examples from their own prototype; NaN for a class with one example."""
        own = self.left_out.gather(1, self.code[:, None])[:, 0]
        return (torch.bincount(self.code, own, len(self.names)) / self.count).masked_fill(self.count < 2, torch.nan)

    @cached_property
    def left_out_windows(self) -> Tensor:
        """The same (M, C) for the windows of each example."""
        asked = self.measure.points(self.windows)
        return self.measure.left_out(self.points, self.code, len(self.names), asked, self.row)

    def judged(self, novelty: str | None) -> str:
        """How novelty is measured here; see `tonnetz.enrolment.novelty.chosen`."""
        return chosen(novelty, self.background is not None)

    def novelties(self, vectors: Tensor, novelty: str | None = None) -> Tensor:
        """How new vectors (M, D) are to each class, (M, C): small is kin. Float64.

        By ``ratio`` minus the log-likelihood ratio of "this class" against "any class at all", by ``distance`` the
        distance of the prototype.
        """
        if self.background is None or self.judged(novelty) == "distance":
            return self.distances(vectors)
        return -self.background.ratios(vectors, self._means, self.count)

    @cached_property
    def _means(self) -> Tensor:
        """Mean vector (C, D) of the examples of each class, float64."""
        total = self.vectors.new_zeros(len(self.names), self.vectors.shape[1], dtype=torch.double)
        return total.index_add(0, self.code, self.vectors.double()) / self.count[:, None]

    def left_out_novelties(self, kind: str = "file", novelty: str | None = None) -> Tensor:
        """How new each example (N, C) is without it, or each window of it (M, C); infinite to what it was alone in."""
        whole = kind == "file"
        if self.background is None or self.judged(novelty) == "distance":
            return self.left_out if whole else self.left_out_windows
        asked, row = (self.vectors, torch.arange(len(self.code))) if whole else (self.windows, self.row)
        code, others = self.code[row], self.count[self.code[row]] - 1  # (M,)
        rest = (self._means * self.count[:, None])[code] - self.vectors[row].double()
        rest = rest / others.clamp(min=1)[:, None]  # (M, D)
        own = -self.background.ratios(asked[:, None], rest[:, None], others[:, None])[:, 0]  # (M, 1)
        return self.novelties(asked, novelty).scatter(1, code[:, None], own.masked_fill(others[:, None] < 1, torch.inf))

    def limit(self, kind: str = "file", accept: float = ACCEPT, novelty: str | None = None) -> Limit:
        """The reject threshold of a ``file``, or of a ``window``, which is more novel.

        The novelty below which the share `accept` of the left-out examples stay; of windows, each counts as its share
        of its example, so that long ones do not settle it alone.
        """
        away = self.left_out_novelties(kind, novelty)
        row = torch.arange(len(self.code)) if kind == "file" else self.row
        weight = self.shared.double()[row] / torch.bincount(row)[row]
        kept = weight > 0
        return threshold(away[kept], self.code[row][kept], weight[kept] / weight.sum(), accept)

    def warnings(self) -> list[str]:
        """What is doubtful about the classes: too few or repeated examples, prototypes that nearly coincide."""
        few = [
            f"{name}: has one example; give two or more"
            for name, n in zip(self.names, self.count, strict=True)
            if n < 2
        ]
        return few + self._repeated() + self._close()

    def _repeated(self) -> list[str]:
        z = torch.nn.functional.normalize(self.vectors, dim=-1)
        same = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist") < LIKE
        found = []
        for i, j in torch.triu(same, 1).nonzero().tolist():
            a, b = self.examples[i], self.examples[j]
            kind = "is the same file as" if a.mark == b.mark else "sounds just like"
            found.append(f"{b.file}: {kind} {a.file}" + (f" of class {a.label}" if a.label != b.label else ""))
        return found

    def _close(self) -> list[str]:
        away = self.measure.away(self.prototypes, self.prototypes)
        spread = self.spread
        both = (spread[:, None] + spread) / 2  # NaN for classes with one example
        power = 2 if self.measure.distance in ("squared", "cosine") else 1  # these grow with the square of the way
        near = torch.triu(away < NEAR**power * both, 1)
        return [
            f"{self.names[i]} and {self.names[j]}: their prototypes nearly coincide; give other examples, or join them"
            for i, j in near.nonzero().tolist()
        ]

    # --- what new vectors are

    def distances(self, vectors: Tensor) -> Tensor:
        """Distances (M, C) of vectors (M, D) from the prototypes, float64."""
        return self.measure.away(self.measure.points(vectors), self.prototypes)

    def scores(self, vectors: Tensor, head: str = OWN) -> Tensor:
        """Scores (M, C) of vectors (M, D), whose softmax is a probability, by the file's measure or another head.

        Raises UserError for a head that is unknown, or that needs a mean of training that the task did not keep.
        """
        if head == OWN:
            return -self.measure.scale * self.distances(vectors)
        support, mask = self._grid()
        return head_of(head)(support, mask, vectors[None].float(), self.center)[0].double()

    def _grid(self) -> tuple[Tensor, Tensor]:
        """Examples as the support (1, C, S, D) of an episode, and which of them there are."""
        order = self.code.argsort(stable=True)
        code = self.code[order]
        number = torch.arange(len(code)) - (self.count.cumsum(0) - self.count)[code]
        grid = self.vectors.new_zeros(len(self.names), int(self.count.max()), self.vectors.shape[1])
        mask = torch.zeros(grid.shape[:2], dtype=torch.bool)
        grid[code, number], mask[code, number] = self.vectors[order], True
        return grid[None], mask[None]

    def decide(
        self, prob: Tensor, distance: Tensor, novelty: Tensor, limit: float | None, mass: float = 0.5
    ) -> Answers:
        """Answers from probabilities, distances and novelties (M, C): above `limit` unknown, else the lowest sure node.

        mass: of the probability, more than which a sure node's classes have together.
        """
        best, label = prob.max(1)
        newest = novelty.min(1).values
        unknown = newest > limit if limit is not None else torch.zeros_like(newest, dtype=torch.bool)
        level, node = back_off(prob, self.levels, mass)
        named = [self.name(i) for i in node.tolist()]
        inner = (node >= len(self.names)).tolist()
        text = [some(name) if up else name or UNSURE for name, up in zip(named, inner, strict=True)]
        text = [UNKNOWN if far else word for far, word in zip(unknown.tolist(), text, strict=True)]
        return Answers(label, best, distance.min(1).values, newest, unknown, level, named, text)

    def name(self, code: int) -> str:
        """The name of a class or node of `levels`; "" for -1."""
        return [*self.names, *self.nodes][code] if code >= 0 else ""

    def family(self, label: int, prob: Tensor) -> list[tuple[str, float]]:
        """A class and the nodes above it with their probabilities, of prob (C,), nearest first."""
        codes = list(dict.fromkeys(self.levels[label].tolist()))
        share = (self.levels[..., None] == torch.tensor(codes)).any(1)  # (C, nodes)
        return list(zip(map(self.name, codes), (prob @ share.to(prob)).tolist(), strict=True))


def head_of(name: str) -> Head:
    """A head by its name. Raises UserError for an unknown one."""
    if name not in HEADS:
        raise UserError(f"job.head={name}: is unknown{suggest(name, [OWN, *HEADS])}")
    return HEADS[name]()


def _known(value: float) -> float | None:
    return None if value != value else round(value, 6)

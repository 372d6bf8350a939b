"""Few-shot recognition: prototypes of classes that training never saw, and of the nodes above them in a taxonomy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tonnetz.baseline import mfcc_statistics
from tonnetz.errors import UserError
from tonnetz.fewshot.background import Background
from tonnetz.fewshot.episodes import MORE, Episodes, Pool, left_out
from tonnetz.fewshot.judging import Ladder, by_origin, chance, measures
from tonnetz.fewshot.protocol import Protocol, answer, gather, parts_of
from tonnetz.fewshot.report import head_rows, outline, show_heads, write_space, write_tables
from tonnetz.fewshot.whitening import Whitening
from tonnetz.heads import SimpleShot
from tonnetz.metrics.vectors import Vectors
from tonnetz.tasks.base import Batch, Task
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import recordings
from tonnetz.windows import mean_by_row

OWN = "prototypes"  # the head that a model is trained with
NOTHING = "nothing"  # a split that has no tracks
SPRITE = 32  # pixels of a side
CLIPS = 2000  # training clips that whitening and the MFCC baseline look at, at most


class FewShot(Task):
    """Encoder, pooling, projection; classes are learned from a few examples at a time.

    Args:
        pooling: frames to one vector.
        loss: of episodes, see `tonnetz.losses.Prototypes`.
        dim: size of the vectors after a linear projection; null has none.
        tree: taxonomy that the loss climbs: a packaged name (also scrambled:3, random:3), a file, or null for none.
        classifier: weight of an auxiliary cross-entropy over all training classes.
        whiten: shrinkage of a within-class whitening of the vectors, learned from training clips before every
            evaluation and kept with the weights, see `tonnetz.fewshot.whitening`; null has none.
        evaluation: how the model is judged.
        heads: classifiers by name that are compared on its embeddings in a test; beside its own prototypes.
        plan: belongs to the data; named here because the task chooses it.
    """

    monitor: ClassVar[str] = "valid/accuracy"
    mode: ClassVar[str] = "max"
    score: ClassVar[str] = "accuracy"
    curves: ClassVar[tuple[str, ...]] = ("valid/accuracy", "valid/macro_f1")
    paths: Tensor
    center: Tensor
    center_steps: Tensor

    def __init__(
        self,
        *,
        pooling: nn.Module,
        loss: nn.Module,
        dim: int | None = None,
        tree: str | None = "hornbostel_sachs",
        classifier: float = 0.0,
        whiten: float | None = None,
        evaluation: Protocol | None = None,
        heads: Mapping[str, Any] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if getattr(loss, "kind", "") != "episodes":
            raise UserError("task=fewshot needs a loss on episodes: loss=prototypes")
        if classifier < 0 or (dim is not None and dim < 1):
            raise UserError(f"task.classifier={classifier} task.dim={dim}: need 0 or more, and 1 or more or null")
        self.pooling, self.criterion = pooling, cast(Any, loss)
        size = cast(int, pooling.out_dim)
        self.projection = nn.Linear(size, dim) if dim else nn.Identity()
        self.dim = dim or size
        self.whitening = Whitening(self.dim, whiten)
        self.background = None if whiten is None else Background(self.dim)  # for job=enroll
        self.protocol = evaluation or Protocol()
        self.heads = {name: head for name, head in (heads or {}).items() if head is not None}
        self.classifier, self.tree = classifier, tree
        self.head = nn.Linear(self.dim, len(self.spec.groups)) if classifier else None
        self.register_buffer("paths", self._paths(tree), persistent=False)  # (K, L) nodes from the class upwards
        self.criterion.grow(self.paths.shape[1])
        if self.criterion.aggregate.attention is not None and (whiten is not None or not self.criterion.heights):
            raise UserError(
                "loss.aggregate=learned: learns from the nodes above classes, and from vectors that are not whitened; "
                "take loss.height=1 or more with a task.tree, and task.whiten=null"
            )
        self.register_buffer("center", torch.zeros(self.dim))  # mean embedding in training, for heads
        self.register_buffer("center_steps", torch.zeros((), dtype=torch.long))
        self.vectors = nn.ModuleDict({stage: Vectors(self.dim) for stage in ("valid", "test")})
        self.dropped: dict[str, dict[str, int]] | None = None  # split -> class -> clips, of classes with too few
        self.sprites: dict[int, Tensor] = {}  # row of the test -> its first window, (1, SPRITE, SPRITE)

    def _paths(self, tree: str | None) -> Tensor:
        names = list(self.spec.groups)
        if tree is None:
            return torch.arange(len(names))[:, None]
        taxonomy = Taxonomy.load(tree)
        return torch.from_numpy(taxonomy.levels(taxonomy.resolve_all(names, "task.tree")))

    # --- vectors

    def forward(self, batch: Batch) -> Tensor:
        """One vector an excerpt as training sees it, (B, D)."""
        hidden, mask = self.encoder(batch)
        return self.projection(self.pooling(hidden, mask))

    def embed(self, batch: Batch) -> Tensor:
        """One vector an excerpt as everything else sees it, (B, D): whitened, where that is asked for."""
        return self.whitening(self(batch))

    def tail(self) -> nn.Module:
        """Projection and whitening."""
        return nn.Sequential(self.projection, self.whitening.plain())

    # --- training

    def loss(self, batch: Batch) -> Tensor:
        """The criterion on the episodes of the batch."""
        return self.compare(self(batch), batch)

    def compare(self, z: Tensor, batch: Batch) -> Tensor:
        """Loss of the embeddings z (B, D) of a batch of episodes."""
        self._follow(z)
        loss = self.criterion(*episode_grid(z, batch), self._nodes(batch))
        for name, part in self.criterion.last.items():
            self.log(f"train/{name}", part, batch_size=len(z))
        if self.head is not None:
            loss = loss + self.classifier * F.cross_entropy(self.head(z), batch["group"])
        return loss

    def _nodes(self, batch: Batch) -> Tensor:
        """Nodes (E, C, L) above the classes of each episode; -1 where an episode has fewer classes."""
        e, slot, code = batch["episode"], batch["slot"], batch["group"]
        classes = torch.full((int(e.max()) + 1, int(slot.max()) + 1), -1, device=code.device)
        classes[e, slot] = code
        return self.paths[classes.clamp(min=0)].masked_fill((classes < 0)[..., None], -1)

    @torch.no_grad()
    def _follow(self, z: Tensor) -> None:
        """Keep the mean embedding of training as an average that soon forgets the untrained network."""
        if not self.training:
            return
        self.center_steps += 1
        share = torch.clamp(10.0 / (self.center_steps + 9), min=0.01)
        self.center.lerp_(z.detach().float().mean(0), share)

    # --- evaluation

    def check(self, data: Any) -> None:
        """Raise UserError when a split has too few classes or clips for its episodes."""
        for split in ("valid", "test"):
            if data.split(split).height:
                self.protocol.check(data.pool(split), split, data.plan.insufficient, data.plan.replacement)
        self.dropped = self._dropped(data, ("train", "valid", "test"))
        if data.split("valid").height:
            self._check_choice(data)
        self.payload["selected_on"] = self._chosen_by(data.select)

    def _check_choice(self, data: Any) -> None:
        """Let a validation that could not be wrong choose nothing, as if it were not there."""
        plan = data.plan
        how = {"insufficient": plan.insufficient, "again": plan.replacement}
        found = self.protocol.usable(data.pool("valid"), "valid", **how)
        if found < 2:
            data.select = NOTHING
            one = "1 class" if found == 1 else "no class"
            print(
                f"validation has {one} with enough clips and needs two: it chooses nothing, and the last checkpoint is "
                f"tested; {MORE}"
            )
        elif not self.protocol.valid_ways and found < self.protocol.ways:
            print(f"validation has {found} classes: its episodes are {found}-way")

    def _dropped(self, data: Any, splits: Sequence[str]) -> dict[str, dict[str, int]]:
        """Classes by split that are left out of episodes, with their clips; a line tells of each split."""
        plan, found = data.plan, {}
        sizes = {"train": (int(np.max(plan.shots)), plan.queries)} if "test" in splits else {}
        for split in splits:
            if self.protocol.file and split == self.tested:
                continue
            shots, queries = sizes.get(split) or self.protocol.sizes(split)
            short = data.pool(split).dropped(shots, queries, plan.insufficient, plan.replacement)
            if short:
                found[split] = short
                print(left_out(split, short, shots, queries, plan.insufficient))
        return found

    def facts(self, data: Any) -> dict[str, Any]:
        """By which rules episodes were drawn, which classes they lack, and by what the checkpoint was chosen."""
        plan = data.plan
        chosen = self._chosen_by(self.payload.get("selected_on"))  # not what this run's `data` says
        protocol = {"selected_on": chosen, "replacement": plan.replacement, "disjoint": plan.disjoint}
        protocol |= {"insufficient": plan.insufficient, "dropped": self.dropped}
        return {"protocol": protocol | asdict(self.protocol)}

    def _chosen_by(self, split: str | None) -> str | None:
        """The split that was to choose the checkpoint; null where it had no tracks, or less than two classes."""
        spec = self.spec
        classes = [name for name, place in spec.partition.items() if place == split]
        nothing = spec.tracks and (not spec.tracks.get(split or NOTHING) or (spec.partition and len(classes) < 2))
        return None if nothing else split

    def on_validation_start(self) -> None:
        """Learn the whitening of these weights."""
        if self.whitening.shrinkage is not None:
            self._learn_base()

    def on_train_epoch_end(self) -> None:
        """The same where nothing validates, so that the checkpoint has it."""
        if self.whitening.shrinkage is None or any(self.trainer.num_val_batches):
            return
        training = [module for module in self.modules() if module.training]
        self.settle()
        for module in training:
            module.training = True

    def settle(self) -> None:
        """Learn the whitening of a network as it is."""
        self.eval()
        self._learn_base()

    def on_test_start(self) -> None:
        """Learn from training clips what no validation and no training step did."""
        self.sprites.clear()
        if self.dropped is None:  # a test of its own, without training
            self.dropped = self._dropped(self.data, (self.tested,))
        if not (self.whitening.fitted if self.whitening.shrinkage is not None else self.center_steps):
            self._learn_base()

    @torch.no_grad()
    def _learn_base(self) -> None:
        """Whitening and mean of training clips: of the corpus that is judged, not of those added for training."""
        frame = self.data.split("train")
        own = frame.filter(pl.col("given").is_null())
        frame = own if own["class"].n_unique() > 1 else frame
        if not frame.height:  # a checkpoint on other data, that has no training clips
            return
        frame = frame.sample(min(frame.height, CLIPS), seed=0)
        parts, rows = [], []
        for batch in self.data.windows_of(frame):
            parts.append(self({key: value.to(self.device) for key, value in batch.items()}).float())
            rows.append(batch["row"])
        z, row = torch.cat(parts), torch.cat(rows).to(self.device)
        clips = mean_by_row(z, row, frame.height)
        codes = frame["class"].rank("dense").cast(pl.Int64).to_torch().to(self.device)
        self.whitening.fit(clips, codes)
        self.center.copy_(self.whitening(clips).mean(0))
        if self.background is not None:
            self.background.fit(mean_by_row(self.whitening(z), row, frame.height), codes)

    def _gather(self, stage: str, batch: Batch) -> None:
        z = self.embed(batch)
        tempo = torch.ones(len(z), device=z.device)
        cast(Vectors, self.vectors[stage]).update(z, batch["row"], batch["group"], batch["start"], tempo)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Collect the vectors of validation windows."""
        self._gather("valid", batch)

    def test_step(self, batch: Batch, index: int) -> None:
        """Collect the vectors of test windows, and a small picture of each clip for the projector."""
        batch = self.encoder.features(batch)
        self._gather("test", batch)
        x = batch["features"][:, :1].float()  # (B, 1, F, T)
        if x.shape[2] > 1:
            small = F.interpolate(x, (SPRITE, SPRITE), mode="area").flip(2).cpu()
            low, high = small.amin((2, 3), keepdim=True), small.amax((2, 3), keepdim=True)
            pictures = (small - low) / (high - low).clamp(min=1e-6)
            for row, picture in zip(batch["row"].tolist(), pictures, strict=True):
                self.sprites.setdefault(row, picture)

    def _rows(self, stage: str, split: str) -> Tensor:
        """One vector (rows, D) a clip: the mean over its windows."""
        metric = cast(Vectors, self.vectors[stage])
        found = metric.compute()
        metric.reset()
        return mean_by_row(found.z, found.row, self.data.split(split).height)

    def on_validation_epoch_end(self) -> None:
        """Judge the prototypes by episodes of classes that neither training nor the test has."""
        z, pool, episodes = self._drawn("valid", "valid")
        found = answer(z, episodes, self.own)
        ladder = Ladder.of(pool.names, self.protocol.reference)
        values = measures(found, ladder, self.protocol.mass, self._node_logits(z, episodes, ladder))
        self.log_dict({f"valid/{name}": float(value) for name, value in values.items()})
        self.outcome["valid"] = {"values": values, "per_class": {}, "own": found, "ladder": ladder}

    def _drawn(self, stage: str, split: str) -> tuple[Tensor, Pool, Episodes]:
        """Vectors of the clips of a split, its classes, its episodes."""
        z = self._rows(stage, split)
        pool, plan = self.data.pool(split), self.data.plan
        how = {"again": plan.replacement, "insufficient": plan.insufficient}
        ids = self.data.split(split)["id"].to_list()
        return z, pool, self.protocol.draw(pool, stage, ids, **how)

    def _node_logits(self, z: Tensor, episodes: Episodes, ladder: Ladder) -> Tensor | None:
        """Logits (E, L, M, C) of the nodes above the classes of the reference tree; null where there are none."""
        if ladder.depth == 1:
            return None
        parts = []
        for part in parts_of(episodes, z.shape[1]):
            support, shown = gather(z, part.support)
            query, _ = gather(z, part.query)
            classes = torch.from_numpy(part.classes).to(z.device)
            paths = ladder.levels.to(z.device)[classes.clamp(min=0)].masked_fill((classes < 0)[..., None], -1)
            with torch.no_grad():
                parts.append(self.criterion.level_logits(support, shown, query.flatten(1, 2), paths).cpu())
        return torch.cat(parts)

    def own(self, support: Tensor, mask: Tensor, query: Tensor, center: Any = None, valid: Any = None) -> Tensor:
        """The prototypes that the model was trained with, as a head."""
        return self.criterion.leaf_logits(support, mask, query)

    def on_test_epoch_end(self) -> None:
        """Judge all heads by the same episodes, at every number of shots."""
        z, pool, episodes = self._drawn("test", self.tested)
        ladder = Ladder.of(pool.names, self.protocol.reference)
        heads = {OWN: self.own, **self.heads}
        answers = {
            shots: {name: answer(z, episodes.fewer(shots), head, self.center) for name, head in heads.items()}
            for shots in self.protocol.settings
        }
        most = self.protocol.settings[-1]
        own = answers[most][OWN]
        values = measures(own, ladder, self.protocol.mass, self._node_logits(z, episodes, ladder))
        values |= {f"accuracy_{n}shot": float(found[OWN].accuracy.mean()) for n, found in answers.items()}
        values |= by_origin(own, torch.tensor([name in self.spec.groups for name in pool.names]))
        self.log_dict({f"test/{name}": float(value) for name, value in values.items()})
        kept = {"own": own, "ladder": ladder, "answers": answers, "z": z.cpu(), "episodes": episodes}
        self.outcome["test"] = {"values": values, "per_class": {}, **kept}

    def report(self, folder: Path, data: Any) -> None:
        """Print the heads side by side; write heads.csv, episodes.csv and answers.csv."""
        found = self.outcome["test"]
        frame = data.split(self.tested)
        names = recordings(frame)
        units = names.rank("dense").cast(pl.Int64).to_torch()
        rows = head_rows(found["answers"], found["ladder"], OWN, self.protocol, self.heads, units)
        write_tables(folder, rows, found["answers"], found["ladder"], frame["id"].to_list(), OWN, names.to_list())
        spaces = [self._space(number) for number in range(min(self.protocol.maps, len(found["own"].target)))]
        write_space(folder, spaces, frame, "episodes of the test")
        show_heads(rows)

    def figures(self, stage: str) -> dict[str, Any]:
        """Confusions at every level; of a test also heads over shots, an episode as a map, the tree in colours."""
        found = self.outcome.get(stage)
        if not found:
            return {}
        from tonnetz.fewshot import figures as draw

        own, ladder = found["own"], found["ladder"]
        title = f"{stage}: accuracy {found['values']['accuracy']:.3f}"
        drawn = draw.confusions(own, ladder, stage)
        if stage == "valid":
            weighting = self.criterion.weighting
            drawn["level_weights"] = draw.level_weights(
                weighting.weights(len(self.criterion.heights) + 1), self.criterion.heights
            )
            return drawn
        if self.protocol.reference:
            drawn["tree"] = draw.coloured_tree(own, ladder, self.protocol.reference, title)
        drawn["heads"] = draw.head_boxes(found["answers"], f"{stage}: {len(own.target)} episodes")
        first = f"{stage}, the first episode: accuracy {float(own.accuracy[0]):.3f}"
        drawn["space"] = draw.space_figure(self._space(), first)
        return drawn

    def _space(self, number: int = 0) -> Any:
        """A test episode in the plane."""
        from tonnetz.fewshot.figures import episode_space

        found = self.outcome["test"]
        spaces = found.setdefault("spaces", {})
        if number not in spaces:
            clips = self.data.split(self.tested)["id"].to_list()
            support = found["episodes"].support[number]
            facts = found["z"], support, found["own"], found["ladder"], clips
            spaces[number] = episode_space(*facts, method=self.protocol.map, number=number)
        return spaces[number]

    def projector(self, stage: str) -> tuple[Tensor, list[list[str]], list[str], Tensor | None] | None:
        """For TensorBoard: the vector of every clip, with its class and its part in the first episode."""
        found = self.outcome.get(stage)
        if not found or "z" not in found:
            return None
        space, frame = self._space(), self.data.split(self.tested)
        role = dict(zip(space.clips, space.roles, strict=True))
        rows = [[name, role.get(clip, "-"), clip] for name, clip in frame.select("class", "id").iter_rows()]
        blank = torch.zeros(1, SPRITE, SPRITE)
        pictures = torch.stack([self.sprites.get(i, blank) for i in range(len(rows))]) if self.sprites else None
        return found["z"], rows, ["class", "role", "clip"], pictures

    def texts(self) -> dict[str, str]:
        """The taxonomy that the loss climbs, as TensorBoard shows it."""
        return {"taxonomy": outline(self.tree, self.spec.groups)} if self.tree else {}

    def baselines(self, data: Any) -> dict[str, dict[str, float]]:
        """What chance, and SimpleShot on MFCC means and deviations (standardised on training clips), reach.

        Another corpus may have no training clips; then there is no second row.
        """
        found = self.outcome["test"]
        ladder, most = found["ladder"], self.protocol.settings[-1]
        rows = {"chance": chance(found["own"], ladder)}
        if not data.split("train").height:
            return rows
        known, asked = (self._mfcc(data, split) for split in ("train", self.tested))
        statistics = (asked - known.mean(0)) / known.std(0).clamp(min=1e-6)
        head = SimpleShot(normalize="l2")
        several = {n: answer(statistics, found["episodes"].fewer(n), head) for n in self.protocol.settings}
        values = measures(several[most], ladder, self.protocol.mass)
        values |= {f"accuracy_{n}shot": float(answers.accuracy.mean()) for n, answers in several.items()}
        return rows | {"mfcc_simpleshot": values}

    def _mfcc(self, data: Any, split: str) -> Tensor:
        """MFCC statistics of a split, of some clips of it where it is for training."""
        frame = data.split(split)
        if split == "train" and frame.height > CLIPS:
            frame = frame.sample(CLIPS, seed=0)
        return torch.from_numpy(mfcc_statistics(frame, data.frontend.sample_rate, decibels=80.0))


def episode_grid(z: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors z (B, D) of a batch of episodes as support (E, C, S, D) and query (E, C, Q, D), each with its mask.

    The clips of a class on one side stand next to each other in the batch.
    """
    e, slot, side = batch["episode"], batch["slot"], batch["support"]
    size = int(e.max()) + 1, int(slot.max()) + 1
    block = (e * size[1] + slot) * 2 + side  # (B,)
    place = torch.arange(len(z), device=z.device)
    fresh = torch.ones_like(block, dtype=torch.bool)
    fresh[1:] = block[1:] != block[:-1]
    number = place - torch.where(fresh, place, 0).cummax(0).values  # (B,) within its class and side
    found: list[Tensor] = []
    for wanted in (1, 0):
        mine = side == wanted
        index = e[mine], slot[mine], number[mine]
        grid = z.new_zeros(*size, int(index[2].max()) + 1, z.shape[1])
        there = torch.zeros(grid.shape[:3], dtype=torch.bool, device=z.device)
        there[index] = True
        found += [grid.index_put(index, z[mine]), there]
    return found[0], found[1], found[2], found[3]

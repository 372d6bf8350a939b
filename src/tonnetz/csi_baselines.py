"""What cover-song identification reaches without training: rows that stand in every table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tonnetz.errors import UserError
from tonnetz.ftm2d import tempo_variants
from tonnetz.matching import Matching
from tonnetz.metrics.ranking import Ranking
from tonnetz.metrics.vectors import Segments
from tonnetz.models.key_equivariant import KeyEquivariant
from tonnetz.retrieval import evaluate
from tonnetz.tasks.csi import cut

OCTAVE = 12


def baselines(data: Any, split: str = "test") -> dict[str, dict[str, float]]:
    """Scores of chance, 2-D Fourier magnitudes of chroma, and Qmax on chroma, by name.

    The last two need a constant-Q front-end; without one chance stands alone.
    """
    found = {"chance": chance(data, split)}
    frontend = data.frontend
    if data.plan.source != "features" or frontend.channels != 1 or frontend.bins % OCTAVE:
        return found
    loader = data.windows(split, alone=True)
    batches = [batch for batch in loader if bool((batch["tempo"] - 1).abs().max() < 1e-4)]
    roles = data.roles(split)
    found["ftm2d"] = evaluate(_fourier(batches), Matching("cosine", "min"), **roles).values
    found["qmax"] = evaluate(_chroma(batches, frontend), Matching("cosine", "qmax-3", OCTAVE), **roles).values
    return found


def chance(data: Any, split: str) -> dict[str, float]:
    """Expected scores of a random order: the mean of twenty."""
    loader = data.dataset(split)
    work = torch.tensor(loader.tracks.groups)
    every = torch.arange(len(work))
    random = torch.Generator().manual_seed(0)
    scores = []
    for _ in range(20):
        ranking = Ranking(work, every, keep=False)
        ranking.add(every, torch.rand(len(work), len(work), generator=random))
        try:
            scores.append(ranking.result().values)
        except UserError:
            return {}
    return {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}


def _fourier(batches: list[dict[str, Tensor]]) -> Segments:
    """Seven tempi of every window, side by side as its segments."""
    parts = []
    for batch in batches:
        variants = tempo_variants(batch["features"], batch["lengths"])  # (B, 7, D)
        parts.append(_segments(variants, torch.ones(variants.shape[:2], dtype=torch.bool), batch, 1.0))
    return _join(parts)


def _chroma(batches: list[dict[str, Tensor]], frontend: Any, frames: int = 8) -> Segments:
    """Eight frames of chroma, 2.1 a second, as a segment; one begins at every frame."""
    network = KeyEquivariant(frontend.channels, frontend.bins, width=1, depth=0, residual=0.0).eval()
    parts = []
    with torch.inference_mode():
        for batch in batches:
            x, lengths = batch["features"], batch["lengths"]
            mask = torch.arange(x.shape[-1]) < lengths[:, None]
            h = network(x, mask)  # (B, T', 12)
            pieces, valid, _ = cut(h, network.frames(lengths), 1.0, frames, 1.0)  # (B, S, L, 12)
            parts.append(_segments(pieces.flatten(2), valid, batch, 1.0))
    return _join(parts)


def _segments(z: Tensor, valid: Tensor, batch: dict[str, Tensor], hop: float) -> Segments:
    """Segments of vectors z (B, S, D) with the mask (B, S)."""
    start = batch["start"][:, None].float() + torch.arange(z.shape[1]) * hop
    row, group = (batch[name][:, None].expand(valid.shape)[valid] for name in ("row", "group"))
    return Segments(z[valid], row, group, start[valid], torch.ones(int(valid.sum())))


def _join(parts: list[Segments]) -> Segments:
    return Segments(*(torch.cat([getattr(part, name) for part in parts]) for name in Segments.FIELDS))

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
from tonnetz.segments import cut

OCTAVE = 12
RATE = 16000 / 1920  # frames a second of frontend=cqt_coverhunter, for which the lengths below are given


def baselines(data: Any, split: str = "test") -> dict[str, dict[str, float]]:
    """Scores of chance, 2-D Fourier magnitudes of chroma, and Qmax on chroma, by name.

    The last two need stored features of a constant-Q front-end in decibels; without them chance stands alone.
    """
    roles = data.roles(split)
    found = {"chance": chance(data, split, roles)}
    frontend = data.frontend
    fine = frontend.bins_per_octave
    if data.plan.source != "features" or frontend.channels != 1 or not fine or not frontend.decibels:
        return found
    batches = [b for b in data.windows(split, alone=True) if bool((b["tempo"] - 1).abs().max() < 1e-4)]
    pace = frontend.sample_rate / frontend.hop / RATE
    fourier, chroma = _fourier(batches, fine, pace), _chroma(batches, frontend, fine, pace)
    found["ftm2d"] = evaluate(fourier, Matching("cosine", "min"), **roles).values
    found["qmax"] = evaluate(chroma, Matching("cosine", "qmax-3", OCTAVE), **roles).values
    return found


def chance(data: Any, split: str, roles: dict[str, Tensor] | None = None) -> dict[str, float]:
    """Expected scores of a random order: the mean of twenty."""
    roles = roles or {}
    loader = data.dataset(split)
    work = torch.tensor(loader.tracks.groups)
    every = torch.arange(len(work))
    queries, references = roles.get("queries", every[work >= 0]), roles.get("references", every)
    random = torch.Generator().manual_seed(0)
    scores = []
    for _ in range(20):
        ranking = Ranking(work, references, roles.get("exclude"), keep=False)
        ranking.add(queries, torch.rand(len(queries), len(references), generator=random))
        try:
            scores.append(ranking.result().values)
        except UserError:
            return {}
    return {name: sum(score[name] for score in scores) / len(scores) for name in scores[0]}


def _fourier(batches: list[dict[str, Tensor]], fine: int, pace: float) -> Segments:
    """Seven tempi of every window, side by side as its segments, in patches of 96 frames times `pace`."""
    patch, hop = (max(1, round(frames * pace)) for frames in (96, 24))
    parts = []
    for batch in batches:
        x, lengths = batch["features"], batch["lengths"]
        variants = tempo_variants(x, lengths, bins_per_octave=fine, patch=patch, hop=hop)  # (B, 7, D)
        parts.append(_segments(variants, torch.ones(variants.shape[:2], dtype=torch.bool), batch, 1.0))
    return _join(parts)


def _chroma(batches: list[dict[str, Tensor]], frontend: Any, fine: int, pace: float) -> Segments:
    """Eight frames of chroma, 2.1 a second, as a segment, one beginning at every frame; `pace` times as many."""
    frames, hop = (max(least, round(count * pace)) for least, count in ((2, 8), (1, 1)))
    network = KeyEquivariant(1, frontend.bins, width=1, depth=0, residual=0.0, bins_per_octave=fine).eval()
    parts = []
    with torch.inference_mode():
        for batch in batches:
            x, lengths = batch["features"], batch["lengths"]
            mask = torch.arange(x.shape[-1]) < lengths[:, None]
            h = network(x, mask)  # (B, T', 12)
            pieces, valid, _ = cut(h, network.frames(lengths), 1.0, frames, hop)  # (B, S, L, 12)
            parts.append(_segments(pieces.flatten(2), valid, batch, float(hop)))
    return _join(parts)


def _segments(z: Tensor, valid: Tensor, batch: dict[str, Tensor], hop: float) -> Segments:
    """Segments of vectors z (B, S, D) with the mask (B, S)."""
    start = batch["start"][:, None].float() + torch.arange(z.shape[1]) * hop
    row, group = (batch[name][:, None].expand(valid.shape)[valid] for name in ("row", "group"))
    return Segments(z[valid], row, group, start[valid], torch.ones(int(valid.sum())))


def _join(parts: list[Segments]) -> Segments:
    return Segments(*(torch.cat([getattr(part, name) for part in parts]) for name in Segments.FIELDS))

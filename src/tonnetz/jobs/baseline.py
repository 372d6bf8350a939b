"""job=baseline: MFCC means and deviations with logistic regression, on the same splits."""

from __future__ import annotations

from omegaconf import DictConfig

from tonnetz.baseline import mfcc_baseline
from tonnetz.build import build_data, connect
from tonnetz.jobs.prepare import show, summary
from tonnetz.manifest import Run, write_json
from tonnetz.quiet import quiet
from tonnetz.report import show_table


def run(cfg: DictConfig, run: Run) -> float:
    """Print the baseline's scores on validation and test; returns the validation macro F1."""
    quiet()
    data = build_data(cfg, connect(cfg.frontend))
    show(data)
    scores = {name: mfcc_baseline(data, name) for name in ("valid", "test") if data.split(name).height}
    show_table(scores, "MFCC + logistic regression")
    write_json(run.folder / "metrics.json", scores)
    run.facts |= {"data": summary(data), "metrics": scores.get("test", {})}
    return scores.get("valid", {}).get("macro_f1", float("nan"))

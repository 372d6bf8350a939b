"""Keep advice that a user cannot act on out of the terminal; what matters is printed by us."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence Lightning's banners and its advice on worker counts and checkpoint folders."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The number of training batches .* is smaller than the logging interval.*",
        ".*lr_scheduler.step\\(\\).*before.*optimizer.step\\(\\).*",
        ".*module\\(s\\) in eval mode at the start of training.*",  # a frozen backbone
        ".*Total length of .* across ranks is zero.*",  # nothing validates a run on everything
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", pattern)

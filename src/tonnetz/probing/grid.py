"""Protocols: which configurations are tried, and how each is trained. The presets are data: config/job/presets."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from tonnetz.errors import UserError, suggest

BETWEEN = "between"  # a hidden layer that is as wide as its place between inputs and outputs says


def _count(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _real(value: object, low: float, high: float = float("inf")) -> bool:
    """Whether it is a number from low to below high."""
    return isinstance(value, int | float) and low <= value < high


@dataclass(frozen=True)
class Probe:
    """One configuration.

    Args:
        hidden: widths of the hidden layers, or the word ``between`` for each, see `widths`; none is a linear probe.
        batch: examples a step.
        lr: learning rate.
        dropout: of the input and behind every hidden layer.
        weight_decay: of Adam (added to the gradient) or AdamW (decoupled).
        standardize: subtract the mean and divide by the standard deviation of the training examples.
    """

    hidden: tuple[int | str, ...] = ()
    batch: int = 64
    lr: float = 1e-3
    dropout: float = 0.5
    weight_decay: float = 0.0
    standardize: bool = True

    def __post_init__(self) -> None:
        widths = all(width == BETWEEN for width in self.hidden) or all(_count(width) for width in self.hidden)
        fine = {
            "hidden": (widths, f"widths above 0, or all of them '{BETWEEN}'"),
            "batch": (_count(self.batch), "a number above 0"),
            "lr": (_real(self.lr, 0) and self.lr > 0, "a number above 0"),
            "dropout": (_real(self.dropout, 0, 1), "from 0 to below 1"),
            "weight_decay": (_real(self.weight_decay, 0), "a number from 0 up"),
        }
        for name, (right, rule) in fine.items():
            if not right:
                raise UserError(f"job.axes.{name}: {getattr(self, name)} makes no sense; it is {rule}")

    @property
    def id(self) -> str:
        """12 hex digits of the configuration."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=6).hexdigest()

    def jukemir_id(self, dataset: str, representation: str) -> str:
        """SHA-1 by which jukemir (Castellon et al. 2021) names this configuration: of its 15 fields as JSON."""
        values = {
            "dataset": dataset,
            "representation": representation,
            "data_standardization": self.standardize,
            "hidden_layer_sizes": list(self.hidden),
            "batch_size": self.batch,
            "learning_rate": self.lr,
            "dropout_input": True,
            "dropout_p": self.dropout,
            "l2_weight_decay": self.weight_decay or None,
            "max_num_epochs": None,
            "early_stopping_metric": "primary",
            "early_stopping": True,
            "early_stopping_eval_frequency": 8,
            "early_stopping_boredom": 256,
            "seed": 0,
        }
        return hashlib.sha1(json.dumps(values, sort_keys=True, indent=2).encode()).hexdigest()


def widths(probe: Probe, inputs: int, outputs: int) -> list[int]:
    """Widths of all layers of a probe, from its inputs to its outputs.

    L hidden layers called ``between`` lie evenly between the two (arithmetically), and are made even numbers, as
    mir_ref (Plachouras et al. 2023) infers them: one layer for 512 features and 50 classes has 281, so 282.
    """
    step = (inputs - outputs) / (len(probe.hidden) + 1)
    found = [inputs]
    for i, width in enumerate(probe.hidden):
        if width == BETWEEN:
            place = int(outputs + (len(probe.hidden) - i) * step)
            width = place + place % 2
        found.append(int(width))
    return [*found, outputs]


AXES = tuple(field.name for field in fields(Probe))


@dataclass(frozen=True)
class Protocol:
    """How every probe is trained.

    Args:
        name: of the preset.
        optimizer: ``adam`` or ``adamw``.
        sampling: ``draws``: each step draws its batch anew, without replacement; ``epochs``: passes over the examples.
        every: steps between validations; null validates after each pass.
        stop: what tells a better validation: the ``score``, or the ``loss`` of its windows. Configurations are compared
            by the score in both cases.
        patience: validations in a row without a better one after which a probe stops.
        max_epochs, max_steps: the end at the latest, null for none.
        plateau: [factor, patience]: multiply a probe's rate after more than so many validations without a better one.
        dropout_input: false leaves dropout of the input out.
    """

    name: str = "custom"
    optimizer: str = "adam"
    sampling: str = "draws"
    every: int | None = 8
    stop: str = "score"
    patience: int = 256
    max_epochs: float | None = None
    max_steps: int | None = None
    plateau: tuple[float, int] | None = None
    dropout_input: bool = True

    def __post_init__(self) -> None:
        words = {"optimizer": ("adam", "adamw"), "sampling": ("draws", "epochs"), "stop": ("score", "loss")}
        for key, known in words.items():
            value = getattr(self, key)
            if value not in known:
                raise UserError(f"job.protocol.{key}={value}: known are {', '.join(known)}")
        for key in ("every", "patience", "max_epochs", "max_steps"):
            value = getattr(self, key)
            if value is not None and not (_real(value, 0) and value > 0):
                raise UserError(f"job.protocol.{key}={value}: must be a number above 0")
        if self.plateau is not None:
            pair = self.plateau if isinstance(self.plateau, Sequence) and len(self.plateau) == 2 else (0, 0)
            if not (_real(pair[0], 0, 1) and pair[0] > 0 and _real(pair[1], 0)):
                raise UserError(f"job.protocol.plateau={self.plateau}: is [factor below 1, patience], or null")

    def interval(self, items: int, batch: int) -> int:
        """Steps between two validations."""
        return self.every or max(1, -(-items // min(batch, items)))

    def limit(self, items: int, batch: int) -> float:
        """Steps after which training ends at the latest."""
        by_epochs = float("inf") if self.max_epochs is None else self.max_epochs * items / min(batch, items)
        return min(by_epochs, float("inf") if self.max_steps is None else self.max_steps)


def expand(axes: Mapping[str, Sequence[Any]]) -> list[Probe]:
    """All combinations of the values of the axes, the last one turning fastest. Raises UserError for unknown axes."""
    for name, values in axes.items():
        if name not in AXES:
            raise UserError(f"job.axes.{name}: no such axis{suggest(name, AXES)}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise UserError(f"job.axes.{name}={values}: must be a list of values, e.g. [{values}]")
    combinations = itertools.product(*axes.values())
    made = [dict(zip(axes, values, strict=True)) for values in combinations]
    for one in made:
        layers = one.get("hidden", ())
        if isinstance(layers, str) or not isinstance(layers, Sequence):
            raise UserError(f"job.axes.hidden: {layers} is no list of layers; write e.g. [[],[{layers}]]")
        one |= {"hidden": tuple(layers)} | ({"weight_decay": 0.0} if one.get("weight_decay", 0.0) is None else {})
    probes = [Probe(**one) for one in made]
    return list(dict.fromkeys(probes))


def groups(probes: Sequence[Probe]) -> list[list[int]]:
    """Numbers of the probes that can be trained as one stack: those with the same layers and the same batch."""
    found: dict[Any, list[int]] = {}
    for i, probe in enumerate(probes):
        found.setdefault((probe.hidden, probe.batch), []).append(i)
    return list(found.values())

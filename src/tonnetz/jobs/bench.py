"""job=bench: where does the time of a training step go, and how fast is what is not training?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from tonnetz import figures
from tonnetz.ahead import ahead
from tonnetz.build import Experiment, build, build_augment, connect
from tonnetz.csi_bench import matching_of, preparing_times, query_times, retrieval_times, tell
from tonnetz.device import choose_device
from tonnetz.errors import UserError
from tonnetz.fewshot.bench import judging_times, show_judging
from tonnetz.manifest import Run, write_json
from tonnetz.metrics.classification import per_row, score
from tonnetz.quiet import quiet

SOUNDFILE = (".wav", ".flac", ".mp3", ".ogg")  # what librosa decodes by itself
STAGES = (
    "loader",
    "wave augment",
    "front-end",
    "spectral augment",
    "forward",
    "loss",  # and its gradient, of tasks that compare vectors of a batch
    "backward",
    "optimizer",
    "metric",
)


def run(cfg: DictConfig, run: Run) -> None:
    """Print a table, write `bench.json` and `figures/bench.png`."""
    quiet()
    device = choose_device(cfg.trainer.accelerator)
    if (instead := alone(cfg, device, run.folder)) is not None:
        run.facts["bench"] = {"threads": torch.get_num_threads(), **instead}
        write_json(run.folder / "bench.json", run.facts["bench"])
        return
    experiment = build(cfg)
    times, sizes = step_times(experiment, device, cfg.job.batches, cfg.job.warmup)
    size = float(np.mean(sizes))  # of batches of episodes it is not data.batch_size, and may vary
    median = {name: float(np.median(values)) for name, values in times.items()}
    result: dict[str, Any] = {"device": str(device), "threads": torch.get_num_threads(), "batch_size": size}
    result["seconds_per_batch"] = median
    result["items_per_second"] = {name: size / max(value, 1e-9) for name, value in median.items()}
    _print(result)
    if "loss" in median:
        result["loader_and_loss"] = (median["loader"] + median["loss"]) / sum(median.values())
        print(f"loader, with the drawing of episodes, and loss: {result['loader_and_loss']:.1%} of a step")
    if cfg.job.episodes:
        result["episodes"] = judging_times(experiment, device, cfg.job.episodes, cfg.job.shots)
        show_judging(result["episodes"])
    if cfg.job.decode and experiment.data.plan.source == "audio":
        result["reading"] = reading_rates(experiment, cfg.job.batches)
        _print_reading(result["reading"])
    write_json(run.folder / "bench.json", result)
    figures.save(
        figures.time_bars(median, f"one training step of {size:.0f} on {device}"),
        run.folder / "figures" / "bench.png",
    )
    run.facts["bench"] = result


def alone(cfg: DictConfig, device: torch.device, folder: Path) -> dict[str, Any] | None:
    """The one measurement that `job` asks for instead of a training step, printed; None when it asks for none."""
    job = cfg.job
    for key in ("recordings", "vectors", "segments"):
        if job[key] is not None and job[key] < 1:
            raise UserError(f"job.{key}={job[key]}: must be at least 1")
    if job.views:
        return views(cfg, device)
    if job.recordings:
        found = retrieval_times(job.recordings, job.segments, matching_of(cfg.task), cfg.task.rounds)
        tell("all pairs, every metric", found)
    elif job.vectors:
        found = query_times(job.vectors, job.segments, matching_of(cfg.task))
        tell("a query", found)
    elif job.prepare:
        found = preparing_times(cfg, folder)
        tell("preparing", found)
    else:
        return None
    return found


def views(cfg: DictConfig, device: torch.device) -> dict[str, Any]:
    """Views a second that the waveform chain of `augment` makes of noise as long as the task's excerpts; printed.

    Of the processor time of one process too, which other work on the machine disturbs less.
    """
    frontend = connect(cfg.frontend)
    rate = frontend.sample_rate
    augment = build_augment(cfg.augment, frontend).to(device).train()
    batch = {"audio": 0.1 * torch.randn(cfg.data.batch_size, 1, round(cfg.task.plan.seconds * rate), device=device)}
    times, clock = [], Clock(device)
    for _ in range(cfg.job.warmup + cfg.job.batches):
        start = time.process_time()
        with clock("augment"):
            augment.wave(batch)
        times.append((clock.seconds["augment"], time.process_time() - start))
    mean, processor = np.mean(times[cfg.job.warmup :], axis=0)
    best = min(wall for wall, _ in times[cfg.job.warmup :])
    rates = {"views_per_second": mean, "best": best, "per_processor_second": processor}
    result: dict[str, Any] = {name: float(len(batch["audio"]) / max(seconds, 1e-9)) for name, seconds in rates.items()}
    result |= {"samples": batch["audio"].shape[-1], "threads": torch.get_num_threads(), "device": str(device)}
    print(
        " ".join(
            f"{name} {value:,.0f}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items()
        )
    )
    return result


def step_times(
    experiment: Experiment, device: torch.device, batches: int, warmup: int
) -> tuple[dict[str, list[float]], list[int]]:
    """Seconds of each stage of `batches` training steps, after `warmup` ones, and their numbers of excerpts.

    Of the loader, what the loop waits.
    """
    task: Any = experiment.task.to(device).train()
    optimizer = task.optimizer(task.parameters())
    scored = hasattr(task, "scores")  # tasks that rank do so once an epoch, not batch by batch
    absent = {"metric": not scored, "loss": not hasattr(task, "compare")}
    times: dict[str, list[float]] = {name: [] for name in STAGES if not absent.get(name)}
    sizes: list[int] = []
    clock = Clock(device)
    bf16 = str(experiment.cfg.trainer.precision).startswith("bf16")
    precision = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    task.log = lambda *_, **__: None  # there is no trainer to log to
    batches_of = _endless(experiment.data.train_dataloader())
    for step in range(warmup + batches):
        with clock("loader"):
            batch = {key: value.to(device) for key, value in next(batches_of).items()}
        with clock("wave augment"):
            batch = task.augment.wave(batch)
        with clock("front-end"):
            batch = task.encoder.features(batch)
        with clock("spectral augment"):
            task.augment.features(batch)  # timed alone; the step below draws its own
        optimizer.zero_grad()
        _gradients(task, batch, clock, precision)
        with clock("optimizer"):
            optimizer.step()
        if scored:
            with clock("metric"), torch.no_grad():
                prob = torch.rand(len(batch["row"]), len(task.spec.classes), device=device)
                task.scores["valid"].update(prob, batch["label"], batch["row"], batch["start"])
        if step >= warmup:
            sizes.append(len(batch["row"]))
            for name, seconds in clock.seconds.items():
                times[name].append(seconds)
    if scored:
        _metric_time(experiment, times, clock)
    return times, sizes


def _gradients(task: Any, batch: Any, clock: Clock, precision: Any) -> None:
    """Forward and backward. A loss on vectors is timed alone: its value and its gradient for the vectors."""
    if not hasattr(task, "compare"):
        with clock("forward"), precision:
            loss = task.loss(batch)
        with clock("backward"):
            loss.backward()
        return
    with clock("forward"), precision:
        z = task(batch)
    with clock("loss"):
        leaf = z.detach().requires_grad_()
        with precision:
            loss = task.compare(leaf, batch)
        loss.backward()
    with clock("backward"):
        z.backward(leaf.grad)


def _metric_time(experiment: Experiment, times: dict[str, list[float]], clock: Clock) -> None:
    """Add the epoch-end scoring, spread over the batches that it stands for."""
    task: Any = experiment.task
    with clock("metric"):
        windows = task.scores["valid"].compute()
        score(*per_row(windows.prob, windows.target, windows.row)[:2], multilabel=task.spec.multilabel)
    task.scores["valid"].reset()
    share = clock.seconds["metric"] / len(times["metric"])
    times["metric"] = [seconds + share for seconds in times["metric"]]


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


class Clock:
    """Measures named blocks, waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block and keep its seconds under `name`."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def reading_rates(experiment: Experiment, batches: int) -> dict[str, Any]:
    """Excerpts a second with the same workers: from prepared audio, and decoding the original file for each."""
    data = experiment.data
    loader = _endless(data.train_dataloader())
    sources = [p for p in data.split("train")["path"] if Path(p).suffix.lower() in SOUNDFILE]
    if not sources:
        print("reading is not compared: librosa decodes none of this corpus's formats without FFmpeg")
        return {}
    chosen = [sources[i] for i in np.random.default_rng(0).integers(0, len(sources), 8 * batches)]

    def decode(path: str) -> list[int]:
        import librosa

        return [len(librosa.load(path, sr=data.frontend.sample_rate, mono=True)[0])]

    slow = ahead(decode, iter(chosen), data.workers)
    for iterator in (loader, slow):  # threads are up and have imported what they need
        for _ in range(max(2 * data.workers, 1)):
            next(iterator)
    rates = _rate(loader, 10 * batches), _rate(slow, 6 * batches)
    kinds = " ".join(sorted({Path(path).suffix for path in chosen}))
    return {
        "workers": data.workers,
        "prepared": rates[0],
        f"librosa {kinds}": rates[1],
        "ratio": rates[0] / rates[1],
    }


def _rate(batches: Iterator[Any], count: int) -> float:
    start = time.perf_counter()
    items = sum(len(batch["row"] if isinstance(batch, dict) else batch) for batch in itertools.islice(batches, count))
    return items / (time.perf_counter() - start)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    total = sum(result["seconds_per_batch"].values())
    table = Table(
        "stage",
        "ms a batch",
        "share",
        "items/s",
        title=f"training step, batch {result['batch_size']:,.4g}, {result['device']}",
    )
    for name, seconds in result["seconds_per_batch"].items():
        table.add_row(
            name,
            f"{1000 * seconds:.2f}",
            f"{seconds / total:.1%}",
            f"{result['items_per_second'][name]:,.0f}",
        )
    table.add_row("all", f"{1000 * total:.2f}", "", f"{result['batch_size'] / total:,.0f}", style="bold")
    Console().print(table)


def _print_reading(rates: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if rates:
        reading = Table(
            "reading excerpts", "per second", title="prepared audio against decoding each item with librosa"
        )
        for name, rate in rates.items():
            reading.add_row(name, f"{rate:,.1f}")
        Console().print(reading)

"""job=fit: prepare what is missing, train or resume, test the best checkpoint, leave everything behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from omegaconf import DictConfig, OmegaConf

from tonnetz.atomic import replacing
from tonnetz.build import Experiment, build, build_trainer, check_start, connect, difference, inherit, odd_one, plain
from tonnetz.callbacks import Dashboard, History, Interrupt, Milestones, MovingAverage, Patience
from tonnetz.checkpoint import load_checkpoint
from tonnetz.embedding import fingerprint_of
from tonnetz.errors import UserError
from tonnetz.jobs.prepare import show, summary
from tonnetz.learned import learned
from tonnetz.loggers import closing, conclude, logger_names, make_loggers
from tonnetz.manifest import Run
from tonnetz.quiet import quiet
from tonnetz.report import show_scores, write_scores

FIXED = ("frontend", "model", "pooling", "task", "loss")  # a resumed run must have these as it had them


def run(cfg: DictConfig, run: Run) -> float:
    """Train; returns the best validation score, which sweeps and tuners select on (never the test's)."""
    quiet()
    check_start(cfg)
    names_of_loggers = logger_names(cfg.trainer.get("logger", "tensorboard"))
    cfg = inherit(cfg, list(HydraConfig.get().overrides.task))
    if cfg.trainer.max_epochs != 0:
        connect(cfg.task.plan).check_batch(cfg.data.batch_size)  # before minutes of preparation
    run.head["config"] = plain(cfg)
    last = run.folder / "checkpoints" / "last.ckpt"
    resume = last if last.exists() else None
    if resume:
        _check_resume(cfg, resume)
    experiment = build(cfg)
    if resume:
        _check_classes(experiment, resume)
    _check_evaluation(cfg, experiment)
    _note_learned(cfg, experiment)
    experiment.data.aligner = _aligner(cfg)
    _write_config(cfg, run.folder)
    show(experiment.data)
    run.facts["data"] = summary(experiment.data)
    history = History(run.folder / "metrics.csv")
    names = {s: experiment.data.split(s)["id"].to_list() for s in ("valid", "test")}
    dashboard = Dashboard(run.folder, history, names)
    interrupt = Interrupt(last, lambda: run.write("interrupted"))
    loggers = make_loggers(names_of_loggers, run.folder)
    callbacks = [history, interrupt, *_checkpoints(cfg, experiment, run.folder / "checkpoints")]
    callbacks += [dashboard] if cfg.job.figures else []
    callbacks += [LearningRateMonitor("step")] if loggers else []
    trainer = build_trainer(
        _whole_epochs(cfg, experiment.data.steps),
        logger=loggers,
        callbacks=callbacks,
        default_root_dir=run.folder,
        enable_model_summary=False,
    )
    parameters = sum(p.numel() for p in experiment.task.parameters() if p.requires_grad)
    print(f"{parameters:,} parameters; run folder {run.folder}")
    note_coarseness(experiment)
    with interrupt, closing(loggers):
        start = time.time()
        if parameters and cfg.trainer.max_epochs != 0:
            trainer.fit(experiment.task, experiment.data, ckpt_path=resume, weights_only=True)
        else:
            _keep_untrained(trainer, experiment, run.folder / "checkpoints")
        interrupt.keep()
        run.facts["fit_seconds"] = round(time.time() - start, 3)
        run.status = "interrupted" if interrupt.presses else "completed"
        return _finish(cfg, run, trainer, experiment, dashboard)


def _whole_epochs(cfg: DictConfig, steps: int) -> DictConfig:
    """The configuration with epochs of `trainer.max_steps`, if that is less than one: its end validates and saves."""
    most = cfg.trainer.get("max_steps") or -1
    batches = most * cfg.trainer.get("accumulate_grad_batches", 1)
    limit = cfg.trainer.get("limit_train_batches", 1.0)
    if not 0 < batches < steps or isinstance(limit, int) or limit not in (None, 1.0):
        return cfg
    cfg = cfg.copy()
    OmegaConf.update(cfg, "trainer.limit_train_batches", batches, force_add=True)
    return cfg


def _keep_untrained(trainer: Any, experiment: Experiment, folder: Path) -> None:
    """Write the checkpoint of a network that is not trained: it has nothing to learn, or trainer.max_epochs=0."""
    print("nothing is trained: the network is tested as it is")
    experiment.task.settle()
    trainer.strategy.connect(experiment.task)
    for name in ("best", "last"):
        trainer.save_checkpoint(folder / f"{name}.ckpt", weights_only=True)


def note_coarseness(experiment: Experiment) -> None:
    """Say so when a network joins more frames than there are: one on the waveform that is given frames of bins."""
    encoder, plan = experiment.task.encoder, experiment.data.plan
    frontend, longest = encoder.frontend, max(*plan.lengths, plan.span)
    seconds = encoder.backbone.stride * frontend.hop / frontend.sample_rate
    if seconds > 4 * longest:
        kind, front = type(encoder.backbone).__name__, type(frontend).__name__
        print(
            f"note: a frame of {kind} joins {seconds:.0f} s of {front}, excerpts have {longest:.1f} s: "
            "for its published use take frontend=raw, or take a network with fewer levels"
        )


def _note_learned(cfg: DictConfig, experiment: Experiment) -> None:
    """Let checkpoints tell which recordings they have learned from, those of the checkpoint they start from too."""
    payload, task = experiment.task.payload, cfg.task._target_.split(".")[-1].lower()
    trained = any(p.requires_grad for p in experiment.task.parameters()) and cfg.trainer.max_epochs != 0
    if trained:
        payload["learned"] = learned(experiment.data, task, payload.get("learned"))


def _aligner(cfg: DictConfig) -> str | None:
    """Fingerprint of the model that a fine stage goes on from: the alignment must be this model's."""
    first = cfg.get("aligner") or cfg.get("init")  # crossval sets aligner, since its folds go on from one another
    if not first or not cfg.task.plan.get("alignment"):
        return None
    return fingerprint_of(load_checkpoint(first)["state_dict"])


def _check_resume(cfg: DictConfig, last: Path) -> None:
    """Refuse to continue a run with another model. Raises UserError that names the first difference."""
    stored, asked = load_checkpoint(last)["tonnetz"]["config"], plain(cfg)
    for group in FIXED:
        if stored[group] != asked[group]:
            raise UserError(
                f"run={cfg.run}: exists with {group}: {difference(stored[group], asked[group])}; "
                f"choose another run=NAME or delete {last.parent.parent}"
            )


def _check_classes(experiment: Experiment, last: Path) -> None:
    """Refuse to continue a run on other classes: its head would be read as theirs."""
    stored, found = load_checkpoint(last)["tonnetz"]["spec"], experiment.task.spec
    if (stored["classes"], stored["multilabel"]) != (list(found.classes), found.multilabel):
        raise UserError(
            f"run={last.parent.parent.name}: was trained on the classes {', '.join(stored['classes'])}, "
            f"but the data have {', '.join(found.classes)}; choose another run=NAME"
        )
    odd = odd_one(stored.get("groups", []), found.groups)
    if odd:
        raise UserError(
            f"run={last.parent.parent.name}: was trained on other groups ({experiment.data.plan.group}): {odd}; "
            "choose another run=NAME"
        )


def _validates(cfg: DictConfig, experiment: Experiment) -> bool:
    return bool(experiment.data.validates and cfg.trainer.get("limit_val_batches", 1) != 0)


def _check_evaluation(cfg: DictConfig, experiment: Experiment) -> None:
    """Raise UserError now for what evaluation would raise after training, or would wait for in vain."""
    data = experiment.data
    for name in [*data.evaluated(), *(["test"] if data.split("test").height else [])]:
        data.roles(name)
    experiment.task.check(data)
    if _validates(cfg, experiment):
        return
    remedy = "give validation tracks (data.valid, data.valid_unseen) or a set with role: stop"
    if cfg.job.patience and "final_patience" not in cfg.job:  # that of job=crossval waits for sets, where there are any
        raise UserError(f"job.patience={cfg.job.patience}: nothing validates this run; {remedy}, or job.patience=null")
    if cfg.schedule._target_.endswith(".plateau"):
        raise UserError(f"schedule=plateau: nothing validates this run; {remedy}, or take schedule=cosine")


def _write_config(cfg: DictConfig, folder: Path) -> None:
    with replacing(folder / "config.yaml") as part:
        part.write_text(OmegaConf.to_yaml(OmegaConf.create(plain(cfg))))


def _checkpoints(cfg: DictConfig, experiment: Experiment, folder: Path) -> list[L.Callback]:
    """best.ckpt by the task's monitor (the last one when nothing validates), last.ckpt every epoch and on request."""
    task = experiment.task
    validates = _validates(cfg, experiment)
    monitored: dict[str, Any] = {"monitor": task.monitor, "mode": task.mode, "save_on_train_epoch_end": False}
    newest = {"mode": "max"}  # without validation best is the last one, too; its own mode keeps the callbacks apart
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    found: list[L.Callback] = [
        ModelCheckpoint(filename="best", **common, **(monitored if validates else newest)),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common),
        RichProgressBar(leave=False),
    ]
    if cfg.job.save_every:
        every: dict[str, Any] = {"every_n_train_steps": cfg.job.save_every, "save_on_train_epoch_end": False}
        found.append(ModelCheckpoint(filename="last", **common, **every))
    if cfg.job.get("keep_every"):
        found.append(Milestones(folder, cfg.job.keep_every))
    if cfg.job.get("ema"):
        found.insert(0, MovingAverage(cfg.job.ema))  # its average is in place before the others look
    if cfg.job.patience and validates:
        found.append(Patience(task.monitor, task.mode, cfg.job.patience, cfg.job.smoothing))
    return found


def _finish(cfg: DictConfig, run: Run, trainer: Any, experiment: Experiment, dashboard: Dashboard) -> float:
    """Test the best weights, print and write all scores; returns the validation score of those weights."""
    best = run.folder / "checkpoints" / "best.ckpt"
    task, data = experiment.task, experiment.data
    scores: dict[str, dict[str, float]] = {}
    score = _best_score(trainer, best)
    if not best.exists():
        raise UserError(
            f"nothing was trained: no epoch came to its end (trainer.max_epochs={cfg.trainer.max_epochs} "
            f"max_steps={cfg.trainer.get('max_steps', -1)}, or Ctrl-C); train for longer"
        )
    chosen = load_checkpoint(best)
    task.load_state_dict(chosen["state_dict"])
    tested = cfg.job.test and data.split("test").height > 0
    if tested:
        trainer.test(task, data.test_dataloader(), verbose=False)
        scores["test"] = task.outcome["test"]["values"]
    if trainer.is_global_zero:
        if tested and cfg.job.baseline:
            scores |= task.baselines(data)
        if tested and cfg.job.figures:
            dashboard.project(trainer, task, data.windows("test", alone=True), "test")
        per_class = {name: task.outcome["test"]["per_class"] for name in ["test"] if tested}
        write_scores(run.folder, scores, per_class, task.spec, {task.monitor: score, **task.facts(data)})
        show_scores(scores, task, score)
        if tested:
            task.report(run.folder, data)
        _conclude(trainer, cfg, task, scores, score)
    run.facts["metrics"] = {f"{stage}/{k}": v for stage, values in scores.items() for k, v in values.items()}
    run.facts |= {"score": score, "monitor": task.monitor, "mode": task.mode, "best": str(best)}
    run.facts |= {"best_epoch": chosen["epoch"], "best_step": chosen["global_step"]}
    return score


def _best_score(trainer: Any, best: Path) -> float:
    for callback in trainer.checkpoint_callbacks:
        if callback.filename == "best" and callback.best_model_score is not None:
            return float(callback.best_model_score)
    return float("nan")


def _conclude(trainer: Any, cfg: DictConfig, task: Any, scores: dict[str, dict[str, float]], score: float) -> None:
    """Tell the loggers what was chosen, and the final metrics."""
    chosen = {
        f"{g}": cfg[g]._target_.split(".")[-1]
        for g in ("data", "frontend", "model", "pooling", "loss", "optimizer", "schedule")
        if "_target_" in cfg[g]
    }
    chosen["data"] = str(cfg.data.get("root"))
    numbers = {
        "seed": cfg.seed,
        "lr": cfg.optimizer.get("lr"),
        "batch_size": cfg.data.batch_size,
        "max_epochs": cfg.trainer.max_epochs,
        "seconds": cfg.task.plan.seconds,
    }
    final = {f"final/{task.monitor}": score} | {
        f"final/test_{k}": v for k, v in scores.get("test", {}).items() if "window" not in k
    }
    final = {name: value for name, value in final.items() if value == value}
    chosen |= {k: v for k, v in numbers.items() if v is not None}
    conclude(trainer.loggers, chosen, final, trainer.global_step)

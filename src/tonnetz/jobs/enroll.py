"""job=enroll: teach classes by a few examples each, without training. Adding one embeds nothing again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tonnetz.build import Experiment, restore
from tonnetz.data.plan import Plan
from tonnetz.device import choose_device
from tonnetz.embedding import embed_files, model_fingerprint, plan_of
from tonnetz.enrolment.examples import Example, examine, find_examples
from tonnetz.enrolment.measure import Measure
from tonnetz.enrolment.novelty import Limit
from tonnetz.enrolment.taught import Enrolment
from tonnetz.errors import UserError, suggest
from tonnetz.fewshot.background import Background
from tonnetz.frontend import fingerprint
from tonnetz.jobs.index import as_list
from tonnetz.jobs.predict import report_bad
from tonnetz.manifest import Run, write_json
from tonnetz.progress import progress_bar
from tonnetz.quiet import quiet
from tonnetz.taxonomy import Taxonomy

ACTIONS = ("build", "add", "remove", "show")
SAME = ("segment", "segment_hop")  # keys of a task that change its vectors


def run(cfg: DictConfig, run: Run) -> None:
    """Do ``job.action`` to the file ``job.prototypes``; writes its header as enrolment.json."""
    quiet()
    action, path = cfg.job.action, prototypes_file(cfg)
    if action not in ACTIONS:
        raise UserError(f"job.action={action}{suggest(action, ACTIONS)}")
    doubts: list[str] = []
    if action in ("build", "add"):
        enrolment, doubts = grown(cfg, run, path)
    else:
        enrolment = Enrolment.load(path)
    if action == "remove":
        names = as_list(cfg.job.names)
        if not names:
            raise UserError("job.names is empty: name the classes to take out, job.names=[NAME,...]")
        enrolment = enrolment.remove(names)
    if action != "show":
        enrolment.save(path)
    doubts += enrolment.warnings()
    write_json(run.folder / "enrolment.json", {**enrolment.describe(), "warnings": doubts})
    show(enrolment, path, doubts)
    run.facts["prototypes"] = {"file": str(path), "action": action, "classes": len(enrolment.names)}


def prototypes_file(cfg: DictConfig) -> Path:
    """The file of ``job.prototypes``. Raises UserError when it is not given."""
    if OmegaConf.is_missing(cfg.job, "prototypes") or not cfg.job.prototypes:
        raise UserError("job.prototypes is missing: name the file, job.prototypes=my.protos")
    return Path(cfg.job.prototypes)


def grown(cfg: DictConfig, run: Run, path: Path) -> tuple[Enrolment, list[str]]:
    """A new enrolment of ``job.examples``, or an old one with them added; and what is doubtful about them."""
    job = cfg.job
    if not job.examples:
        raise UserError(
            "job.examples is missing: give a folder of FOLDER/CLASS/FILE, or a CSV file with file and label"
        )
    if job.action == "build" and path.exists():
        raise UserError(f"{path}: is there already; add classes with job.action=add, or choose another file")
    found = find_examples(job.examples)
    if job.action == "build" and len(labels := {label for _, _, label in found}) < 2:
        raise UserError(f"{job.examples}: holds one class ({labels.pop()}); two or more can be told apart")
    old = Enrolment.load(path) if job.action == "add" else None
    if job.tree and not old:
        Taxonomy.load(job.tree)  # refused before anything is embedded
    experiment, _ = restore(cfg, list(HydraConfig.get().overrides.task))
    if old:
        check(old, path, experiment)
    plan = plan_for(old.facts, experiment) if old else plan_of(experiment, job.window, job.hop, job.pad)
    errors: dict[str, str] = {}
    paths, examples, doubts = examined(found, old, plan.span, errors)
    vectors, row, kept = embedded(experiment, paths, plan, choose_device(cfg.trainer.accelerator), errors)
    report_bad(errors, run.folder, experiment.cfg.data.on_error, len(kept))
    examples = [examples[i] for i in kept]
    run.facts["examples"] = {"enrolled": len(examples), "bad": len(errors)}
    if not examples:
        print("nothing to add: all examples are enrolled already")
        return old or _nothing(job), doubts
    if old:
        return old.add(examples, vectors, row, job.attach), doubts
    center = getattr(experiment.task, "center", None)
    center = None if center is None else center.float().cpu()
    facts = facts_of(experiment, plan, job.tree)
    background = background_of(experiment.task)
    return Enrolment.build(facts, examples, vectors, row, job.attach, center, background), doubts


def background_of(task: Any) -> Background | None:
    """How the training classes of a few-shot task lie, on the CPU; None where it does not know."""
    found = getattr(task, "background", None)
    return found.cpu() if found is not None and bool(found.fitted) else None


def _nothing(job: Any) -> Enrolment:
    raise UserError(f"{job.examples}: no example can be used")


def examined(
    found: Sequence[tuple[Path, str, str]], old: Enrolment | None, window: float, errors: dict[str, str]
) -> tuple[list[str], list[Example], list[str]]:
    """Paths and examples that can be used and are new, and what is doubtful; reasons of others go to `errors`."""
    known = {(e.label, e.mark) for e in old.examples} if old else set()
    paths, examples, doubts = [], [], []
    with progress_bar("listening") as advance:
        for i, (path, file, label) in enumerate(found):
            advance(i + 1, len(found))
            try:
                example, remarks = examine(path, file, label, window)
            except UserError as error:
                errors[str(path)] = str(error)
                continue
            if (label, example.mark) in known:
                doubts.append(f"{file}: is enrolled already; left out")
                continue
            paths.append(str(path))
            examples.append(example)
            doubts += [f"{file}: {remark}" for remark in remarks]
    return paths, examples, doubts


def embedded(
    experiment: Experiment, paths: list[str], plan: Plan, device: Any, errors: dict[str, str]
) -> tuple[Tensor, Tensor, list[int]]:
    """Vectors (M, D) of the windows of files, `row` (M,) counting the files that have any, and which these are."""
    found = embed_files(experiment, paths, plan, device, errors)
    rows, row = found["row"].unique(return_inverse=True)
    return found["vectors"], row, rows.tolist()


def facts_of(experiment: Experiment, plan: Plan, tree: str | None) -> dict[str, Any]:
    """What the vectors of a new file have in common, and how they are compared."""
    task: Any = experiment.task
    return {
        "encoder": model_fingerprint(task),
        "frontend": fingerprint(experiment.data.frontend),
        "window": float(plan.span),
        "hop": float(plan.hop or plan.span),
        "pad": plan.pad,
        "normalize": bool(experiment.data.normalize),
        **{key: getattr(task, key, None) for key in SAME},
        "measure": vars(Measure.of(task)),
        "tree": tree,
    }


def check(enrolment: Enrolment, path: Path, experiment: Experiment) -> None:
    """Raise UserError when the checkpoint does not make the vectors that the file holds."""
    enrolment.check(path, model_fingerprint(experiment.task), fingerprint(experiment.data.frontend))
    facts = enrolment.facts
    for key in SAME:
        if facts[key] != getattr(experiment.task, key, None):
            raise UserError(f"{path}: was made with task.{key}={facts[key]}; leave task.{key} as it was")
    if facts["normalize"] != bool(experiment.data.normalize):
        was = str(facts["normalize"]).lower()
        raise UserError(f"{path}: was made with data.normalize={was}; take data.normalize={was}")


def plan_for(
    facts: dict[str, Any], experiment: Experiment, window: float | None = None, hop: float | None = None
) -> Plan:
    """The windows that the examples were cut in, or others."""
    hop = hop or (min(facts["hop"], window) if window else facts["hop"])
    return plan_of(experiment, window or facts["window"], hop, facts["pad"])


def show(enrolment: Enrolment, path: Path, doubts: Sequence[str]) -> None:
    """Print the classes with their places, their accuracy when each example is left out, and what is doubtful."""
    from rich.console import Console
    from rich.table import Column, Table

    heads = ("class", "in the tree", "examples", "seconds", "recognised when left out", "spread")
    table = Table(*(Column(name, overflow="fold") for name in heads), title=str(path))
    seconds = dict.fromkeys(enrolment.names, 0.0)
    for example in enrolment.examples:
        seconds[example.label] += example.seconds
    accuracy, spread = enrolment.accuracy.tolist(), enrolment.spread.tolist()
    for i, name in enumerate(enrolment.names):
        share = "" if accuracy[i] != accuracy[i] else f"{accuracy[i]:.0%}"
        width = "" if spread[i] != spread[i] else f"{spread[i]:.3g}"
        table.add_row(name, _place(enrolment, i), str(int(enrolment.count[i])), f"{seconds[name]:.1f}", share, width)
    Console().print(table)
    for line in [*_strays(enrolment), *doubts]:
        print(f"note: {line}")
    if bool(enrolment.shared.any()):
        right = enrolment.right[enrolment.shared].double().mean()
        count, dice = int(enrolment.shared.sum()), 1 / len(enrolment.names)
        print(f"{right:.1%} of {count} examples are recognised when left out (dice: {dice:.1%}); ", end="")
    print(threshold(enrolment.limit(), enrolment.judged(None)))


def threshold(limit: Limit, novelty: str) -> str:
    """What the reject threshold is, in a sentence."""
    if limit.threshold is None or limit.accepted is None or limit.passed is None:
        return "nothing tells what is unknown: classes have one example"
    numbers = f"{1 - limit.accepted:.0%} of them are; with their class unknown, {1 - limit.passed:.0%}"
    return f"unknown is what has a novelty above {limit.threshold:.4g}, by {novelty} ({numbers})"


def _place(enrolment: Enrolment, i: int) -> str:
    line = [enrolment.name(code) for code in dict.fromkeys(enrolment.levels[i].tolist())][1:]
    ends = dict.fromkeys((line[0], line[-1])) if line else {}
    return ", ".join(ends) + (" (nearest)" if enrolment.places[i].attached else "")


def _strays(enrolment: Enrolment) -> list[str]:
    """Classes that the tree lacks, with the name that may have been meant."""
    found = []
    for place in enrolment.places:
        if enrolment.tree is None or (place.node and not place.attached):
            continue
        try:
            enrolment.tree.resolve(place.name)
        except UserError as error:
            reason, _, hint = str(error).partition("; ")
            hint = f"; {hint}" if hint.startswith("did you mean") else "."  # the first names of a tree help nobody
            home = f"Attached to {place.node}, the nearest family" if place.attached else "It stands alone"
            found.append(f"{reason}{hint} {home}")
    return found

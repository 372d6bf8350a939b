"""The command line: compose, run the job, answer a user's mistake with one line and exit status 2.

A run that diverged ends with one line, too, and exit status 1.

Nothing heavy is imported here, so `--help` and mistakes are answered at once.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would swallow tracebacks and exit by itself

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from tonnetz import sweep
from tonnetz.errors import Diverged, UserError, suggest
from tonnetz.paths import config_folder, repository

MEANT = {  # keys that few-shot projects have by other names
    "allow_test_selection": "data.allow_test_selection",
    "data.episodes_per_batch": "task.plan.episodes",
    "data.sizes": "job.sizes (of job=partition), or data.valid and data.test",
    "data.val_split": "data.select (valid, or test with data.allow_test_selection=true)",
    "eval.taxonomy": "task.evaluation.reference",
    "head": "task.heads (of tests), or job.head (of job=classify)",
    "model.height": "loss.height",
    "model.levels": "loss.levels",
}


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="main")
def app(cfg: DictConfig) -> float | None:
    """Run one job; in a sweep a failure is written down and the sweep goes on."""
    from hydra.utils import get_method

    from tonnetz.manifest import record
    from tonnetz.memory import keep_freed_memory

    keep_freed_memory()
    folder = Path(HydraConfig.get().runtime.output_dir)
    swept = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        check_types(cfg, HydraConfig.get().overrides.task)
        if swept:
            check_sweep(cfg, HydraConfig.get().overrides.task)
        with record(cfg, folder) as run:
            return get_method(cfg.job._target_)(cfg, run)
    except Exception as raised:
        error = _missing(raised) if isinstance(raised, MissingMandatoryValue) else raised
        if not isinstance(error, UserError | Diverged):
            if not swept:
                raise
            traceback.print_exc()
        elif not swept:
            _mistakes.append(error)  # raised from here it would pass through Hydra, which adds lines of its own
            return None
        print(f"job {HydraConfig.get().job.num} failed: {one_line(error)}", file=sys.stderr)
        return _worst()


def _worst() -> float:
    """What a failed job returns: a tuner needs a number, and gets one that no trial would choose."""
    direction = HydraConfig.get().sweeper.get("direction")
    direction = getattr(direction, "name", direction)
    return float("nan") if direction is None else 1e9 if str(direction).lower() == "minimize" else -1e9


_mistakes: list[UserError | Diverged] = []


def check_sweep(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuse a sweep over several devices without a name: the other ranks would replay it in folders of their own."""
    named = any(item.startswith("run=") for item in overrides)
    if str(cfg.trainer.get("devices", 1)) not in ("1", "auto") and not named:
        raise UserError("a sweep over several devices needs a name: run=NAME (or trainer.devices=1)")


def main() -> None:
    """Entry point of `python src/main.py` and of the `tonnetz` script."""
    os.environ.setdefault("TONNETZ_ROOT", str(repository() or Path.cwd()))
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))  # argparse wants it first
    try:
        _mistakes.clear()
        app()
        if _mistakes:
            raise _mistakes[0]
    except UserError as error:
        _exit(str(error))
    except Diverged as error:
        print(f"diverged: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except OverrideParseException as error:
        _exit(f"{error.override}: cannot be read; {quoting(str(error.override))}")
    except ConfigCompositionException as error:
        _exit(_explain(error))
    except MissingMandatoryValue as error:
        _exit(str(_missing(error)))
    except (HydraException, OmegaConfBaseException) as error:
        _exit(one_line(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    if sweep.failures:
        sys.exit(1)


def quoting(word: str) -> str:
    """How to write what Hydra cannot read: quotes that the shell leaves around names with marks that mean something."""
    key, equals, value = word.partition("=")
    if not equals:
        return "write KEY=VALUE, and quote what the shell would split: 'KEY=[A,B]'"
    name = "NAME" if '"' in value or value[:1] in ("[", "{", "'", "") else value
    quoted = f"""'{key}="{name}"'""" if "'" not in name else f'"{key}=\\"{name}\\""'
    return f"""a name with a comma, quote, bracket or = needs quotes: {quoted}; several of them '{key}=["A","B"]'"""


def _exit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _missing(error: MissingMandatoryValue) -> UserError:
    return UserError(f"{error.full_key} is missing: say {error.full_key}=VALUE")


def one_line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _explain(error: ConfigCompositionException) -> str:
    """Name the unknown key or group member, and the nearest known one."""
    if isinstance(error, MissingConfigException):
        options = error.options or []
        name = str(error.missing_cfg_file or "")
        group, _, member = name.rpartition("/")
        if not options:
            return one_line(error)
        remedy = " (more come with the extra: pip install 'tonnetz[sweep]')" if group.startswith("hydra/") else ""
        return (
            f"{group}={member}: no such member of the group '{group}'{suggest(member, options, len(options))}{remedy}"
        )
    text = one_line(error)
    if comma := re.search(r"Ambiguous value for argument '(.*)' 1\.", text):
        return f"{comma[1]}: one value or several? {quoting(comma[1])}"
    found = re.search(r"Could not override '([^']+)'", text)
    if found is None:
        return text
    key = found[1]
    if "No match in the defaults list" in text:
        return f"{key}: no such configuration group{suggest(key, _groups())}"
    parent, _, leaf = key.rpartition(".")
    known = _siblings(parent)
    if leaf in known:
        return f"{key}: cannot be replaced as a whole; +{key}.NAME={{...}} adds one"
    if key in MEANT:
        return f"{key}: no such key; it is called {MEANT[key]}"
    if parent.split(".")[0] == "task" and _given("ckpt") and not _given("task"):
        others = [name for name in _members("task") if leaf in _keys(_compose([f"task={name}"]), parent)]
        if others:
            named = f"a checkpoint of another task needs its name: task={' or '.join(others)}"
            return f"{key}: task=classification has no such key; {named}"
    return f"{key}: no such key{suggest(leaf, known)} (+{key}=... adds a new one)"


# A number, or a list of them; devices may be auto.
MANIFOLD = ("trainer.devices", "task.plan.seconds", "task.plan.ways", "task.plan.shots", "task.evaluation.shots")
KINDS: dict[str, tuple[type, ...]] = {"true or false": (bool,), "a whole number": (int,), "a number": (float, int)}
# Last words of keys that are null or a number (or a list of them).
NULL_OR_NUMBER = re.compile(
    r"anchor|bins|count|dim|ema|episodes|final_epochs|final_gamma|floor|fmax|folds|gamma|"
    r"hidden|hold|hop|keep_every|output_dim|outputs|patience|position|query_seconds|recordings|"
    r"reference_seconds|save_every|scale|slice|slice_keep|train_hop|transpositions|valid_queries|"
    r"valid_shots|valid_ways|vectors|window"
)
MAY_BE_NULL = ("job.final_patience",)  # of the job's numbers, which else have to be there


def check_types(cfg: DictConfig, overrides: list[str]) -> None:
    """Raise UserError when a value on the command line is no number, or no truth value, where the default is one."""
    words = dict(item.lstrip("+~").partition("=")[::2] for item in overrides)
    values = {key: word for key, word in words.items() if "." in key or key not in _groups()}
    defaults = _compose([f"{key}={word}" for key, word in words.items() if key not in values])
    for key, word in values.items():
        default, new = (OmegaConf.select(node, key, throw_on_missing=False) for node in (defaults, cfg))
        if default is None and isinstance(new, str) and NULL_OR_NUMBER.fullmatch(key.rpartition(".")[2]):
            raise UserError(f"{key}={word}: must be a number, or null")
        kind = next((name for name, kinds in KINDS.items() if isinstance(default, kinds)), None)
        missing = new is None and kind != "true or false" and key.count(".") == 1 and key.startswith("job.")
        if missing and kind is not None and key not in MAY_BE_NULL:
            raise UserError(f"{key}={word}: must be {kind} (default: {default})")
        if kind is None or new is None or key in MANIFOLD:
            continue
        if not isinstance(new, KINDS[kind]) or isinstance(new, bool) != isinstance(default, bool):
            raise UserError(f"{key}={word}: must be {kind} (default: {default})")


def _groups() -> list[str]:
    return [path.name for path in config_folder().iterdir() if path.is_dir()]


def _members(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def _given(key: str) -> bool:
    return any(word.lstrip("+").startswith(f"{key}=") for word in sys.argv[1:])


def _siblings(parent: str) -> list[str]:
    """The keys beside an unknown one, with the groups that the command line chose."""
    chosen = [item for item in sys.argv[1:] if re.fullmatch(r"[a-z]+=[\w-]+", item) and item.split("=")[0] in _groups()]
    return _keys(_compose(chosen), parent)


def _keys(config: DictConfig, parent: str) -> list[str]:
    node = OmegaConf.select(config, parent, throw_on_missing=False) if parent else config
    return list(node) if isinstance(node, DictConfig) else []


def _compose(overrides: list[str]) -> DictConfig:
    """The configuration with these choices; Hydra's global state stays as it is."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path

    loader = ConfigLoaderImpl(create_config_search_path(str(config_folder())))
    return loader.load_configuration("main", overrides, RunMode.RUN)


if __name__ == "__main__":
    main()

"""Every command in the README and the pages composes; every link, member and make target that they name exists."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.conftest import ROOT

FEWSHOT = {"taxonomy", "partition", "episodes", "enroll", "classify", "trials", "analyze"}  # on its page
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "extending.md")]


def commands():
    for page in PAGES:
        for line in page.read_text().splitlines():
            found = re.search(r"python src/main\.py[^`|]*", line)
            if found:
                words = shlex.split(found[0], comments=True)[2:]
                yield pytest.param(words, id=f"{page.name}: {' '.join(words) or '(main job)'}"[:90])


@pytest.mark.parametrize("words", commands())
def test_every_command_composes(words):
    arguments = get_args_parser().parse_args(words)
    choices = OverridesParser.create().parse_overrides(arguments.overrides)
    first = [
        f"{o.key_or_group}={next(iter(o.sweep_iterator()))}" if o.is_sweep_override() else o.input_line for o in choices
    ]
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        config = compose("main", overrides=first, return_hydra_config=True)
    swept = config.hydra.sweeper.get("params") or {}
    assert config.job._target_.startswith("tonnetz.jobs.")
    for key in swept:
        parent, _, leaf = key.rpartition(".")
        assert leaf in (OmegaConf.select(config, parent) if parent else {**config, **config.hydra.runtime.choices}), key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_pages_are_these():
    assert [page.name for page in PAGES] == [
        "README.md",
        "classification.md",
        "contrastive.md",
        "csi.md",
        "fewshot.md",
        "probing.md",
    ]


def test_the_pages_name_every_member():
    text = "".join(page.read_text() for page in PAGES)
    for path in (ROOT / "config").glob("*/*.yaml"):
        group, name = path.parent.name, path.stem
        if (group, name) not in {("trainer", "default"), ("trainer", "cpu")}:
            assert re.search(rf"\b{name}\b", text), f"{group}={name} stands on no page"


def test_every_job_of_csi_has_a_command_on_its_page():
    page = (ROOT / "docs" / "csi.md").read_text()
    elsewhere = {
        "fit",
        "baseline",
        "bench",
        "models",
        "predict",
        "probe",
        "report",
        *FEWSHOT,
    }  # fit is what no job means
    for path in (ROOT / "config" / "job").glob("*.yaml"):
        assert path.stem in elsewhere or re.search(rf"main\.py job={path.stem}\b", page), f"job={path.stem}"


def test_every_setting_of_csi_stands_on_its_page():
    page = (ROOT / "docs" / "csi.md").read_text()
    for node, path in (("task", "task/csi"), ("model", "model/key_equivariant"), ("loss", "loss/best_matches")):
        config = OmegaConf.load(ROOT / "config" / f"{path}.yaml")
        keys = [*config.task, *(f"plan.{key}" for key in config.task.plan)] if node == "task" else [*config]
        for key in keys:
            named = key.endswith("_target_") or re.search(rf"\b{node}\.{re.escape(key)}\b", page)
            assert named, f"{node}.{key} stands not on the page"
    for key in ("bins_per_octave", "fmin", "mean_size", "tuning"):
        assert f"`frontend.{key}`" in page, f"frontend.{key} stands not on the page"
    for name in ("identify", "index", "align", "crossval", "compare"):
        for key in OmegaConf.load(ROOT / "config" / "job" / f"{name}.yaml"):
            named = key.startswith(("_", "defaults")) or re.search(rf"\bjob\.{key}\b", page)
            assert named, f"job.{key} of job={name} stands not on the page"


def test_every_job_of_few_shot_learning_and_probing_has_a_command_on_its_page():
    for name, jobs in (("fewshot", FEWSHOT), ("probing", {"probe", "report"})):
        page = (ROOT / "docs" / f"{name}.md").read_text()
        for job in jobs:
            assert re.search(rf"main\.py job={job}\b", page), f"job={job}"


def test_every_setting_of_few_shot_learning_stands_on_its_page():
    page = (ROOT / "docs" / "fewshot.md").read_text()
    task = OmegaConf.load(ROOT / "config" / "task" / "fewshot.yaml").task
    loss = OmegaConf.load(ROOT / "config" / "loss" / "prototypes.yaml")
    keys = [f"task.{key}" for key in task] + [f"loss.{key}" for key in loss]
    keys += [f"task.{node}.{key}" for node in ("plan", "evaluation") for key in task[node]]
    for key in (key for key in keys if not key.endswith("_target_")):
        assert re.search(rf"\b{re.escape(key)}\b", page), f"{key} stands not on the page"
    for head in task.heads:
        assert f"`{head}`" in page, f"head {head} stands not on the page"
    for name in FEWSHOT:
        for key in OmegaConf.load(ROOT / "config" / "job" / f"{name}.yaml"):
            named = key.startswith("_") or re.search(rf"\bjob\.{key}\b", page)
            assert named, f"job.{key} of job={name} stands not on the page"


def test_pictures_are_shown_and_small():
    shown = {target for page in PAGES for target in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())}
    for path in (ROOT / "docs" / "pictures").iterdir():
        assert f"pictures/{path.name}" in shown, f"{path.name} is on no page"
        assert path.stat().st_size < 150_000


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)\b", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_nothing_names_a_private_place():
    for path in [
        *ROOT.glob("*.*"),
        *(ROOT / "config").rglob("*.yaml"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "Makefile",
    ]:
        if path.is_file():
            assert not re.search(r"https?://", path.read_text()), path

"""Every command in the README and the pages composes; every link, member and make target that they name exists."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT

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
        assert key in config or "." in key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_readme_names_every_member():
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "classification.md").read_text()
    for group in (
        "data",
        "frontend",
        "model",
        "pooling",
        "loss",
        "optimizer",
        "schedule",
        "augment",
        "trainer",
        "task",
    ):
        for path in (ROOT / "config" / group).glob("*.yaml"):
            if (group, path.stem) not in {("trainer", "default"), ("trainer", "cpu")}:
                assert re.search(rf"\b{path.stem}\b", text), f"{group}={path.stem} stands on no page"


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

"""Few-shot tests side by side, against SciPy and loops: means, paired tests, instruments, won and lost episodes."""

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy import stats
from sklearn.metrics import f1_score

from tests.conftest import ROOT
from tonnetz.build import build_task, connect
from tonnetz.fewshot.compare import episode_pairs, extremes, instruments, measured, recording_pairs, summary
from tonnetz.fewshot.compare_figures import instrument_bars, settings_boxes, shots_boxes
from tonnetz.fewshot.runs import Found, settings
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import DataSpec

SEEDS, EPISODES = ("1", "2", "3"), 40
CHANCE = {"flat": 0.5, "tree": 0.7, "same": 0.7}
SWEEPS = sorted(path.stem for path in (ROOT / "config/sweep").glob("fewshot_*.yaml"))
PRESETS = ("music_trees", "fewshot_strict")


@pytest.fixture(scope="module")
def episodes():
    """Three settings, the last a copy of the second, with three seeds; severity is unknown where nothing is wrong."""
    random = np.random.default_rng(0)
    rows = []
    for setting in ("flat", "tree"):
        for seed in SEEDS:
            for shots in (1, 5):
                right = random.binomial(10, CHANCE[setting] + 0.03 * shots, EPISODES) / 10
                for episode, value in enumerate(right):
                    severity = float("nan") if value == 1 else random.uniform(1, 3)
                    rows.append((setting, seed, "prototypes", shots, episode, value, severity))
    columns = ["setting", "seed", "head", "shots", "episode", "accuracy", "severity"]
    frame = pl.DataFrame(rows, columns, orient="row")
    return pl.concat([frame, frame.filter(pl.col("setting") == "tree").with_columns(setting=pl.lit("same"))])


@pytest.fixture(scope="module")
def answers():
    """Queries of four classes with six clips each, two of them windows of one recording; same clips for all."""
    random = np.random.default_rng(1)
    rows = []
    clips = [(name, f"{name}/{i // 2}@{i % 2}.0") for name in "abcd" for i in range(6)]
    for setting in ("flat", "tree"):
        for seed in SEEDS:
            asked = np.random.default_rng(2)
            for episode in range(20):
                for place in asked.choice(len(clips), 10, replace=False):
                    name, clip = clips[place]
                    right = random.uniform() < CHANCE[setting]
                    said = name if right else random.choice([x for x in "abcd" if x != name])
                    rows.append((setting, seed, episode, clip, name, str(said)))
    columns = ["setting", "seed", "episode", "clip", "true", "predicted"]
    return pl.DataFrame(rows, columns, orient="row")


def values(frame, setting, shots, metric="accuracy"):
    """(seeds, episodes)."""
    mine = frame.filter(pl.col("setting") == setting, pl.col("shots") == shots)
    return np.stack([mine.filter(pl.col("seed") == seed)[metric].to_numpy() for seed in SEEDS])


def test_summary_is_the_mean_over_seeds_with_students_interval(episodes):
    heads = episodes.group_by("setting", "seed", "head", "shots", maintain_order=True).agg(pl.col("accuracy").mean())
    found = (
        summary(heads, episodes, "accuracy")
        .filter(pl.col("setting") == "flat", pl.col("shots") == 1)
        .row(0, named=True)
    )
    table = values(episodes, "flat", 1)
    runs = table.mean(1)
    low, high = stats.t.interval(0.95, 2, runs.mean(), stats.sem(runs))
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((runs.mean(), low, high))
    assert (found["runs"], found["episodes"]) == (3, EPISODES)
    assert found["deviation"] == pytest.approx(runs.std(ddof=1))
    over = stats.t.interval(0.95, EPISODES - 1, table.mean(), stats.sem(table.mean(0)))
    assert (found["episodes_low"], found["episodes_high"]) == pytest.approx(over)


def test_one_run_has_no_interval_over_seeds(episodes):
    one = episodes.filter(pl.col("seed") == "1", pl.col("setting") == "flat")
    heads = one.group_by("setting", "seed", "head", "shots", maintain_order=True).agg(pl.col("accuracy").mean())
    found = summary(heads, one, "accuracy")
    assert found["low"].is_null().all()
    assert found["episodes_low"].is_not_null().all()
    assert episode_pairs(one, "accuracy").height == 0


def test_pairs_are_those_of_scipy_on_episode_and_seed(episodes):
    found = episode_pairs(episodes, "accuracy", rounds=400)
    assert found.height == 6
    shuffled = episodes.sample(fraction=1, shuffle=True, seed=3).sort("setting", "shots", maintain_order=True)
    for shots in (1, 5):
        a, b = values(episodes, "flat", shots).ravel(), values(episodes, "tree", shots).ravel()
        mine = {(r["first"], r["second"]): r for r in found.filter(pl.col("shots") == shots).iter_rows(named=True)}
        row = mine["flat", "tree"]
        assert row["pairs"] == 3 * EPISODES
        assert row["difference"] == pytest.approx((a - b).mean())
        assert row["effect"] == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
        kept = (a - b)[a != b]
        assert row["p"] == pytest.approx(stats.wilcoxon(kept).pvalue)
        assert row["low"] < row["difference"] < row["high"] < 0
        equal = mine["tree", "same"]
        assert (equal["difference"], equal["p"], equal["p_holm"]) == (0, 1, 1)
        ordered = sorted(r["p"] for r in mine.values())
        assert min(r["p_holm"] for r in mine.values()) == pytest.approx(3 * ordered[0])
    again = episode_pairs(shuffled, "accuracy", rounds=400)
    pairs = {
        frozenset((r["first"], r["second"], r["shots"])): abs(r["difference"]) for r in again.iter_rows(named=True)
    }
    for row in found.iter_rows(named=True):
        assert pairs[frozenset((row["first"], row["second"], row["shots"]))] == pytest.approx(abs(row["difference"]))


def test_episodes_without_mistakes_have_no_severity_and_pairs(episodes):
    row = episode_pairs(episodes, "severity", rounds=50).row(0, named=True)
    a, b = values(episodes, "flat", 1, "severity").ravel(), values(episodes, "tree", 1, "severity").ravel()
    both = np.isfinite(a) & np.isfinite(b)
    assert 0 < both.sum() < len(a)
    assert row["pairs"] == both.sum()
    assert row["difference"] == pytest.approx((a - b)[both].mean())


def test_settings_without_a_common_seed_have_no_pairs(episodes):
    a = episodes.filter(pl.col("setting") == "flat", pl.col("seed") == "1")
    b = episodes.filter(pl.col("setting") == "tree", pl.col("seed") != "1")
    row = episode_pairs(pl.concat([a, b]), "accuracy").row(0, named=True)
    assert (row["pairs"], row["p"], row["p_holm"], row["difference"]) == (0, None, None, None)


def test_a_clip_counts_once_in_the_test_over_recordings(answers):
    row = recording_pairs(answers, rounds=300).row(0, named=True)
    share = {}
    for setting, seed, _, clip, true, said in answers.iter_rows():
        share.setdefault((setting, clip), {}).setdefault(seed, []).append(true == said)
    mean = {key: np.mean([np.mean(told) for told in seeds.values()]) for key, seeds in share.items()}
    clips = sorted({clip for _, clip in mean})
    expected = np.mean([mean["flat", clip] - mean["tree", clip] for clip in clips])
    assert row["difference"] == pytest.approx(expected)
    assert (row["pairs"], row["recordings"], row["seeds"]) == (len(clips), 12, 3)
    assert row["low"] < expected < row["high"]


def test_f1_of_instruments_is_that_of_scikit_learn(answers):
    found = instruments(answers, "flat")
    f1 = {}
    for setting in ("flat", "tree"):
        runs = [answers.filter(pl.col("setting") == setting, pl.col("seed") == seed) for seed in SEEDS]
        each = [f1_score(run["true"], run["predicted"], labels=list("abcd"), average=None) for run in runs]
        f1[setting] = np.stack(each)  # (seeds, classes)
        mine = found.filter(pl.col("setting") == setting)
        assert mine["class"].to_list() == list("abcd")
        assert mine["f1"].to_numpy() == pytest.approx(f1[setting].mean(0))
    gaps = f1["tree"] - f1["flat"]
    assert mine["difference"].to_numpy() == pytest.approx(gaps.mean(0))
    assert mine["low"].to_numpy() == pytest.approx(stats.t.interval(0.95, 2, gaps.mean(0), stats.sem(gaps))[0])
    assert found.filter(pl.col("setting") == "flat")["difference"].is_null().all()


def test_won_and_lost_episodes_have_their_margins(episodes, answers):
    found = extremes(episodes, answers, "flat", "accuracy", 3)
    gap = values(episodes, "tree", 5).mean(0) - values(episodes, "flat", 5).mean(0)
    mine = found.filter(pl.col("setting") == "tree", pl.col("shots") == 5)
    assert mine.filter(pl.col("result") == "won")["margin"].to_list() == pytest.approx(sorted(gap)[::-1][:3])
    lost = mine.filter(pl.col("result") == "lost")
    assert lost["margin"].to_list() == pytest.approx([x for x in sorted(gap)[:3] if x < -1e-9])
    for row in mine.iter_rows(named=True):
        assert row["margin"] == pytest.approx(gap[row["episode"]])
        if row["episode"] < 20:
            asked = answers.filter(pl.col("episode") == row["episode"])["true"].unique().sort()
            assert row["classes"] == " ".join(asked)
    worse = extremes(episodes, answers, "flat", "severity", 3).filter(pl.col("result") == "won")
    assert (worse["margin"] < 0).all()


def test_measures_are_told_from_keys():
    names = ["head", "shots", "kind", "accuracy", "accuracy_low", "accuracy_high", "mistakes", "difference", "p", "ece"]
    assert measured(pl.DataFrame({name: [0] for name in names})) == ["accuracy", "ece"]


def test_a_setting_is_what_varies_whether_it_was_said_or_not(tmp_path):
    config = {"loss": {"height": 1, "levels": None}, "seed": 3}
    said = [{"loss.height": "0", "seed": "1", "run": "a"}, {"run": "b", "paths.data": "x"}, {"loss.levels": "null"}]
    runs = [Found(tmp_path / str(i), each, config, {}) for i, each in enumerate(said)]
    assert {name: [run.seed for run in mine] for name, mine in settings(runs[:2]).items()} == {
        "loss.height=0": ["1"],
        "loss.height=1": ["3"],
    }


def test_pictures_hold_a_box_for_all(episodes):
    sets = {name: {n: values(episodes, name, n).mean(0) for n in (1, 5)} for name in ("flat", "tree", "same")}
    axis = shots_boxes(sets, "accuracy").axes[0]
    assert len(axis.patches) == 6
    runs = {name: values(episodes, name, 5).mean(1) for name in sets}
    axis = settings_boxes({name: mine[5] for name, mine in sets.items()}, runs, "accuracy").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["same", "tree", "flat"]
    assert sum(len(line.get_xdata()) == 3 and line.get_marker() == "o" for line in axis.lines) == 3
    bars = {"x": {"a": -0.1, "b": 0.2}, "y": {"a": 0.3, "b": float("nan")}}
    one, two = instrument_bars(bars, "difference").axes
    assert [bar.get_width() for bar in one.patches] == [-0.1, 0.2]
    assert [bar.get_width() for bar in two.patches] == [0.3, 0.0]


# --- configurations


def composed(*words):
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("main", overrides=list(words), return_hydra_config=True)


SPEC = DataSpec(
    classes=("violin", "oboe", "flute"), groups=("violin", "oboe", "flute"), positives=(3,) * 3, known=(9,) * 3
)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_of_a_fewshot_sweep_builds_the_task(name):
    params = composed(f"sweep={name}").hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    small = ["model=tiny", "frontend=raw", "pooling=mean", "augment=none"]
    for choice in parsed:
        for value in choice.sweep_string_iterator():
            config = composed(f"sweep={name}", f"{choice.key_or_group}={value}", *small)
            task = build_task(config, connect(config.frontend), SPEC)
            connect(config.task.plan)
            assert task.protocol.reference == "hornbostel_sachs"  # whatever the model was trained with
    assert "seed" in params


def test_the_sweeps_of_the_issue_are_there():
    assert set(SWEEPS) >= {f"fewshot_{name}" for name in ("height", "alpha", "shots", "taxonomy", "dim", "interp")}


def test_the_taxonomy_sweep_has_ten_controls_and_none():
    (trees,) = (
        OverridesParser.create()
        .parse_overrides([f"task.tree={composed('sweep=fewshot_taxonomy').hydra.sweeper.params['task.tree']}"])[0]
        .sweep_string_iterator(),
    )
    found = [composed("sweep=fewshot_taxonomy", f"task.tree={tree}").task.tree for tree in trees]
    assert found == ["hornbostel_sachs", *(f"scrambled:{i}" for i in range(10)), None]
    assert all(Taxonomy.load(tree).depth == 4 for tree in found[:-1])


def test_the_paper_cheats_and_says_so():
    config = composed("experiment=music_trees")
    assert config.data.select == "test"
    assert config.data.allow_test_selection
    assert config.task.plan.replacement
    plan, judged = config.task.plan, config.task.evaluation
    assert (plan.ways, plan.shots, plan.queries, plan.episodes) == (12, 4, 12, 1)
    assert (judged.episodes, judged.ways, judged.shots, judged.queries) == (100, 12, [1, 4, 8, 16], 120)
    assert (judged.valid_episodes, judged.valid_ways, judged.valid_shots, judged.valid_queries) == (300, None, 4, 12)
    assert plan.steps * config.trainer.max_epochs == 60_000  # a validation every 150
    task = build_task(config, connect(config.frontend), SPEC)
    parameters = sum(p.numel() for p in task.parameters() if p.requires_grad)
    conv = 128 * 9 + 128 + 3 * (128 * 128 * 9 + 128) + 4 * 256 + 2 + 1024 * 128 + 128
    assert parameters == conv  # as the specification counts them


def test_the_strict_preset_is_the_same_network_without_leaks():
    paper, strict = (composed(f"experiment={name}") for name in PRESETS)
    for group in ("frontend", "augment", "pooling", "loss", "optimizer", "schedule", "trainer"):
        assert paper[group] == strict[group]
    assert {key for key in paper.model if paper.model[key] != strict.model[key]} == {"momentum"}
    assert (strict.data.select, strict.data.allow_test_selection) == ("valid", False)
    assert strict.data.windows.hop >= strict.data.windows.seconds
    assert (strict.task.plan.replacement, strict.task.plan.disjoint) == (False, "track")
    assert strict.task.evaluation.reference == "hornbostel_sachs"

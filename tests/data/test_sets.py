"""Further sets and lists: who asks, who answers, what is left out, and what may stop a run."""

import json

import numpy as np
import polars as pl
import pytest
import soundfile
from omegaconf import OmegaConf

from tonnetz import build
from tonnetz.data import AudioData, Plan
from tonnetz.data.sets import EvaluationSet, read_roles
from tonnetz.datasets.folder import Folder
from tonnetz.datasets.table import Csv
from tonnetz.errors import UserError
from tonnetz.frontend import LogMel

FRAME = pl.DataFrame({"id": ["w1/a", "w1/b", "w2/a", "w2/b", "w3/a"]})


@pytest.fixture
def write(tmp_path):
    def call(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return call


def rows(lists, frame=FRAME):
    """The roles that lists give, as plain numbers."""
    return {name: found.tolist() for name, found in read_roles(lists, frame).items()}


def test_ids_and_pairs(write):
    lists = {
        "queries": write("q.txt", "w2/b\n\nw1/a\n"),
        "references": write("r.txt", "\ufeffw1/b\nw3/a\nw2/b\n"),
        "exclude": write("x.csv", "w2/b, w1/b\nw1/a,w3/a\n"),
    }
    assert rows(lists) == {"queries": [3, 0], "references": [1, 4, 3], "exclude": [[3, 1], [0, 4]]}
    assert read_roles({}, FRAME) == read_roles({"queries": None}, FRAME) == {}


def test_coverhunter_lists_name_tracks_by_perf(write):
    lines = [{"perf": f"{name}", "wav": "x.wav", "dur_s": 9, "work": "w"} for name in ("w2/a", "w1/b")]
    roles = read_roles({"queries": write("q.txt", "\n".join(map(json.dumps, lines)))}, FRAME)
    assert roles["queries"].tolist() == [2, 1]


def test_query_in_ref_holds_places_in_the_lists(write):
    lists = {
        "queries": write("q.txt", "w2/b\nw1/a"),
        "references": write("r.txt", "w1/b\nw3/a\nw2/b"),
        "exclude": write("x.json", json.dumps({"query_in_ref": [[0, 2], [1, 0]]})),
    }
    assert read_roles(lists, FRAME)["exclude"].tolist() == [[3, 3], [0, 1]]
    del lists["queries"], lists["references"]  # then they are places in the set
    assert read_roles(lists, FRAME)["exclude"].tolist() == [[0, 2], [1, 0]]
    assert read_roles({"exclude": write("none.csv", "")}, FRAME)["exclude"].shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("queries", "w1/a\nw9/z", "names 'w9/z'"),
        ("exclude", "w1/a,w9/z", "names 'w9/z'"),
        ("exclude", "w1/a,w1/b,w2/a", "two ids a line"),
        ("exclude", '{"pairs": []}', "query_in_ref"),
        ("exclude", '{"query_in_ref": [[0, 99]]}', "query_in_ref"),
        ("exclude", '{"query_in_ref": [[0]]}', "query_in_ref"),
        ("exclude", '{"query_in_ref": ', "query_in_ref"),
        ("exclude", '{"query_in_ref": [[0, -1]]}', "query_in_ref .*place -1 of a list of 5"),
        ("exclude", '{"query_in_ref": [[true, 1]]}', "query_in_ref"),
        ("exclude", '{"query_in_ref": [["0", 1.5]]}', "query_in_ref"),
        ("queries", "", r"list: names no track; .*data\.lists\.queries=null"),
        ("references", " \n\n", r"list: names no track; .*data\.lists\.references=null"),
        ("queries", "w1/a\nw2/a\nw1/a", "list: names 'w1/a' twice"),
        ("references", "w1/a\nw1/a", "list: names 'w1/a' twice"),
        ("queries", "Beatles, The/Help", "list: names 'Beatles, The/Help', which is no track"),
        ("requests", "w1/a", "data.lists.requests"),
    ],
)
def test_mistakes_in_lists(write, name, text, message):
    with pytest.raises(UserError, match=message):
        read_roles({name: write("list", text)}, FRAME)


def test_ids_may_hold_commas(write):
    frame = pl.DataFrame({"id": ["Beatles, The/Help", "{x}/b", "w,y"]})
    lists = {
        "queries": write("q.txt", "Beatles, The/Help\n{x}/b"),
        "references": write("r.csv", "w,y\n"),
        "exclude": write("x.csv", '"Beatles, The/Help", "w,y"\n'),
    }
    assert rows(lists, frame) == {"queries": [0, 1], "references": [2], "exclude": [[0, 2]]}
    with pytest.raises(UserError, match=r"names '\{x\}/c', which is no track"):
        read_roles({"queries": write("q.txt", "{x}/c\nw,y")}, frame)


def test_a_spreadsheet_names_tracks_without_their_audio(write):
    listed = write("q.csv", "file,work\nw2/b.wav,w2\nw1/a.wav,w1\n")
    assert read_roles({"queries": listed}, FRAME)["queries"].tolist() == [3, 0]


def test_a_list_in_another_encoding(tmp_path):
    (tmp_path / "q.txt").write_bytes("Böhm/a".encode("latin-1"))
    with pytest.raises(UserError, match=r"q\.txt: not text in UTF-8"):
        read_roles({"queries": str(tmp_path / "q.txt")}, FRAME)


def test_missing_list(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: no such list"):
        read_roles({"queries": str(tmp_path / "none.txt")}, FRAME)


@pytest.mark.parametrize("values", [{"role": "judge"}, {"every": 0}, {"role": "stop", "every": 2}])
def test_impossible_sets(values):
    with pytest.raises(UserError, match=r"data\.sets"):
        EvaluationSet(None, **values)


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """Two folders of works x 2 versions: three works, and two others."""
    random = np.random.default_rng(0)
    roots = []
    for names in ("abc", "de"):
        root = tmp_path_factory.mktemp("works")
        for work in names:
            (root / work).mkdir()
            for version in range(2):
                soundfile.write(root / work / f"{version}.wav", 0.1 * random.standard_normal(16000), 16000)
        roots.append(root)
    return roots


def data(works, tmp_path, **options):
    plan = Plan(seconds=0.5, group="work", items=2, source="features")
    corpus = [Folder(works[0], level="work")]
    values = {"batch_size": 4, "workers": 0, "split": "works", "valid_unseen": 0.0, "test_unseen": 0.0, **options}
    return AudioData(corpus, LogMel(), plan, tmp_path / "cache", **values)


def test_sets_are_evaluated_beside_the_splits(works, tmp_path):
    corpus = Folder(works[1], level="work")
    sets = {"judge": EvaluationSet(corpus, "stop"), "show": EvaluationSet(corpus, every=3)}
    module = data(works, tmp_path, sets={"show": sets["show"]})
    assert module.evaluated() == ["show"]
    assert not module.validates
    assert not module.stops("show")
    assert [module.due("show", epoch) for epoch in range(4)] == [True, False, False, True]
    assert module.spec.groups == ("a", "b", "c")
    assert module.spec.tracks == {"train": 6, "valid": 0, "test": 0}
    batches = list(module.val_dataloader())
    codes = {(int(row), int(code)) for batch in batches for row, code in zip(batch["row"], batch["group"], strict=True)}
    assert codes == {(0, 0), (1, 0), (2, 1), (3, 1)}  # works of a set are counted by themselves
    module = data(works, tmp_path, sets={"judge": sets["judge"]})
    assert module.validates
    assert module.stops("judge")
    assert module.stops("valid")


def test_a_work_of_another_corpus_with_the_same_name_is_unseen(works, tmp_path):
    trained = data(works, tmp_path)
    assert trained.seen("train").tolist() == [True] * 6
    again = data(works, tmp_path, spec=trained.spec)
    again.corpora[0].split = "test"
    assert again.seen("test").tolist() == [True] * 6
    random, strangers = np.random.default_rng(1), tmp_path / "strangers"
    for work in "abd":
        (strangers / work).mkdir(parents=True)
        for version in range(2):
            soundfile.write(strangers / work / f"{version}.wav", 0.1 * random.standard_normal(9000), 16000)
    other = data([strangers], tmp_path, spec=trained.spec)
    other.corpora[0].split = "test"
    assert other.seen("test").tolist() == [False] * 6


def test_lists_belong_to_their_set(works, tmp_path, write):
    listed = write("q.txt", "e/0\nd/1")
    sets = {"show": EvaluationSet(Folder(works[1], level="work"), lists={"queries": listed})}
    module = data(works, tmp_path, sets=sets, lists={"queries": write("t.txt", "a/0")})
    assert module.roles("show")["queries"].tolist() == [2, 1]
    assert module.roles("valid") == {}
    with pytest.raises(UserError, match="names 'a/0'"):  # which the split test lacks
        module.roles("test")


def test_a_set_may_not_hold_what_training_holds(works, tmp_path):
    with pytest.raises(UserError, match="train"):
        _ = data(works, tmp_path, sets={"show": EvaluationSet(Folder(works[0], level="work"))}).table
    with pytest.raises(UserError, match=r"data\.sets\.valid"):
        data(works, tmp_path, sets={"valid": EvaluationSet(Folder(works[1], level="work"))})


def test_a_benchmark_may_watch_the_test_split_and_nothing_else_may(works, tmp_path):
    table = tmp_path / "works.csv"
    rows = [(path, path.parent.name) for path in sorted(works[0].rglob("*.wav"))]
    lines = [f"{path},{work},{'test' if work == 'c' else 'train'}" for path, work in rows]
    table.write_text("\n".join(["file,work,split", *lines]) + "\n")

    def module(role, only):
        corpus, further = Csv(table, classes=[]), Csv(table, classes=[])
        further.only = only
        plan = Plan(seconds=0.5, group="work", items=2, source="features")
        values = {"batch_size": 4, "workers": 0, "split": "works", "valid_unseen": 0.0}
        sets = {"bench": EvaluationSet(further, role)}
        return AudioData([corpus], LogMel(), plan, tmp_path / "cache", sets=sets, **values)

    watched = module("benchmark", "test")
    assert watched.split("bench")["path"].to_list() == watched.split("test")["path"].to_list()
    assert set(watched.split("bench")["work"]) == {"c"}
    assert watched.evaluated() == ["bench"]
    assert not watched.stops("bench")
    assert not watched.validates  # nothing of it chooses a checkpoint
    assert sum(len(batch["row"]) for batch in watched.val_dataloader()) == 4
    for role, only, where in (("stop", "test", "bench and test"), ("benchmark", None, "bench and train")):
        with pytest.raises(UserError, match=f"in the splits {where}"):
            _ = module(role, only).table


def test_a_set_has_no_other_split():
    node = OmegaConf.create({"sets": {"bench": {"source": {"name": "csv", "root": "a.csv", "split": "test"}}}})
    with pytest.raises(UserError, match=r"data\.sets\.bench: .*only=test"):
        build._sets(node)
    node.sets.bench.source = {"name": "csv", "root": "a.csv", "only": "test", "classes": []}
    assert build._sets(node)["bench"].corpus.only == "test"


def test_training_batches_hold_works_and_versions(works, tmp_path):
    module = data(works, tmp_path)
    batch = next(iter(module.train_dataloader()))
    assert batch["features"].shape[0] == 4
    assert sorted(batch["group"].bincount().tolist())[-2:] == [2, 2]
    assert len(batch["row"].unique()) == 4
    frame = module.split("train")
    assert [frame["work"][row] for row in batch["row"].tolist()] == ["abc"[code] for code in batch["group"].tolist()]


def test_labels_of_other_corpora_are_no_mistake(works, tmp_path):
    spec = data(works, tmp_path).spec
    labelled = AudioData([Folder(works[1])], LogMel(), Plan(seconds=0.5, group="work"), tmp_path / "c", spec=spec)
    labelled.table  # noqa: B018
    assert labelled._labels(labelled.table).shape == (4, 0)

"""job=taxonomy and job=partition, as a user runs them."""

import json
import shutil

import pytest

from tonnetz.taxonomy import Taxonomy

NAMES = ("violin", "viola", "cello", "flute", "oboe", "clarinet", "trumpet", "bagpipe", "gong")


@pytest.fixture
def instruments(tmp_path, corpus):
    """Nine classes of two to ten files each, copies of a few sounds."""
    root = tmp_path / "instruments"
    for i, name in enumerate(NAMES):
        folder = root / name
        folder.mkdir(parents=True)
        for k in range(2 + i):
            source = corpus / ("buzz", "noise", "sine")[i % 3] / f"{k % 10}.wav"
            data = source.read_bytes()
            (folder / f"{k}.wav").write_bytes(data)
    return root


def test_the_tree_on_the_screen_and_as_files(cli, tmp_path):
    apart = cli("job=taxonomy", "job.between=[violin,trumpet]", run="apart")
    done = cli("job=taxonomy", "job.tree=hornbostel_sachs", f"job.out={tmp_path}/own.yaml")
    assert done.status == 0, done.err
    for text in ("bowed_lutes", "136 leaves, 51 inner nodes, 6 groups, depth 4", "136, 38, 25, 7", "irmas 11"):
        assert text in done.out
    assert "violin and trumpet: only the root is above both; 8 edges apart; height of the common ancestor 4 padded" in (
        " ".join(apart.out.split())
    )
    assert "bowed_lutes" not in apart.out  # the answer stands alone
    assert (done.folder / "figures" / "taxonomy.png").stat().st_size > 50_000
    facts = done.json("taxonomy.json")
    assert apart.json("taxonomy.json")["between"]["common"] is None
    assert facts["chance_severity"] == {"padded": 3.7277, "natural": 3.6535}  # as counted by hand below
    tree = Taxonomy.load("hornbostel_sachs")
    leaves = tree.leaves()
    lines = {leaf: [leaf, *tree.ancestors(leaf)] for leaf in leaves}
    below = {node: max(lines[leaf].index(node) for leaf in leaves if node in lines[leaf]) for node in tree.inner}
    heights = [
        min((below[node] for node in lines[a][1:] if node in lines[b]), default=4)
        for a in leaves
        for b in leaves
        if a != b
    ]
    assert facts["chance_severity"]["natural"] == round(sum(heights) / len(heights), 4)


@pytest.mark.parametrize(
    "name", ["hornbostel_sachs", "scrambled:2", "random:2", "flat", "music_trees", "alt", "origin", "joint", "ez"]
)
def test_a_written_tree_is_the_same_again(cli, tmp_path, name):
    done = cli("job=taxonomy", f"job.tree={name}", f"job.out={tmp_path}/own.yaml")
    assert done.status == 0, done.err
    tree, again = Taxonomy.load(name), Taxonomy.load(tmp_path / "own.yaml")
    assert set(again.nodes) == set(tree.nodes)
    for node in tree.nodes:
        assert again.ancestors(node) == tree.ancestors(node)
        assert set(again.leaves(node)) == set(tree.leaves(node))
        assert again.family(node) == tree.family(node)
    assert again.aliases == tree.aliases
    assert again.resolve("cor anglais") == tree.resolve("cor anglais") == ("oboe" if name == "ez" else "english_horn")
    assert (done.folder / "figures" / "taxonomy.png").stat().st_size > 20_000


def test_counts_of_a_corpus(cli, instruments):
    done = cli("job=taxonomy", "job.counts=true", "data=folder", f"data.root={instruments}")
    assert done.status == 0, done.err
    assert done.json("taxonomy.json")["counts"] == {name: 2 + i for i, name in enumerate(NAMES)}
    assert "trumpet  8" in done.out
    assert "groups of 9 classes" in done.out
    assert "piano" not in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("job.tree=hornbostel_sax",), "did you mean 'hornbostel_sachs'"),
        (("job.tree=nosuch",), "error: job.tree=nosuch: no such taxonomy or file; known: ez, hornbostel_sachs"),
        (("data.taxonomy=nosuch",), "error: data.taxonomy=nosuch"),
        (("job.between=[violin,viollin]",), "label 'viollin' is not in the taxonomy; did you mean 'violin'?"),
        (("job.between=[violin]",), "needs two labels"),
        (("job.out=tree.txt",), "give it the ending .yaml"),
        (("job.tree=random:x",), "needs a seed"),
    ],
)
def test_mistakes(cli, words, message):
    done = cli("job=taxonomy", *words)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [x, y]\nb: [x]", "'x' is there twice"),
        ("a: &a {b: *a}", "a taxonomy has no cycles"),
        ("a: []", "nothing under 'a'"),
        ("a: ['']", "is not a name"),
    ],
)
def test_a_tree_that_is_none(cli, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    done = cli("job=taxonomy", f"job.tree={tmp_path / 'bad.yaml'}")
    assert done.status == 2
    assert message in done.err


def test_a_label_outside_the_tree_suggests_the_nearest(cli, instruments):
    shutil.move(instruments / "violin", instruments / "viollin")
    done = cli("job=taxonomy", "job.counts=true", "data=folder", f"data.root={instruments}")
    assert done.status == 2
    assert "label 'viollin' is not in the taxonomy; did you mean 'violin'?" in done.err


def partitioned(cli, instruments, *words):
    done = cli("job=partition", "data=folder", f"data.root={instruments}", "data.taxonomy=hornbostel_sachs", *words)
    assert done.status == 0, done.err
    return done, json.loads((done.folder / "partition.json").read_text())


def test_partition_of_a_corpus(cli, instruments):
    done, parts = partitioned(cli, instruments, "data.valid=0.2", "data.test=0.2")
    assert list(parts) == ["train", "valid", "test"]
    assert sorted(name for own in parts.values() for name in own) == sorted(NAMES)
    for part in parts.values():  # three chordophones, five aerophones, one idiophone
        assert {"violin", "viola", "cello"} & set(part)
        assert {"flute", "oboe", "clarinet", "trumpet", "bagpipe"} & set(part)
    assert "'idiophones' (1 class) is not in" in done.out
    assert f"bagpipe  {next(part for part, own in parts.items() if 'bagpipe' in own)} 9" in done.out
    assert (done.folder / "figures" / "partition.png").stat().st_size > 10_000
    _, again = partitioned(cli, instruments, "data.valid=0.2", "data.test=0.2")
    assert again == parts
    others = [partitioned(cli, instruments, f"job.seed={seed}")[1] for seed in (1, 2, 3)]
    assert any(other != parts for other in others)


def test_partition_into_any_parts(cli, instruments):
    _, parts = partitioned(cli, instruments, "job.sizes=[0.7,0.2,0.1]", "job.level=1")
    assert [len(own) for own in parts.values()] == [6, 2, 1]
    sizes = "{a: 0.4, b: 0.2, c: 0.2, d: 0.1, e: 0.1}"
    _, parts = partitioned(cli, instruments, f"job.sizes={sizes}", "job.level=1", "data.fixed={e: [violin]}")
    assert [len(own) for own in parts.values()] == [3, 2, 2, 1, 1]
    assert parts["e"] == ["violin"]


def test_partition_without_a_tree(cli, instruments):
    done = cli("job=partition", "data=folder", f"data.root={instruments}", "data.taxonomy=null")
    assert done.status == 0, done.err
    assert sorted(map(len, done.json("partition.json").values())) == [1, 2, 6]


def test_partition_mistakes(cli, instruments):
    words = ("job=partition", "data=folder", f"data.root={instruments}", "data.taxonomy=hornbostel_sachs")
    for more, message in (
        ("job.sizes=[0.7,0.1,0.1]", "sum to 0.9; they must be fractions that sum to 1"),
        ("job.sizes=[0.4,0.2,0.2,0.2]", "parts by name"),
        ("job.level=9", "must be from 1"),
    ):
        done = cli(*words, more)
        assert done.status == 2, done.out
        assert message in done.err


def test_names_that_a_tree_lacks_are_told(cli):
    done = cli("job=taxonomy", "job.tree=music_trees")
    assert done.status == 0, done.err
    lacking = done.json("taxonomy.json")["lacking"]
    assert {"synthesizer", "electronic_organ", "drum_machine", "theremin"} <= set(lacking["leaves"])
    assert lacking["openmic"] == ["synthesizer"]
    assert "other trees also have 1 names of openmic: synthesizer" in " ".join(done.out.split())
    done = cli("job=taxonomy", run="own")
    odd = {name for name in done.json("taxonomy.json")["lacking"]["leaves"] if not name.endswith("_section")}
    assert odd <= {*Taxonomy.load("ez").leaves(), *Taxonomy.load("joint").leaves()}
    assert {"small_percussion", "native_flute"} <= odd

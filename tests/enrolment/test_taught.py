"""Classes taught by examples: leaving one out equals doing it, adding changes nothing else, files are what they say."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from scipy.ndimage import median_filter

from tonnetz.enrolment.examples import Example, examine, find_examples
from tonnetz.enrolment.lineage import Place, lines, some, table
from tonnetz.enrolment.measure import Measure
from tonnetz.enrolment.taught import HEADS, UNKNOWN, UNSURE, Enrolment, head_of
from tonnetz.enrolment.timeline import boundaries, label_track, runs, smooth
from tonnetz.errors import UserError
from tonnetz.fewshot.background import Background
from tonnetz.heads import SimpleShot
from tonnetz.losses import Prototypes
from tonnetz.taxonomy import Taxonomy

DIM, RATE = 12, 16000
LABELS = {"violin": 5, "cello": 4, "oboe": 3, "kazoo": 4}


def made_with(**changes):
    measure = {"distance": "euclidean", "scale": 2.0, "normalize": "none", "curvature": 0.01, "clip": 10.0}
    facts = {"encoder": "e1", "frontend": "f1", "window": 1.0, "hop": 0.5, "pad": "zero", "normalize": True}
    return {**facts, "segment": None, "segment_hop": None, "measure": measure, "tree": "hornbostel_sachs"} | changes


def sounds(labels, seed=0, windows=3):
    """Examples of classes at random places, each of 1 to `windows` windows; oboe and kazoo lie near each other."""
    random = np.random.default_rng(seed)
    examples, vectors, rows = [], [], []
    for label, count in labels.items():
        number = list(LABELS).index(label) if label in LABELS else 9
        place = np.random.default_rng(min(number, 2)).normal(size=DIM) * 2 + 0.7 * number
        for i in range(count):
            examples.append(Example(label, f"{label}/{i}.wav", 1.0, f"{label}{i}"))
            n = int(random.integers(1, windows + 1))
            vectors.append(place + random.normal(size=DIM) + 0.3 * random.normal(size=(n, DIM)))
            rows += [len(examples) - 1] * n
    return examples, torch.tensor(np.concatenate(vectors)).float(), torch.tensor(rows)


@pytest.fixture
def enrolment():
    return Enrolment.build(made_with(), *sounds(LABELS))


def spaces():
    for distance in ("euclidean", "squared", "cosine", "hyperbolic"):
        yield {"distance": distance, "scale": 3.0, "normalize": "none", "curvature": 0.05, "clip": 4.0}
    yield {"distance": "squared", "scale": 10.0, "normalize": "l2", "curvature": 0.01, "clip": 10.0}


@pytest.mark.parametrize("measure", spaces(), ids=lambda m: m["distance"] + m["normalize"])
def test_leaving_one_out_equals_doing_it(measure):
    labels = {"violin": 5, "cello": 4, "oboe": 1}
    examples, windows, row = sounds(labels)
    found = Enrolment.build(made_with(measure=measure), examples, windows, row)
    for i, example in enumerate(examples):
        code = found.names.index(example.label)
        kept = [e for j, e in enumerate(examples) if j != i]
        others = (row != i).nonzero()[:, 0]
        renumbered = row[others] - (row[others] > i).long()
        if labels[example.label] == 1:
            assert torch.isinf(found.left_out[i, code])
            continue
        rest = Enrolment.build(found.facts, kept, windows[others], renumbered)
        torch.testing.assert_close(found.left_out[i], rest.distances(found.vectors[i : i + 1])[0])
        assert bool(found.right[i]) == (int(rest.distances(found.vectors[i : i + 1]).argmin()) == code)
    right = [bool(r) for r, e in zip(found.right, examples, strict=True) if e.label == "violin"]
    assert found.accuracy[found.names.index("violin")] == pytest.approx(np.mean(right))
    assert torch.isnan(found.accuracy[found.names.index("oboe")])


@pytest.mark.parametrize("measure", spaces(), ids=lambda m: m["distance"] + m["normalize"])
def test_scores_are_those_of_the_loss_or_of_simpleshot(measure):
    examples, windows, row = sounds(LABELS)
    found = Enrolment.build(made_with(measure=measure), examples, windows, row)
    query = torch.randn(7, DIM, generator=torch.Generator().manual_seed(0)) * 3
    support, mask = found._grid()
    if measure["normalize"] == "l2":
        expected = SimpleShot("l2")(support, mask, query[None])[0]
    else:
        space = {key: value for key, value in measure.items() if key != "normalize"}
        expected = Prototypes(**space).leaf_logits(support, mask, query[None])[0]
    torch.testing.assert_close(found.scores(query).float(), expected, atol=2e-3, rtol=1e-4)


def test_the_measure_is_that_of_the_task():
    class Own:
        def __init__(self, **keys):
            self.criterion, self.own = Prototypes(**keys), None

    assert Measure.of(object()) == Measure("squared", 10.0, "l2")
    assert Measure.of(Own(distance="cosine")) == Measure("cosine", pytest.approx(10.0), "none")
    ball = Measure.of(Own(distance="hyperbolic", curvature=0.2, clip=3.0, scale=2.0))
    assert ball == Measure("hyperbolic", pytest.approx(2.0), "none", 0.2, 3.0)


def same(a, b):
    assert a.names == b.names
    assert a.places == b.places
    order = sorted(range(len(a.examples)), key=lambda i: a.examples[i].file)
    other = sorted(range(len(b.examples)), key=lambda i: b.examples[i].file)
    assert [a.examples[i] for i in order] == [b.examples[i] for i in other]
    assert torch.equal(a.vectors[order], b.vectors[other])
    for i, j in zip(order, other, strict=True):
        assert torch.equal(a.windows[a.row == i], b.windows[b.row == j])


def test_adding_a_class_changes_nothing_else(enrolment):
    more = enrolment.add(*sounds({"trumpet": 3}, seed=5))
    assert more.names == sorted([*LABELS, "trumpet"])
    columns = [more.names.index(name) for name in enrolment.names]
    query = torch.randn(5, DIM, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(more.distances(query)[:, columns], enrolment.distances(query), rtol=1e-12, atol=1e-12)
    assert [more.places[i] for i in columns] == enrolment.places
    same(more.remove(["trumpet"]), enrolment)


def test_built_at_once_or_piece_by_piece_is_the_same():
    examples, windows, row = sounds(LABELS)
    whole = Enrolment.build(made_with(), examples, windows, row)
    cut = 9  # violin and cello first, whole classes
    late = row >= cut
    pieces = Enrolment.build(made_with(), examples[:cut], windows[~late], row[~late])
    same(pieces.add(examples[cut:], windows[late], row[late] - cut), whole)


def test_more_examples_of_a_class_join_it(enrolment):
    examples, windows, row = sounds({"oboe": 2}, seed=8)
    examples = [Example("oboe", f"new/{i}", 1.0, f"x{i}") for i in range(2)]
    more = enrolment.add(examples, windows, row)
    assert more.names == enrolment.names
    assert int(more.count[more.names.index("oboe")]) == LABELS["oboe"] + 2


def test_removing_refuses_what_is_not_there_and_what_would_leave_one(enrolment):
    with pytest.raises(UserError, match="did you mean 'violin'"):
        enrolment.remove(["violon"])
    with pytest.raises(UserError, match="two or more must stay"):
        enrolment.remove(["violin", "cello", "oboe"])
    with pytest.raises(UserError, match="one class alone"):
        Enrolment.build(made_with(), *sounds({"violin": 3}))


# On disk


def test_a_file_gives_back_what_was_saved(enrolment, tmp_path):
    path = tmp_path / "a.protos"
    enrolment.center = torch.arange(DIM).float()
    enrolment.save(path)
    found = Enrolment.load(path, "e1", "f1")
    same(found, enrolment)
    assert torch.equal(found.center, enrolment.center)
    assert found.facts == enrolment.facts
    assert torch.equal(found.left_out, enrolment.left_out)
    assert [p.name for p in tmp_path.iterdir()] == ["a.protos"]


def test_the_header_says_everything_in_json(enrolment, tmp_path):
    path = tmp_path / "a.protos"
    enrolment.save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    head = json.loads(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]["tonnetz"])
    assert head["format"] == 1
    assert {c["name"]: c["count"] for c in head["classes"]} == LABELS
    assert head["facts"]["encoder"] == "e1"
    assert head["reject"]["file"]["threshold"] == enrolment.limit().threshold
    assert len(head["examples"]) == sum(LABELS.values())


@pytest.mark.parametrize(("which", "value"), [("encoder", "e2"), ("frontend", "f2")])
def test_another_encoder_or_frontend_is_refused(enrolment, tmp_path, which, value):
    enrolment.save(tmp_path / "a.protos")
    wanted = {"encoder": "e1", "frontend": "f1"} | {which: value}
    with pytest.raises(UserError, match=f"was made with {which} {value[0]}1, the checkpoint's is {value}") as error:
        Enrolment.load(tmp_path / "a.protos", **wanted)
    assert "\n" not in str(error.value)


def test_foreign_and_broken_files_are_refused(enrolment, tmp_path):
    path = tmp_path / "a.protos"
    with pytest.raises(UserError, match="no such prototypes file"):
        Enrolment.load(path)
    path.write_text("not safetensors")
    with pytest.raises(UserError, match="cannot be read as prototypes"):
        Enrolment.load(path)
    save_file({"vectors": torch.zeros(2, 3)}, path)
    with pytest.raises(UserError, match="is no prototypes file"):
        Enrolment.load(path)
    enrolment.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read as prototypes"):
        Enrolment.load(path)
    head = enrolment.describe()
    tensors = {"vectors": enrolment.vectors, "windows": enrolment.windows, "row": enrolment.row}
    for change, match in (
        ({"format": 7}, "format 7"),
        ({"examples": head["examples"][1:]}, "broken"),
        ({"classes": head["classes"][1:]}, "broken"),
        ({"facts": {}}, "broken"),
    ):
        save_file(tensors, path, {"tonnetz": json.dumps(head | change)})
        with pytest.raises(UserError, match=match):
            Enrolment.load(path)


# The unknown


@pytest.mark.parametrize("accept", [0.5, 0.9, 1.0])
def test_the_threshold_accepts_a_share_of_left_out_examples(accept):
    found = Enrolment.build(made_with(tree=None), *sounds({"violin": 8, "cello": 8, "oboe": 5}, seed=2))
    kin, stranger = [], []
    for i in range(len(found.examples)):
        kin.append(float(found.left_out[i].min()))
        stranger.append(min(float(d) for c, d in enumerate(found.left_out[i]) if c != int(found.code[i])))
    limit = found.limit("file", accept)
    assert limit.threshold == pytest.approx(np.quantile(kin, accept, method="inverted_cdf"))
    assert limit.accepted == pytest.approx(np.mean(np.array(kin) <= limit.threshold))
    assert limit.passed == pytest.approx(np.mean(np.array(stranger) <= limit.threshold))
    assert abs(limit.accepted - accept) <= 1 / len(kin)


def test_single_examples_tell_nothing_about_the_unknown():
    found = Enrolment.build(made_with(), *sounds({"violin": 1, "cello": 1}))
    assert found.limit().threshold is None
    answers = found.decide(torch.tensor([[0.9, 0.1]]), *[torch.tensor([[1e9, 1e9]])] * 2, None)
    assert answers.text == ["cello"]
    assert found.describe()["accuracy"] is None
    assert len(found.warnings()) == 2


def test_windows_have_a_threshold_of_their_own(enrolment):
    windows = enrolment.measure.left_out(
        enrolment.points, enrolment.code, 4, enrolment.measure.points(enrolment.windows), enrolment.row
    )
    for m in range(0, len(enrolment.row), 5):
        i = int(enrolment.row[m])
        code = int(enrolment.code[i])
        mates = [j for j in range(len(enrolment.code)) if j != i and int(enrolment.code[j]) == code]
        own = (enrolment.windows[m].double() - enrolment.vectors[mates].double().mean(0)).norm()
        assert float(windows[m, code]) == pytest.approx(float(own))
    assert torch.equal(enrolment.left_out_windows, windows)
    weights = 1 / np.bincount(enrolment.row)[enrolment.row]  # every example counts the same
    nearest = windows.min(1).values.numpy()
    expected = np.quantile(nearest, 0.85, weights=weights, method="inverted_cdf")
    assert enrolment.limit("window", 0.85).threshold == pytest.approx(expected)


@pytest.fixture
def told():
    """An enrolment that knows how forty other classes lie; one class has one example."""
    random = torch.Generator().manual_seed(2)
    codes = torch.arange(40).repeat_interleave(10)
    z = 2 * torch.randn(40, DIM, generator=random)[codes] + torch.randn(400, DIM, generator=random)
    background = Background(DIM)
    background.fit(z, codes)
    return Enrolment.build(made_with(), *sounds(LABELS | {"harp": 1}), background=background)


@pytest.mark.parametrize("kind", ["file", "window"])
def test_left_out_ratios_equal_doing_it(told, kind):
    assert told.judged(None) == "ratio"
    found = told.left_out_novelties(kind)
    asked, row = (told.vectors, torch.arange(len(told.code))) if kind == "file" else (told.windows, told.row)
    for m in range(0, len(row), 3):
        i = int(row[m])
        code = int(told.code[i])
        if told.count[code] == 1:
            assert torch.isinf(found[m, code])
            continue
        others = (told.row != i).nonzero()[:, 0]
        kept = [e for j, e in enumerate(told.examples) if j != i]
        renumbered = told.row[others] - (told.row[others] > i).long()
        rest = Enrolment.build(told.facts, kept, told.windows[others], renumbered, background=told.background)
        torch.testing.assert_close(found[m], rest.novelties(asked[m : m + 1])[0], rtol=1e-6, atol=1e-6)
    kin = found.min(1).values[told.shared[row]]
    if kind == "file":
        assert told.limit().threshold == pytest.approx(np.quantile(kin, 0.8, method="inverted_cdf"))
    assert not torch.equal(told.novelties(told.vectors, "distance"), told.novelties(told.vectors))
    torch.testing.assert_close(told.left_out_novelties("file", "distance"), told.left_out)


def test_the_background_is_kept_in_the_file_and_files_without_it_are_judged_by_distance(told, enrolment, tmp_path):
    told.save(tmp_path / "a.protos")
    again = Enrolment.load(tmp_path / "a.protos")
    torch.testing.assert_close(again.novelties(told.vectors), told.novelties(told.vectors))
    assert again.limit() == told.limit()
    assert again.remove(["oboe"]).background is not None
    assert again.add(*sounds({"trumpet": 3}, seed=5)).background is not None
    enrolment.save(tmp_path / "b.protos")  # as they were before
    old = Enrolment.load(tmp_path / "b.protos")
    assert old.judged(None) == "distance"
    assert torch.equal(old.novelties(old.vectors), old.distances(old.vectors))
    with pytest.raises(UserError, match="do not know how training classes lie") as error:
        old.judged("ratio")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="did you mean 'ratio'"):
        told.judged("ratios")
    tensors = {"vectors": told.vectors, "windows": told.windows, "row": told.row, "background.mean": torch.zeros(3)}
    save_file(tensors, tmp_path / "c.protos", {"tonnetz": json.dumps(told.describe())})
    with pytest.raises(UserError, match="broken"):
        Enrolment.load(tmp_path / "c.protos")


def test_answers_back_off_to_a_family_and_to_nothing():
    found = Enrolment.build(made_with(), *sounds({"violin": 3, "cello": 3, "oboe": 3}))
    assert found.names == ["cello", "oboe", "violin"]
    prob = torch.tensor([[0.8, 0.1, 0.1], [0.45, 0.1, 0.45], [0.4, 0.4, 0.2], [0.1, 0.8, 0.1]]).double()
    near = torch.zeros(4, 3).double()
    far = near.clone()
    far[3] = 5.0
    answers = found.decide(prob, near, far, 4.0, 0.7)
    assert answers.text == ["cello", "some bowed lute", UNSURE, UNKNOWN]
    assert answers.node == ["cello", "bowed_lutes", "", "oboe"]
    assert answers.level.tolist()[:3] == [0, 1, found.levels.shape[1]]
    assert answers.unknown.tolist() == [False, False, False, True]
    assert found.family(2, prob[1]) == [
        ("violin", pytest.approx(0.45)),
        ("bowed_lutes", pytest.approx(0.9)),
        ("lutes", pytest.approx(0.9)),
        ("chordophones", pytest.approx(0.9)),
    ]


def test_what_is_said_of_a_family():
    assert some("bowed_lutes") == "some bowed lute"
    assert some("bars_and_plates") == "some bar and plate"
    assert some("slide_brass") == "some slide brass"


# Places in the tree


def test_classes_find_their_place_by_name_or_alias_or_nearest_family():
    found = Enrolment.build(made_with(), *sounds(LABELS))
    places = {place.name: place for place in found.places}
    assert places["violin"] == Place("violin", "violin")
    assert places["kazoo"].attached
    kazoo = found.prototypes[found.names.index("kazoo")]
    strings = found.prototypes[[found.names.index("cello"), found.names.index("violin")]].mean(0)
    wind = found.prototypes[found.names.index("oboe")]
    nearest = "chordophones" if (kazoo - strings).norm() < (kazoo - wind).norm() else "aerophones"
    assert places["kazoo"].node == nearest
    alone = Enrolment.build(made_with(), *sounds(LABELS), attach=False)
    assert {p.name: p for p in alone.places}["kazoo"] == Place("kazoo")
    assert Enrolment.build(made_with(tree=None), *sounds(LABELS)).nodes == []


def test_a_class_may_be_an_inner_node_with_another_below_it():
    tree = Taxonomy.load("hornbostel_sachs")
    places = [Place("guitar", "guitars"), Place("ukulele", "ukulele"), Place("x"), Place("y", "lutes", attached=True)]
    above = lines(places, tree)
    assert above[0] == ("guitars", "lutes", "chordophones")
    assert above[1] == above[0]
    assert above[2] == ()
    assert above[3] == ("lutes", "chordophones")
    codes, names = table(above)
    assert codes.shape == (4, 4)
    assert codes[0, 1:].tolist() == codes[1, 1:].tolist()
    assert codes[2].tolist() == [2, 2, 2, 2]
    assert names[int(codes[3, 1]) - 4] == "lutes"
    assert codes[3, 1] == codes[3, 2]  # padded at the class
    two = lines([Place("fiddle", "violin"), Place("violin", "violin")], tree)
    assert two[0][0] == "violin"  # the node that both are


# Doubts


def test_doubtful_classes_are_named(enrolment):
    examples, _, _ = sounds(LABELS)
    twin = Example("cello", "cello/twin.wav", 1.0, examples[0].mark)
    near = Example("oboe", "oboe/near.wav", 1.0, "other")
    copies = torch.cat([enrolment.vectors[0:1], enrolment.vectors[-1:] + 1e-5])
    found = enrolment.add([twin, near], copies, torch.tensor([0, 1]))
    text = "\n".join(found.warnings())
    assert "cello/twin.wav: is the same file as violin/0.wav of class violin" in text
    assert "oboe/near.wav: sounds just like" in text
    assert not [line for line in enrolment.warnings() if "same file" in line or "sounds just" in line]
    random = torch.Generator().manual_seed(1)
    both = [Example(name, f"{name}{i}", 1.0, f"{name}{i}") for name in ("violin", "viola") for i in range(6)]
    alike = Enrolment.build(made_with(), both, torch.randn(12, 40, generator=random), torch.arange(12))
    assert any("viola and violin: their prototypes nearly coincide" in line for line in alike.warnings())
    apart = torch.randn(12, 40, generator=random) + 9 * (torch.arange(12) > 5)[:, None]
    assert not Enrolment.build(made_with(), both, apart, torch.arange(12)).warnings()


@pytest.mark.parametrize("name", HEADS)
def test_other_heads_answer_by_name(enrolment, name):
    enrolment.center = enrolment.vectors.mean(0)
    scores = enrolment.scores(enrolment.vectors, name)
    assert scores.shape == (len(enrolment.examples), 4)
    assert (scores.argmax(1) == enrolment.code).double().mean() > 0.6
    support, mask = enrolment._grid()
    assert mask.sum(2)[0].tolist() == enrolment.count.tolist()
    for c in range(4):
        mine = enrolment.vectors[enrolment.code == c]
        assert torch.equal(support[0, c][mask[0, c]], mine)


def test_unknown_heads_and_a_missing_center_are_told(enrolment):
    with pytest.raises(UserError, match=r"job\.head=svm"):
        head_of("svm")
    with pytest.raises(UserError, match="cl2"):
        enrolment.scores(enrolment.vectors, "simpleshot_cl2")


# Examples


def tone(seconds, pitch=220.0, level=0.5, rate=RATE):
    return (level * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("sound", "doubt"),
    [
        (tone(1.0), None),
        (tone(1.0, pitch=41.0, level=0.99999), None),  # a low note that is as loud as can be
        (np.clip(3 * tone(1.0), -1, 1), "clipped in"),
        (tone(1.0, level=0.001), "nearly silent"),
        (np.concatenate([tone(0.1), np.zeros(RATE, np.float32)]), "of it is silent"),
        (tone(0.1), "too short"),
    ],
)
def test_doubtful_examples_are_told(tmp_path, sound, doubt):
    soundfile.write(tmp_path / "a.wav", sound, RATE)
    example, doubts = examine(tmp_path / "a.wav", "a.wav", "x", window=1.0)
    assert example.seconds == pytest.approx(len(sound) / RATE, abs=1e-3)
    assert len(doubts) == (doubt is not None)
    assert not doubt or doubt in doubts[0]


def test_silence_is_no_example(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(UserError, match="silent"):
        examine(tmp_path / "a.wav", "a.wav", "x", 1.0)


def test_examples_of_folders_and_tables(tmp_path):
    for label in ("b", "a"):
        (tmp_path / "in" / label / "deep").mkdir(parents=True)
        soundfile.write(tmp_path / "in" / label / "deep" / "1.wav", tone(0.2), RATE)
    found = find_examples(tmp_path / "in")
    assert [(file, label) for _, file, label in found] == [("a/deep/1.wav", "a"), ("b/deep/1.wav", "b")]
    table = tmp_path / "in.csv"
    table.write_text("file;label\nin/a/deep/1.wav;x\nin/b/deep/1.wav;y\n")
    assert [(path, label) for path, _, label in find_examples(table)] == [
        (tmp_path / "in/a/deep/1.wav", "x"),
        (tmp_path / "in/b/deep/1.wav", "y"),
    ]
    for text, match in (
        ("name,label\na,b\n", "needs the columns file"),
        ("file,label\na,\n", "line 2"),
        ("file,label\n", "no examples"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=match):
            find_examples(table)
    (tmp_path / "in" / "c").mkdir()
    with pytest.raises(UserError, match="no audio files for this class"):
        find_examples(tmp_path / "in")
    with pytest.raises(UserError, match="has no sub-folders"):
        find_examples(tmp_path / "in" / "a" / "deep")
    soundfile.write(tmp_path / "in" / "loose.wav", tone(0.2), RATE)
    with pytest.raises(UserError, match="lies beside the classes"):
        find_examples(tmp_path / "in")
    with pytest.raises(UserError, match="no such folder"):
        find_examples(tmp_path / "nowhere")


# Along time


@pytest.mark.parametrize("width", [1, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_smoothing_is_a_median_filter(width, count):
    values = np.random.default_rng(0).uniform(size=(count, 3))
    expected = median_filter(values, size=(width, 1), mode="nearest")
    np.testing.assert_allclose(smooth(torch.tensor(values), width).numpy(), expected)


def test_an_even_median_is_refused():
    with pytest.raises(UserError, match=r"job\.smooth=4"):
        smooth(torch.zeros(3, 1), 4)


def test_label_tracks_join_equal_neighbours_without_gaps():
    start, end = np.array([0.0, 0.5, 1.0, 1.4]), np.array([1.0, 1.5, 2.0, 2.4])
    edges = boundaries(start, end)
    assert edges.tolist() == pytest.approx([0.0, 0.75, 1.25, 1.7, 2.4])
    found = runs(["a", "a", "b", "a\tx"], edges)
    assert [(round(s, 3), round(e, 3), label) for s, e, label in found] == [
        (0.0, 1.25, "a"),
        (1.25, 1.7, "b"),
        (1.7, 2.4, "a\tx"),
    ]
    assert label_track(found).splitlines()[2] == "1.700000\t2.400000\ta x"

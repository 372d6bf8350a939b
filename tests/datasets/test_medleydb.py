"""A miniature of MedleyDB: two tracks of V1, one of V2, one of neither; bleed, a missing stem, missing activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tonnetz.data.prepare import prepare
from tonnetz.data.segmentation import window_rows
from tonnetz.datasets.medleydb import FACTS, MedleyDB, read_activations
from tonnetz.errors import UserError
from tonnetz.taxonomy import Taxonomy
from tonnetz.tracks import check_disjoint, split_tracks, table

RATE = 8000
RAIN, ROCK, VERDI, MINE = "LizNelson_Rainfall", "MusicDelta_Rock", "Verdi_IlTrovatore", "Me_Song"
STEMS = {
    RAIN: ["female singer", "acoustic guitar", "fx/processed sound"],
    ROCK: ["drum set", "violin section", "string section"],
    VERDI: ["male singer", "piano", "castanet"],
    MINE: ["Main System", "erhu"],
}
BLEED = {VERDI}
LOST = f"{ROCK}_STEM_01"


def stem(track, number):
    return f"{track}_STEM_{number:02d}"


def write_track(root, track, metadata):
    """Audio of a track: the first half of every stem is silent, in the second it plays its own note."""
    stems = {}
    for number, instrument in enumerate(STEMS[track], 1):
        name = stem(track, number)
        path = root / "Audio" / track / f"{track}_STEMS" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = 0.3 * np.sin(np.arange(RATE) * number / 9)
        if name != LOST:
            soundfile.write(path, np.append(np.zeros(RATE), sound), RATE)
        raw = root / "Audio" / track / f"{track}_RAW" / f"{track}_RAW_{number:02d}_01.wav"
        raw.parent.mkdir(exist_ok=True)
        raw.write_bytes(b"not read")
        facts = {"component": "melody" if number == 1 else "", "filename": f"{name}.wav", "instrument": instrument}
        stems[f"S{number:02d}"] = {**facts, "raw": {"R01": {"filename": raw.name, "instrument": instrument}}}
    soundfile.write(root / "Audio" / track / f"{track}_MIX.wav", sound, RATE)
    facts = {"artist": track.split("_")[0].upper(), "genre": "Rock", "has_bleed": "yes" if track in BLEED else "no"}
    path = root / metadata.format(track=track)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**facts, "excerpt": "no", "stems": stems, "version": 1.2}))


def write_activations(path, stems):
    """Confidence every 46.4 ms: in the first half 0.01, in the second 0.9."""
    time = np.arange(43) * 2048 / 44100
    lines = [",".join(["time", *(f"S{n + 1:02d}" for n in range(stems))])]
    lines += [f"{t:.4f}," + ",".join([f"{0.9 if t > 1 else 0.01:.4f}"] * stems) for t in time]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "MedleyDB"
    beside = "Audio/{track}/{track}_METADATA.yaml"
    for track, metadata in (
        (RAIN, "Metadata/{track}_METADATA.yaml"),
        (ROCK, "Metadata/{track}_METADATA.yaml"),
        (VERDI, beside),
        (MINE, beside),
    ):
        write_track(root, track, metadata)
    folder = root / "Annotations/Activation_Confidence"
    write_activations(folder / f"{RAIN}_ACTIVATION_CONF.lab", 3)
    write_activations(root / f"Audio/{VERDI}/{VERDI}_ACTIVATION_CONF.lab", 3)
    return root


def test_rows(root, capsys):
    corpus = MedleyDB(root)
    frame = table(corpus.tracks())
    stems = [(RAIN, 1), (RAIN, 2), (MINE, 2), (ROCK, 2), (VERDI, 1), (VERDI, 2), (VERDI, 3)]
    assert frame["id"].to_list() == [stem(*place) for place in stems]
    rows = {row["id"]: row for row in frame.iter_rows(named=True)}
    first = rows[stem(RAIN, 1)]
    assert first["path"] == str(root / f"Audio/{RAIN}/{RAIN}_STEMS/{stem(RAIN, 1)}.wav")
    assert (first["labels"], first["group"], first["track"]) == (["female singer"], RAIN, RAIN)
    assert (first["artist"], first["version"], first["bleed"]) == ("LIZNELSON", "V1", False)
    assert (first["component"], first["ensemble"], first["genre"]) == ("melody", False, "Rock")
    assert rows[stem(ROCK, 2)]["labels"] == ["violin"]
    assert rows[stem(ROCK, 2)]["ensemble"]
    assert rows[stem(VERDI, 2)]["version"] == "V2"
    assert rows[stem(VERDI, 2)]["bleed"]
    assert rows[stem(MINE, 2)]["version"] == "other"
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert f"medleydb: 7 of 8 recordings found (87.5 %); the first that is missing: {LOST}; V1 2 tracks, 3 stems" in out
    assert "V2 1 tracks, 3 stems; other 1 tracks, 1 stems; 2 stems without activations" in out
    assert "left out by ensembles 1, non_instruments 2" in out
    assert corpus.coverage["missing"] == [LOST]
    assert corpus.coverage["versions"] == {
        "V1": {"tracks": 2, "stems": 3},
        "V2": {"tracks": 1, "stems": 3},
        "other": {"tracks": 1, "stems": 1},
    }
    list(corpus.tracks())
    assert not capsys.readouterr().out  # said once


def test_activations(root):
    rows = {row["id"]: row["active"] for row in MedleyDB(root).tracks()}
    assert rows[stem(MINE, 2)] is rows[stem(ROCK, 2)] is None
    [[start, end]] = rows[stem(RAIN, 2)]
    assert start == pytest.approx(22 * 2048 / 44100, abs=1e-4)  # the first frame after one second
    assert end == pytest.approx(43 * 2048 / 44100, abs=2e-4)


def test_regions_against_a_loop(tmp_path):
    random = np.random.default_rng(0)
    confidence = random.random((200, 4)).round(3)
    confidence[:, 3] = 0.1
    time = np.arange(200) * 0.0464
    path = tmp_path / "x.lab"
    lines = [",".join(f"{x:.4f}" for x in row) for row in np.column_stack([time, confidence])]
    path.write_text("\n".join(["time,S01,S02,S07,S08", *lines]))
    found = read_activations(path)
    assert list(found) == [1, 2, 7, 8]
    for column, regions in enumerate(found.values()):
        expected = []
        for t, c in zip(time, confidence[:, column], strict=True):
            if c > 0.5:
                if expected and abs(expected[-1][1] - t) < 1e-3:
                    expected[-1][1] = t + 0.0464
                else:
                    expected.append([t, t + 0.0464])
        assert len(regions) == len(expected)
        np.testing.assert_allclose(np.reshape(regions, (-1, 2)), np.reshape(expected, (-1, 2)), atol=1e-3)
    assert found[8] == []


def test_second_revision_of_activations_wins(root):
    write_activations(root / f"Annotations/Activation_Confidence/v2/{RAIN}_ACTIVATION_CONF.lab", 1)
    rows = {row["id"]: row["active"] for row in MedleyDB(root).tracks()}
    assert rows[stem(RAIN, 1)] is not None
    assert rows[stem(RAIN, 2)] is None  # it names one stem only


@pytest.mark.parametrize(
    ("options", "stems"),
    [
        ({"versions": ["V1"]}, {stem(RAIN, 1), stem(RAIN, 2), stem(ROCK, 2)}),
        ({"versions": ["V2"]}, {stem(VERDI, 1), stem(VERDI, 2), stem(VERDI, 3)}),
        ({"versions": ["V2", "other"], "bleed": "drop"}, {stem(MINE, 2)}),
        ({"versions": ["V1"], "ensembles": "drop"}, {stem(RAIN, 1), stem(RAIN, 2)}),
        ({"versions": ["V1"], "ensembles": "keep"}, {stem(RAIN, 1), stem(RAIN, 2), stem(ROCK, 2), stem(ROCK, 3)}),
        ({"versions": ["other"], "non_instruments": True}, {stem(MINE, 1), stem(MINE, 2)}),
        ({"versions": ["V1"], "exclude": [ROCK, f"{stem(RAIN, 2)}.wav"]}, {stem(RAIN, 1)}),
    ],
)
def test_choices(root, options, stems):
    assert {row["id"] for row in MedleyDB(root, **options).tracks()} == stems


def test_kept_sections_are_classes_of_their_own(root):
    rows = {row["id"]: row["labels"] for row in MedleyDB(root, ensembles="keep").tracks()}
    assert rows[stem(ROCK, 2)] == ["violin section"]
    assert rows[stem(ROCK, 3)] == ["string section"]


def test_stems_of_errata_bleed(root):
    track = "LizNelson_ImComingHome"
    STEMS[track] = ["piano", "cello"]
    write_track(root, track, "Metadata/{track}_METADATA.yaml")
    del STEMS[track]
    bleed = {row["id"]: row["bleed"] for row in MedleyDB(root).tracks()}
    assert (bleed[stem(track, 1)], bleed[stem(track, 2)]) == (False, True)


def test_known_tracks():
    known = yaml.safe_load(FACTS.read_text())
    assert {name: len(set(known[name])) for name in ("V1", "V2")} == {"V1": 122, "V2": 74}
    assert not set(known["V1"]) & set(known["V2"])
    assert all(name.partition("_STEM_")[0] in known["V1"] for name in known["bleeding"])


def test_labels_resolve(root):
    tree = Taxonomy.load("hornbostel_sachs")
    labels = {label for row in MedleyDB(root).tracks() for label in row["labels"]}
    assert {tree.resolve(label, "medleydb") for label in labels} <= set(tree.leaves())


def test_track_without_metadata_is_said(root, capsys):
    (root / "Metadata" / f"{ROCK}_METADATA.yaml").unlink()
    corpus = MedleyDB(root)
    assert len(list(corpus.tracks())) == 6
    assert corpus.coverage["without_metadata"] == [ROCK]
    assert f"no metadata of 1 tracks, the first: {ROCK}" in capsys.readouterr().out


def test_prepared_windows_follow_activations(root, tmp_path):
    frame = prepare(MedleyDB(root), tmp_path / "cache", RATE)
    frame = split_tracks(frame, 0.25, 0.25, 0)
    windows = window_rows(frame, RATE, 0.5, 0.25)
    check_disjoint(windows)
    assert set(windows["track"]) == {RAIN, ROCK, VERDI, MINE}
    starts = {key: list(part["offset"]) for (key,), part in windows.group_by(["path"], maintain_order=True)}
    assert len(starts) == 7
    for path, found in starts.items():  # energy lets windows in that touch the sound
        assert found == ([1.0, 1.25, 1.5] if RAIN in path or VERDI in path else [0.75, 1.0, 1.25, 1.5])


def test_missing_root(tmp_path, monkeypatch, root):
    monkeypatch.delenv("MEDLEYDB_PATH", raising=False)
    with pytest.raises(UserError, match=r"^data.root is missing: .* or set MEDLEYDB_PATH$"):
        MedleyDB(None)
    with pytest.raises(UserError, match=r"no such folder; .* or set MEDLEYDB_PATH$"):
        MedleyDB(tmp_path / "nowhere").fetch()
    monkeypatch.setenv("MEDLEYDB_PATH", str(root))
    corpus = MedleyDB(None)
    corpus.fetch()
    assert corpus.key == MedleyDB(root).key


def test_key_depends_on_choices_alone(root):
    corpus = MedleyDB(root)
    before = corpus.key
    list(corpus.tracks())
    assert corpus.key == before == MedleyDB(root, missing="fail").key != MedleyDB(root, bleed="drop").key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions": ["V3"]}, "data.corpus.versions: 'V3' is unknown; known are V1, V2, other"),
        ({"bleed": "yes"}, "data.corpus.bleed=yes: known are keep, drop"),
        ({"ensembles": "split"}, "data.corpus.ensembles=split: known are merge, keep, drop"),
        ({"exclude": ["MusicDelta_Rok"]}, "did you mean 'MusicDelta_Rock'?"),
        ({"missing": "fail"}, f"1 of 8 recordings have no audio file, the first: {LOST}"),
    ],
)
def test_wrong_choices(root, options, message):
    with pytest.raises(UserError) as caught:
        MedleyDB(root, **options).tracks()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (f"Metadata/{RAIN}_METADATA.yaml", "a: [", "not valid YAML"),
        (f"Metadata/{RAIN}_METADATA.yaml", "- a", "not the metadata of a track"),
        (f"Metadata/{RAIN}_METADATA.yaml", "stems: []", "names no stems"),
        (f"Metadata/{RAIN}_METADATA.yaml", "stems: {S01: {filename: a.wav}}", "stem file 'a.wav' is not named"),
        (f"Annotations/Activation_Confidence/{RAIN}_ACTIVATION_CONF.lab", "", "not a table of activations"),
        (f"Annotations/Activation_Confidence/{RAIN}_ACTIVATION_CONF.lab", "time,S01\n0,x\n", "not a table"),
        (f"Annotations/Activation_Confidence/{RAIN}_ACTIVATION_CONF.lab", "time,S01\n0,1,2\n", "not a table"),
        (f"Annotations/Activation_Confidence/{RAIN}_ACTIVATION_CONF.lab", "time,S01\n", "no line of numbers"),
    ],
)
def test_damaged_files(root, name, text, message):
    (root / name).write_text(text)
    with pytest.raises(UserError) as caught:
        MedleyDB(root).tracks()
    assert str(caught.value).startswith(f"{root / name}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_without_metadata(tmp_path):
    with pytest.raises(UserError, match=r"no TRACK_METADATA\.yaml under it"):
        MedleyDB(tmp_path).tracks()

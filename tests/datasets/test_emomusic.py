from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from tonnetz.datasets.emomusic import RATINGS, SONGS, Emomusic, artist_split
from tonnetz.errors import UserError
from tonnetz.tracks import table

HEAD = "song_id,file_name,Artist,Song title,start of the segment (min.sec),end of the segment (min.sec),Genre"
ROWS = (  # song, artist, title, genre, set, arousal, valence
    (2, "The New York Jazz Lounge", "Bar Jazz", "Blues", "development", 3.1, 3.0),
    (3, "\tCharlie Parker ", "Ko Ko", "Jazz", "development", 3.5, 3.3),
    (4, "Björk", '"Human, Behaviour"', "Electronic", "development", 6.2, 5.5),
    (1000, "Charlie Parker", "Donna Lee", "Jazz", "evaluation", 8.4, 8.1),
)


@pytest.fixture
def home(tone, tmp_path):
    (tmp_path / "annotations").mkdir()
    lines = [f"{s},{s}.mp3,{a},{t},0.10,0.55,{g},{m}" for s, a, t, g, m, _, _ in ROWS]
    (tmp_path / "annotations" / SONGS).write_text("\n".join([f"{HEAD},Mediaeval 2013 set", *lines]) + "\n")
    lines = [f"{row[0]},{row[5]},0.9,{row[6]},1.1" for row in ROWS]
    head = "song_id,mean_arousal,std_arousal,mean_valence,std_valence"
    (tmp_path / "annotations" / RATINGS).write_text("\n".join([head, *lines]) + "\n")
    for row in ROWS:
        tone(f"clips_45seconds/{row[0]}.wav")
    return tmp_path


def test_rows(home):
    frame = table(Emomusic(home).tracks())
    assert frame["id"].to_list() == ["0002", "0003", "0004", "1000"]
    assert frame["labels"].null_count() == 4
    assert frame["split"][3] == "test"
    assert set(frame["split"][:3]) <= {"train", "valid"}
    assert frame["artist"].to_list()[1] == "Charlie Parker"
    assert frame["title"][2] == "Human, Behaviour"
    assert frame["genre"].to_list() == ["Blues", "Jazz", "Electronic", "Jazz"]
    assert frame["path"][3].endswith("clips_45seconds/1000.wav")


def test_targets_are_scaled_by_the_development_set(home):
    (home / "clips_45seconds/3.wav").unlink()  # audio that is missing does not change the scale
    corpus = Emomusic(home)
    frame = table(corpus.tracks())
    raw = np.array([row[5:] for row in ROWS])
    scaled = StandardScaler().fit(raw[:3]).transform(raw)
    np.testing.assert_allclose(frame.select("arousal", "valence").to_numpy(), scaled[[0, 2, 3]], atol=1e-12)
    np.testing.assert_array_equal(frame.select("mean_arousal", "mean_valence").to_numpy(), raw[[0, 2, 3]])
    assert corpus.coverage["missing"] == ["0003"]


def test_split_of_an_artist():
    def share(text):
        return int.from_bytes(hashlib.sha1(text).digest(), "big") % 10

    assert {share(name.encode()) < 8 for name in "abcdefghij"} == {True, False}
    for name in "abcdefghij":
        assert artist_split(name) == ("train" if share(name.encode()) < 8 else "valid")
    same = {
        artist_split(name)
        for name in ("Sigur  Rós", "sigur rs", "SIGUR (RóS) 2000", "\tSigur\xa0Rs".replace("\xa0", " "))
    }
    assert len(same) == 1
    assert same == {"train" if share(b"sigur rs") < 8 else "valid"}
    found = [artist_split(f"name {chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}") for i in range(5000)]
    assert found.count("valid") / 5000 == pytest.approx(0.2, abs=0.03)


def test_mistakes(home, tmp_path):
    ratings, songs = (home / "annotations" / name for name in (RATINGS, SONGS))
    text = ratings.read_text()
    ratings.write_text(text.replace("3.5", "high"))
    with pytest.raises(UserError, match=r"static_annotations\.csv line 3: a rating is no number"):
        Emomusic(home).tracks()
    ratings.write_text("\n".join(text.split("\n")[:-2]))
    with pytest.raises(UserError, match=r"songs_info\.csv line 5: song 1000 has no ratings in static_annotations\.csv"):
        Emomusic(home).tracks()
    ratings.write_text(text)
    songs.write_text(songs.read_text().replace("development", "evaluation"))
    with pytest.raises(UserError, match="has no song of the development set"):
        Emomusic(home).tracks()
    songs.write_text("song_id,Artist\n")
    with pytest.raises(UserError, match=r"songs_info\.csv line 1: no column Song title"):
        Emomusic(home).tracks()
    songs.unlink()
    with pytest.raises(UserError, match=r"no songs_info\.csv in it; unpack annotations\.tar\.gz"):
        Emomusic(home).tracks()

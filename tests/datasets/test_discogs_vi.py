from __future__ import annotations

import json

import pytest

from tonnetz.datasets.discogs_vi import DiscogsVI
from tonnetz.errors import UserError
from tonnetz.tracks import table

A, B, C, D, E = (letter * 11 for letter in "ABCDE")
LIGHT = {
    "C-1": [{"version_id": "V-1", "youtube_id": A}, {"version_id": "V-2", "youtube_id": [E, B]}],
    "C-2": [{"version_id": "V-3", "youtube_id": C, "track_title": "Song"}, {"version_id": "V-4", "youtube_id": D}],
}
FULL = [
    {
        "clique_id": clique,
        "versions": [
            {
                "version_id": version["version_id"],
                "tracks": [
                    {
                        "track_title": "Song",
                        "track_artist_names": ["Ana", "Bo"],
                        "youtube_video": [{"url": f"https://www.youtube.com/watch?v={version['youtube_id']}"}],
                    }
                ],
            }
            for version in LIGHT[clique]
            if isinstance(version["youtube_id"], str)
        ],
    }
    for clique in LIGHT
]


@pytest.fixture
def home(tone, tmp_path):
    for name in (f"music/{A[:2]}/{A}.mp3", f"music/{B}.ogg", f"music/{C}.wav"):
        tone(name)
    return tmp_path


def test_splits_of_light_files(home, capsys):
    for split, clique in (("train", "C-1"), ("test", "C-2")):
        text = json.dumps({clique: LIGHT[clique]})
        (home / f"Discogs-VI-YT-20240701-light.json.{split}").write_text(text)
    (home / "Discogs-VI-YT-20240701-light.json").write_text(json.dumps(LIGHT))
    frame = table(DiscogsVI(home).tracks()).sort("id")
    assert "discogs_vi: 3 of 4 recordings found (75.0 %)" in capsys.readouterr().out
    assert frame["id"].to_list() == ["V-1", "V-2", "V-3"]
    assert frame["work"].to_list() == ["C-1", "C-1", "C-2"]
    assert frame["split"].to_list() == ["train", "train", "test"]
    assert frame["path"][1].endswith(f"{B}.ogg")  # the second of its videos
    assert frame["title"].to_list() == [None, None, "Song"]


@pytest.mark.parametrize("indent", [None, 1])
def test_light_file_alone_is_open(home, indent):
    (home / "Discogs-VI-YT-light-20240701.json").write_text(json.dumps(LIGHT, indent=indent))
    (home / "Discogs-VI-YT-20240701.jsonl").write_text("not read")
    assert [row["split"] for row in DiscogsVI(home, audio="music").tracks()] == [None] * 3


def test_full_lines(home):
    path = home / "Discogs-VI-YT-20240701.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in FULL))
    rows = list(DiscogsVI(path).tracks())
    assert [(row["id"], row["work"], row["group"], row["artist"]) for row in rows] == [
        ("V-1", "C-1", A, "Ana, Bo"),
        ("V-3", "C-2", C, "Ana, Bo"),
    ]
    path.write_text("".join(json.dumps({line["clique_id"]: line["versions"]}) + "\n" for line in FULL))
    assert [row["id"] for row in DiscogsVI(home).tracks()] == ["V-1", "V-3"]


def test_mistakes(home):
    with pytest.raises(UserError, match=r"needs one metadata file \(found: none\)"):
        DiscogsVI(home).tracks()
    (home / "a.jsonl").write_text(json.dumps(FULL[0]) + "\n{'x'\n")
    with pytest.raises(UserError, match=r"a\.jsonl line 2: not JSON"):
        DiscogsVI(home).tracks()
    (home / "b.jsonl").write_text('{"C-1": [{"id": 3}]}')
    with pytest.raises(UserError, match=r"found: a\.jsonl, b\.jsonl"):
        DiscogsVI(home).tracks()
    with pytest.raises(UserError, match=r"b\.jsonl: clique C-1 has a version without version_id"):
        DiscogsVI(home, file="b.jsonl").tracks()
    with pytest.raises(UserError, match=r"c\.json: no such file"):
        DiscogsVI(home, file="c.json").tracks()
    (home / "b.jsonl").write_text("[3]")
    with pytest.raises(UserError, match="not an object of cliques"):
        DiscogsVI(home, file="b.jsonl").tracks()

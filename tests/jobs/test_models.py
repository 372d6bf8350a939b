"""job=models: the table has every network, with the sizes that are published where there are such."""

import polars as pl

from tests.conftest import ROOT

PUBLISHED = {"samplecnn": 2_368_512, "tune": 2_096_970, "tune_plus": 2_220_390, "tune/plus_xl": 7_407_132}


def test_all_models_are_in_the_table(cli):
    done = cli("job=models", "frontend=logmel")
    assert done.status == 0, done.err
    table = pl.read_csv(done.folder / "models.csv")
    files = {
        path.relative_to(ROOT / "config/model").with_suffix("").as_posix()
        for path in (ROOT / "config/model").rglob("*.yaml")
    }
    assert set(table["model"]) == files
    assert table["parameters"].null_count() == 0
    sizes = dict(table.select("model", "parameters").iter_rows())
    assert {name: sizes[name] for name in PUBLISHED} == PUBLISHED
    read = dict(table.select("model", "reads").iter_rows())
    assert (read["tune"], read["cnn"], read["key_equivariant"]) == ("samples", "features", "octaves")
    assert dict(table.select("model", "taps").iter_rows())["tune_plus"] == 18
    octaves = cli("job=models", "frontend=cqt", run="octaves")
    rows = pl.read_csv(octaves.folder / "models.csv").filter(pl.col("model") == "key_equivariant")
    assert rows["reads"].to_list() == ["features"]
    few = cli("job=models", "frontend=mfcc", "frontend.bins=4", run="few")  # what does not fit says so in its row
    assert few.status == 0, few.err
    rows = {row["model"]: row for row in pl.read_csv(few.folder / "models.csv").iter_rows(named=True)}
    assert rows["cnn"]["reads"].startswith("model CNN needs a front-end with at least 8 bins")
    assert rows["cnn"]["parameters"] is None
    assert rows["tune"]["parameters"] == PUBLISHED["tune"]

"""Patience: when a run stops, whatever the noise, the hold of the rate, or an interruption. What a dashboard shows."""

import csv

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import SMALL
from tonnetz import figures
from tonnetz.callbacks import Patience
from tonnetz.errors import UserError

PEAK = [min(t, 40 - t) / 20 for t in range(60)]  # rises for 20 validations, then falls
ZIGZAG = [t / 60 + 0.1 * (-1) ** t for t in range(30)] + [0.3 + 0.1 * (-1) ** t for t in range(30)]
DROP = [0.0, 0.25, 0.5, 0.75, 1.0] + [0.0] * 20


def expected(series, patience, alpha):
    """First validation that comes `patience` after the best moving average, from its definition as a weighted sum."""
    smooth = []
    for t in range(len(series)):
        value = (1 - alpha) ** t * series[0]
        value += sum(alpha * (1 - alpha) ** (t - k) * series[k] for k in range(1, t + 1))
        smooth.append(value)
        best = max(range(t + 1), key=lambda k: (round(smooth[k], 12), -k))
        if t - best >= patience:
            return t
    return None


def stopped(callback, series, held=0):
    return next((t for t, value in enumerate(series) if callback.observe(value, t < held)), None)


@pytest.mark.parametrize("series", [PEAK, ZIGZAG, DROP], ids=["peak", "zigzag", "drop"])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("patience", [1, 3, 8])
def test_stops_where_the_moving_average_says(series, alpha, patience):
    end = expected(series, patience, alpha)
    assert end is not None
    assert stopped(Patience("m", "max", patience, alpha), series) == end
    assert stopped(Patience("m", "min", patience, alpha), [-value for value in series]) == end


def test_known_epochs():
    assert stopped(Patience("m", "max", 3, 0.3), DROP) == 4 + 3
    # after a line of slope 1 the average lags .7 / .3 = 2.33 behind; falling, it is passed two steps after the top
    assert stopped(Patience("m", "max", 3, 0.3), PEAK) == 21 + 3
    assert stopped(Patience("m", "max", 3), PEAK) == 20 + 3
    assert stopped(Patience("m", "max", 3, 0.3), [float(t) for t in range(50)]) is None


def test_waiting_does_not_count_while_the_rate_is_held():
    assert stopped(Patience("m", "max", 4), [0.5] * 30) == 4
    assert stopped(Patience("m", "max", 4), [0.5] * 30, held=10) == 10 - 1 + 4
    rising = [t / 100 for t in range(10)] + [0.0] * 20  # what the hold brought remains the best
    assert stopped(Patience("m", "max", 4), rising, held=10) == 9 + 4


@pytest.mark.parametrize("broken", [1, 7, 20, 22])
def test_goes_on_after_an_interruption(broken):
    first = Patience("m", "max", 3, 0.3)
    assert stopped(first, PEAK[:broken]) is None
    second = Patience("m", "max", 3, 0.3)
    second.load_state_dict(first.state_dict())
    end = stopped(second, PEAK[broken:])
    assert end is not None
    assert broken + end == expected(PEAK, 3, 0.3)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.1])
def test_impossible_smoothing(alpha):
    with pytest.raises(UserError, match=r"job\.smoothing"):
        Patience("m", "max", 3, alpha)


def epochs(folder):
    with (folder / "metrics.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_run_stops_waits_for_the_hold_and_goes_on(fit):
    still = ["optimizer.lr=0", "model.norm=false", "model.dropout=0", "job.patience=2", "job.smoothing=0.3"]
    still += ["job.test=false", "trainer.max_epochs=9"]
    assert epochs(fit(*still, run="plain").folder) == [0, 1, 2]
    words = ["schedule=decay", "schedule.hold=9", *still]  # three steps an epoch: validations 0, 1, 2 are free
    assert epochs(fit(*words, run="held").folder) == [0, 1, 2, 3, 4]
    fit(*still, "trainer.max_epochs=2", run="resumed")
    assert epochs(fit(*still, run="resumed").folder) == [0, 1, 2]


VIEWS = [word for word in SMALL if not word.startswith(("model", "augment", "job.figures", "trainer.max_epochs"))]
VIEWS += ["task=contrastive", "trainer.max_epochs=1", "task.bank=0", "job.test=false", "augment=clmr"]


@pytest.fixture
def drawn(monkeypatch):
    """What pictures of augmentation were drawn from."""
    found = []
    plain = figures.spectrogram_pairs

    def pairs(*given):
        found.append(given)
        return plain(*given)

    monkeypatch.setattr(figures, "spectrogram_pairs", pairs)
    return found


def test_the_picture_of_stored_features_has_their_time(fit, drawn):
    done = fit("task.plan.source=features", "job.figures=true", "job.test=false", "trainer.max_epochs=1")
    assert done.status == 0, done.err
    ((before, after, names, step),) = drawn
    assert step == pytest.approx(0.02)  # the hop of the front-end
    assert before.shape == after.shape
    assert before.shape[2] == pytest.approx(0.5 / step, abs=1)
    assert all(name in ("buzz", "noise", "sine") for name in names)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_dashboard_shows_two_views_of_waveforms(cli, corpus, drawn, labelled):
    """Their log-mel before and after augmentation, both views of a track side by side, and how they sound."""
    words = ["data=folder", f"data.root={corpus}", f"data.corpus.labelled={str(labelled).lower()}"]
    raw = ["frontend=raw", "frontend.sample_rate=16000", "model=samplecnn", "model.widths=[4,8]"]
    done = cli(*words, *VIEWS, *raw, "augment.wave.clmr.gain=1")
    assert done.status == 0, done.err
    ((before, after, names, step),) = drawn
    assert before.shape == after.shape == (4, 64, 26)  # half a second in hops of 20 ms
    assert step == pytest.approx(0.5 / 26)
    assert np.isfinite(after).all()
    assert not np.allclose(before, after, atol=0.1)
    events = EventAccumulator(str(done.folder), {"images": 0, "audio": 0}).Reload()
    assert "input/augmentation" in events.Tags()["images"]
    assert {"input/0_before", "input/3_after"} <= set(events.Tags()["audio"])
    firsts, seconds_of = names[::2], names[1::2]
    assert [name.replace("view 1", "view 2") for name in firsts] == seconds_of
    kinds = ("buzz", "noise", "sine") if labelled else ("track ",)
    assert all(name.startswith(kinds) and ", view " in name for name in names)


def test_a_waveform_is_shown_by_its_log_mel():
    """A sine of 1 kHz has its maximum in the band that holds it."""
    from tonnetz.callbacks import _images
    from tonnetz.frontend import LogMel, Raw

    wave = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16000).expand(2, 1, 8000)
    image = _images(Raw(16000)(wave), Raw(16000))
    expected = LogMel(16000)(wave)
    np.testing.assert_allclose(image, expected[:, 0].numpy(), atol=1e-5)
    assert image.argmax(1)[0, 5] == expected[0, 0].mean(1).argmax()

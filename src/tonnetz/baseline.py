"""The baseline that every classifier must beat: MFCC means and deviations, logistic regression."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
import torch

from tonnetz.audio import read_prepared
from tonnetz.data import AudioData
from tonnetz.frontend import MFCC
from tonnetz.metrics.classification import score
from tonnetz.tracks import label_matrix


def mfcc_statistics(frame: pl.DataFrame, sample_rate: int) -> np.ndarray:
    """Mean and standard deviation over time of 20 MFCCs of each whole track, (tracks, 40)."""
    frontend = MFCC(sample_rate=sample_rate)

    def statistics(place: tuple[str, int, int, int, float]) -> np.ndarray:
        audio = torch.from_numpy(read_prepared(*place))
        with torch.inference_mode():
            mfcc = frontend(audio[None, None])[0, 0]  # (20, T)
        return torch.cat([mfcc.mean(1), mfcc.std(1, correction=0)]).numpy()  # (40,)

    with ThreadPoolExecutor() as pool:
        places = frame.select("audio", "header", "first", "samples", "peak").iter_rows()
        return np.stack(list(pool.map(statistics, places)))


def mfcc_baseline(data: AudioData, split: str = "test") -> dict[str, float]:
    """Fit on the training split, score on another with the metrics of the classification task."""
    train, other = data.split("train"), data.split(split)
    classes, multilabel = data.spec.classes, data.spec.multilabel
    known, unseen = (mfcc_statistics(frame, data.frontend.sample_rate) for frame in (train, other))
    target = label_matrix(train, classes)
    prob = (_one_by_one if multilabel else _one_of_many)(known, target, unseen)
    thresholds = torch.full((len(classes),), 0.5)
    truth = torch.from_numpy(label_matrix(other, classes))
    return score(torch.from_numpy(prob).float(), truth, thresholds, multilabel)[0]


def _pipeline() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def _one_of_many(known: np.ndarray, target: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    model = _pipeline().fit(known, np.nan_to_num(target).argmax(1))
    prob = np.zeros((len(unseen), target.shape[1]), np.float32)
    prob[:, model.classes_] = model.predict_proba(unseen)
    return prob


def _one_by_one(known: np.ndarray, target: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """One binary model a class, on the tracks whose label is known; a class with one answer is constant."""
    prob = np.zeros((len(unseen), target.shape[1]), np.float32)
    for k in range(target.shape[1]):
        rows = np.isfinite(target[:, k])
        answers = np.unique(target[rows, k])
        if len(answers) == 2:
            prob[:, k] = _pipeline().fit(known[rows], target[rows, k]).predict_proba(unseen)[:, 1]
        elif len(answers) == 1:
            prob[:, k] = answers[0]
    return prob

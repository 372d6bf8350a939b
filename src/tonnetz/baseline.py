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
from tonnetz.metrics.classification import best_thresholds, score
from tonnetz.tracks import label_matrix


def mfcc_statistics(frame: pl.DataFrame, sample_rate: int, decibels: float | None = None) -> np.ndarray:
    """Mean and standard deviation over time of 20 MFCCs of each whole track, (tracks, 40).

    With `decibels`, what lies so far below the loudest cell of a track counts as lying just there, and the MFCCs are
    those of librosa (128 mel bands, FFT of 2048, hop of 512): ``librosa.feature.mfcc`` has 80.
    """
    frontend = MFCC(sample_rate, 2048, 512, mels=128, fmin=0.0) if decibels else MFCC(sample_rate)

    def statistics(place: tuple[str, int, int, int, float]) -> np.ndarray:
        audio = torch.from_numpy(read_prepared(*place))[None, None]
        with torch.inference_mode():
            if decibels is None:
                mfcc = frontend(audio)[0, 0]  # (20, T)
            else:
                mel = frontend.mel(audio)[0, 0]  # (128, T)
                mfcc = frontend.dct.T @ mel.clamp(min=float(mel.max()) - decibels)  # (20, T)
        return torch.cat([mfcc.mean(1), mfcc.std(1, correction=0)]).numpy()  # (40,)

    with ThreadPoolExecutor() as pool:
        places = frame.select("audio", "header", "first", "samples", "peak").iter_rows()
        return np.stack(list(pool.map(statistics, places)))


def mfcc_baseline(data: AudioData, split: str = "test") -> dict[str, float]:
    """Fit on the training split, score on another with the metrics of the classification task.

    As for our own models, thresholds of several labels are tuned on the validation split.
    """
    classes, multilabel = data.spec.classes, data.spec.multilabel
    features, truth = {}, {}
    for name in {"train", "valid", split}:
        frame = data.split(name)
        if frame.height:
            features[name] = mfcc_statistics(frame, data.frontend.sample_rate)
            truth[name] = label_matrix(frame, classes)
    judge = _one_by_one if multilabel else _one_of_many
    others = [name for name in features if name != "train"]
    stacked = np.concatenate([features[name] for name in others])
    found = np.split(
        judge(features["train"], truth["train"], stacked), np.cumsum([len(features[n]) for n in others])[:-1]
    )
    prob = {name: torch.from_numpy(values).float() for name, values in zip(others, found, strict=True)}
    thresholds = torch.full((len(classes),), 0.5)
    if multilabel and "valid" in prob:
        thresholds = best_thresholds(prob["valid"], torch.from_numpy(truth["valid"]))
    return score(prob[split], torch.from_numpy(truth[split]), thresholds, multilabel)[0]


def _pipeline() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def _one_of_many(known: np.ndarray, target: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    labelled = (target == 1).any(1)
    model = _pipeline().fit(known[labelled], target[labelled].argmax(1))
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

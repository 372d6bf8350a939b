"""Heads: classifiers that learn the classes of few-shot episodes from support embeddings."""

from tonnetz.heads.base import Head, means, normalized
from tonnetz.heads.bdcspn import BDCSPN
from tonnetz.heads.chance import Constant, Random
from tonnetz.heads.cosine import BaselinePP
from tonnetz.heads.crm import least_risk, risk
from tonnetz.heads.knn import KNN
from tonnetz.heads.logistic import LogisticRegression
from tonnetz.heads.prototypes import Prototypes, SimpleShot, similarity
from tonnetz.heads.tim import TIM

__all__ = [
    "BDCSPN",
    "KNN",
    "TIM",
    "BaselinePP",
    "Constant",
    "Head",
    "LogisticRegression",
    "Prototypes",
    "Random",
    "SimpleShot",
    "least_risk",
    "means",
    "normalized",
    "risk",
    "similarity",
]

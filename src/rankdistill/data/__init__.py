"""Data sets as uint8 tensors, splits, augmentation, and the loader that makes batches of them."""

from __future__ import annotations

from .dataset import DataError, DataSet, Reader, Request, Split
from .loader import Loader, evaluation_batches
from .readers import DATASETS
from .schedule import Batches
from .subsets import few_labels, hold_out
from .views import Geometry, SecondView, Views
from .workers import TransformLoader

__all__ = [
    "DATASETS",
    "Batches",
    "DataError",
    "DataSet",
    "Geometry",
    "Loader",
    "Reader",
    "Request",
    "SecondView",
    "Split",
    "TransformLoader",
    "Views",
    "evaluation_batches",
    "few_labels",
    "hold_out",
]

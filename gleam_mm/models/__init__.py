"""Models: the classifier that holds backbone, method and head together."""

from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.models.necks import TokenPool

__all__ = ['PETLClassifier', 'TokenPool']

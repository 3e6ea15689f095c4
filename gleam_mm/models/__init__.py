"""Models: the classifier that holds backbone, method and head together, and how it is loaded."""

from gleam_mm.models.building import build_model, load_model
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.models.necks import TokenPool

__all__ = ['PETLClassifier', 'TokenPool', 'build_model', 'load_model']

"""Trained models at work on pictures."""

from gleam_mm.inference.pictures import Prediction
from gleam_mm.inference.predictor import Predictor

__all__ = ['Prediction', 'Predictor']

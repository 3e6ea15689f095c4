"""Trained models at work on pictures."""

from gleam_mm.inference.predictor import Prediction, Predictor

__all__ = ['Prediction', 'Predictor']

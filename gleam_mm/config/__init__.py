"""Configs by path or by name: what every tool begins with."""

from gleam_mm.config.recipes import RecipeError, load

__all__ = ['RecipeError', 'load']

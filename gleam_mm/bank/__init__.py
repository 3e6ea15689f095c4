"""Many adapters on one backbone: each image of a batch under its own task's method and head."""

from gleam_mm.bank.bank import AdapterBank, Prepared, UnknownTaskError, check_name

__all__ = ['AdapterBank', 'Prepared', 'UnknownTaskError', 'check_name']

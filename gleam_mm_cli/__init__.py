"""The programs of GLEAM-MM: ``gleam-mm COMMAND``, and ``tools/COMMAND.py`` in a checkout.

A module a command, with ``parse_args`` and ``main``. They stand beside ``gleam_mm``, whose import
takes seconds: ``--help`` and a wrong flag are answered before it. ``python -m gleam_mm_cli`` is the
same program, for launchers that want a module.
"""

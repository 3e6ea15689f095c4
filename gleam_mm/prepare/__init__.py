"""Builds and checks the layouts of datasets on disk: the logic of tools/prepare_data.py."""

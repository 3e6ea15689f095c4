"""What tests of datasets share."""

import pytest

from gleam_mm.datasets.image_files import warn


@pytest.fixture
def told(monkeypatch):
    """What is warned of."""
    messages = []
    warn.cache_clear()
    monkeypatch.setattr(
        'gleam_mm.datasets.image_files.print_log', lambda text, **_: messages.append(text)
    )
    return messages

"""What the tests of files share."""

import pytest
import torch


@pytest.fixture
def weights():
    return {'a.weight': torch.randn(3, 2), 'a.bias': torch.randn(3), 'b': torch.tensor(1.5)}

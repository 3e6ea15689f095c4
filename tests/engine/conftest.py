"""Trainings that are killed and taken up again, in this process."""

from unittest.mock import MagicMock

import pytest
from runs import build


@pytest.fixture(scope='module', autouse=True)  # for these modules alone
def _fast():
    """Does without what takes time in MMEngine's runner and is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        figure = MagicMock(return_value=(MagicMock(), MagicMock(), MagicMock()))
        patch.setattr('mmengine.runner.runner.collect_env', dict)  # asks compilers
        patch.setattr('mmengine.runner.runner.get_git_hash', str)  # asks git
        patch.setattr('mmengine.visualization.Visualizer._initialize_fig', figure)
        patch.setattr('os.fsync', lambda descriptor: None)  # nobody pulls the plug
        yield


@pytest.fixture
def make_runner(tmp_path, make_classifier):
    """Builds a runner that trains on 8 images for 3 epochs of 2 iterations."""

    def make(model=None, work_dir=None, **options):
        model = make_classifier(num_classes=2) if model is None else model
        return build(model, work_dir or tmp_path / 'run', **options)

    return make

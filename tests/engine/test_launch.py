"""Checks before a run."""

import re

import pytest
from mmengine.config import Config, DictAction

from gleam_mm.engine.launch import check_schedule


@pytest.mark.parametrize('epochs', [1, 2, 10])
def test_following_the_advice_on_a_long_warmup_ends_the_error(epochs):
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, end=10),
                dict(type='CosineAnnealingLR', begin=10),
            ],
        )
    )
    with pytest.raises(ValueError, match=f'max_epochs={epochs}, but param_scheduler.1 beg') as told:
        check_schedule(cfg)
    advised = re.search('--cfg-options (.+)', str(told.value))[1].split()
    pairs = [word.split('=', 1) for word in advised]
    cfg.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in pairs})
    check_schedule(cfg)

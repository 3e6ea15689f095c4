"""Settings of a config that are out of range, told by their keys before anything is built."""

import pytest

from gleam_mm.config import recipes
from gleam_mm.config.recipes import RecipeError

RECIPE = 'vit-mini_gleam-l_mini-digits'
NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train_cfg.max_epochs', 0, 'a whole number of at least 1'),
        ('train_cfg.max_epochs', 1.5, 'a whole number of at least 1'),
        ('train_cfg.val_interval', 0, 'a whole number of at least 1'),
        ('train_dataloader.batch_size', 0, 'a whole number of at least 1'),
        ('val_dataloader.num_workers', -1, 'a whole number of at least 0'),
        ('optim_wrapper.accumulative_counts', 0, 'a whole number of at least 1'),
        ('optim_wrapper.optimizer.lr', INF, 'a number of at least 0'),
        ('optim_wrapper.optimizer.lr', NAN, 'a number of at least 0'),
        ('optim_wrapper.optimizer.lr', '1e-3x', 'a number of at least 0'),
        ('optim_wrapper.optimizer.weight_decay', -1, 'a number of at least 0'),
        ('default_hooks.checkpoint.interval', 0, 'a whole number of at least 1 or -1'),
        ('default_hooks.logger.interval', 0, 'a whole number of at least 1'),
        ('model.head.num_classes', 0, 'a whole number of at least 1 or None'),
        ('model.head.in_channels', 0, 'a whole number of at least 1'),
        ('data_preprocessor.std', [0, 1, 1], 'a list of numbers above 0'),
        ('data_preprocessor.mean', [NAN, 0, 0], 'a list of finite numbers'),
        ('data_preprocessor.mean', [1, 2], 'a number a channel'),
        ('randomness.seed', -1, 'a whole number of at least 0'),
        ('model.backbone.img_size', 33, 'a multiple of patch_size=4'),
        ('model.backbone.patch_size', 0, 'a whole number of at least 1'),
    ],
)
def test_settings_are_told_by_their_keys(key, value, message):
    with pytest.raises(RecipeError) as caught:
        recipes.load(RECIPE, {key: value})
    told = str(caught.value)
    assert told.startswith(f'{RECIPE}: ') and '\n' not in told
    assert f'{key}={value!r}' in told and message in told


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('default_hooks.checkpoint.interval', -1),
        ('optim_wrapper.optimizer.lr', 0),
        ('randomness.seed', None),
        ('model.backbone.img_size', 36),
    ],
)
def test_what_is_of_use_is_let_through(key, value):
    recipes.load(RECIPE, {key: value})

"""Configs of tuned values, without a training."""

import pytest

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.sweep import Job, Sweep, training
from gleam_mm.sweep import export as exporting
from gleam_mm.sweep.plan import FINAL, Variant
from gleam_mm.sweep.study import begin_study

IMAGENET = recipes.NORMALIZATIONS['imagenet']
VARIANTS = {
    'nested': Variant('dora', {'model.petl.config.r': 4}),
    'numbers': Variant('lora', {f'data_preprocessor.{k}': v for k, v in IMAGENET.items()}),
    'mean': Variant('lora', {'data_preprocessor.mean': [1.0, 2.0, 3.0]}),
    'random': Variant('lora', {'randomness.deterministic': True}),
    'another': Variant('lora', {'model.petl.type': 'BitFit'}),
}


@pytest.fixture
def make_study(tmp_path):
    def make(name):
        sweep = Sweep(
            backbone='vit-mini',
            methods=(name,),
            datasets=('mini-digits',),
            variants={name: VARIANTS[name]},
        )
        return begin_study(str(tmp_path / 'study.db'), 'made', sweep)

    return make


@pytest.mark.parametrize('name', VARIANTS)
def test_a_file_trains_what_the_sweep_did(name, make_study, tmp_path):
    study = make_study(name)
    (file,), _ = exporting.export(study, tmp_path / 'out')
    final = training.make_config(study.sweep, Job(FINAL, name, 'mini-digits', 0))[0].to_dict()
    written = recipes.load(file).to_dict()
    final['randomness'].pop('seed')
    written['randomness'].pop('seed', None)
    assert written == final


def test_the_file_of_another_training_is_refused(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, '_method', lambda preset, method: '_base_.method')
    with pytest.raises(
        UserError, match=r"vit-mini_nested_mini-digits: .* 'made' changed in model;"
    ):
        exporting.export(make_study('nested'), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()

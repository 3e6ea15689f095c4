"""The zoo's metafile: what is in the repository is what is written, and MMPretrain reads it."""

import csv
import json
import statistics
from pathlib import Path

import pytest
from mmengine.fileio import load
from mmpretrain.apis.model import ModelHub

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.inference import zoo
from gleam_mm.report import metafiles

ROOT = Path(__file__).parents[2]
MODELS = {model['Name']: model for model in load(ROOT / 'zoo' / metafiles.METAFILE)['Models']}


def test_the_files_are_what_is_written():
    assert metafiles.build(ROOT) == {
        name: (ROOT / name).read_text() for name in ('zoo/index.json', 'zoo/metafile.yml')
    }


def test_recorded_results_are_means_over_seeds():
    with (ROOT / 'benchmarks' / 'minivtab' / 'results.csv').open(newline='') as file:
        found = [
            float(row['accuracy'])
            for row in csv.DictReader(file)
            if (row['study'], row['phase'], row['method']) == ('minivtab', 'final', 'lora')
            and row['dataset'] == 'mini-letters'
        ]
    told = MODELS['vit-mini_lora_minivtab']
    assert len(found) == told['Metadata']['Seeds'] == 3
    (result,) = [r for r in told['Results'] if r['Dataset'] == 'MiniVTAB Letters']
    assert result['Metrics']['Top 1 Accuracy'] == pytest.approx(statistics.fmean(found), abs=0.005)


def test_a_study_that_changes_a_preset_says_nothing_of_it():
    """The sweep minivtab has two experts an image, and GLEAM's presets have four."""
    assert 'vit-mini_gleam-l_minivtab' not in MODELS
    assert 'vit-mini_fact_minivtab' in MODELS


def test_adapters_have_their_weights_and_what_they_were_tested_to():
    for entry in zoo.entries().values():
        model = MODELS[entry.name]
        assert {(ROOT / model[key]).is_file() for key in ('Weights', 'Config')} == {True}
        (result,) = model['Results']
        assert result['Metrics']['Top 1 Accuracy'] == round(entry.headline('test'), 2)


def test_mmpretrain_reads_it(monkeypatch):
    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    model = ModelHub._models_dict['vit-mini_gleam-l_mini-digits']
    assert Path(model.config).is_file()
    assert model.in_collection == 'GLEAM'
    assert model.results[0].metrics['Top 1 Accuracy'] > 90
    assert ModelHub._models_dict['vit-mini_lora_minivtab'].in_collection == 'LoRA'


def test_it_takes_a_checkout(tmp_path):
    with pytest.raises(UserError, match='no checkout'):
        metafiles.write(tmp_path)
    assert json.loads((recipes.config_root().parent / 'zoo' / 'index.json').read_text())

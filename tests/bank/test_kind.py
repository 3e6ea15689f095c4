"""Every method of the matrix in a mixed batch, against each single model."""

import pytest
import torch
from adapters import CASES, build, make_images, write

from gleam_mm import AdapterBank

QUICK = {
    *('Full tuning', 'LoRA', 'BitFit', 'VPT-deep', 'SSF', 'GLEAM', 'NeuroAda'),
}
"""Those that `make test` runs on one backbone: one of each way to act."""

BY_GROUP = {
    *('HF PEFT: OFT', 'HF PEFT: LoHa', 'HF PEFT: RandLoRA', 'HF PEFT: C3A', 'HF PEFT: FourierFT'),
    *('HF PEFT: SHiRA', 'DyT', 'CoDA'),
}
"""Methods whose operations PyTorch cannot batch."""


def rows():
    for kind in ('vit', 'swin', 'timm-vit', 'timm-swin'):
        for case in CASES:
            quick = kind == 'vit' and case.name in QUICK
            marks = () if quick else pytest.mark.slow
            yield pytest.param(case, kind, id=f'{case.name}-{kind}', marks=marks)


@pytest.mark.parametrize(('case', 'kind'), rows())
def test_a_mixed_batch_is_its_single_models(case, kind, tmp_path):
    models = {}
    for seed, name in enumerate('abc'):
        models[name] = build(dict(case.petl), kind, classes=3 + seed, seed=seed)
        write(models[name], tmp_path / f'{name}.safetensors')
    bank = AdapterBank(adapters={n: tmp_path / f'{n}.safetensors' for n in models}, device='cpu')
    assert bank.describe('a')['batched'] == (case.name not in BY_GROUP)
    images, order = make_images(5), ['a', 'b', 'c', 'b', 'a']
    loaded = bank._store.fetch([bank._tasks[name] for name in order])
    features = bank._tasks['a'].kind.features(images, [own.row for own in loaded])
    for i, name in enumerate(order):
        with torch.no_grad():
            alone = models[name].extract_feat(images[i : i + 1])[-1][0]
        torch.testing.assert_close(features[-1][i], alone, rtol=1e-5, atol=1e-5)

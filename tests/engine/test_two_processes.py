"""What two processes compute that one does not: the mean of the gradients of two halves.

One process that accumulates the gradients of two halves does the same sums, and is compared here
with one that takes both at once.
"""

import torch
from mmengine.dataset import BaseDataset
from runs import PICTURES, to_sample

WIDTH = 32  # of the tiny ViT, whose qkv biases are those of queries, keys and values


class Still(BaseDataset):
    """The images without noise, so that both runs see the same."""

    METAINFO = PICTURES.METAINFO

    def load_data_list(self):
        return PICTURES.load_data_list()


def without_noise(data):
    return to_sample(data) | {'inputs': data['inputs']}


STILL = Still(pipeline=[without_noise], serialize_data=False)


def biases(make_runner, make_classifier, work_dir, optimizer, halves):
    """How six steps on the same eight images have moved the biases of all qkv."""
    model = make_classifier('BitFit', num_classes=2)
    start = qkv_biases(model)
    make_runner(
        model=model,
        work_dir=work_dir,
        loader=dict(batch_size=8 // halves, dataset=STILL, sampler=dict(type='DefaultSampler')),
        optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer, accumulative_counts=halves),
        train_cfg=dict(by_epoch=True, max_epochs=6),
        param_scheduler=None,
        script=(),
        checkpoint=dict(save_best=None),
    ).train()
    return qkv_biases(model) - start


def qkv_biases(model):
    found = [value for name, value in model.named_parameters() if name.endswith('qkv.bias')]
    return torch.stack(found).detach().unflatten(1, (3, WIDTH))


def difference(make_runner, make_classifier, tmp_path, optimizer):
    """How far the runs end apart, and how far they get: biases of queries, keys and values."""
    both, one = (
        biases(make_runner, make_classifier, tmp_path / str(halves), optimizer, halves)
        for halves in (1, 2)
    )
    return (both - one).abs().amax((0, 2)), one.abs().amax((0, 2))


def test_adam_makes_full_steps_of_gradients_that_are_zero_but_for_rounding(
    make_runner, make_classifier, tmp_path
):
    rate = 1e-2
    adam = dict(type='AdamW', lr=rate, weight_decay=0.0)
    apart, _ = difference(make_runner, make_classifier, tmp_path, adam)
    queries, keys, values = apart
    # The bias of keys adds the same to all scores of a query, which the softmax takes out again.
    assert keys > rate / 10
    assert max(queries, values) < rate / 100


def test_sgd_does_not(make_runner, make_classifier, tmp_path):
    sgd = dict(type='SGD', lr=1.0, momentum=0.9)
    apart, far = difference(make_runner, make_classifier, tmp_path, sgd)
    assert apart.max() < 1e-5 * far.max()
    assert far[2] > 1e-3 > 1e-5 > far[1]  # values move, keys do not

"""Matrices of few bits: their levels against tables and integrals, their bytes against bits."""

import math

import pytest
import torch
from scipy import integrate, stats

from gleam_mm.checkpoint import CheckpointError, packing, read_adapter, save_adapter
from gleam_mm.checkpoint.compress import compress

# J. Max, "Quantizing for minimum distortion", 1960, table I: the positive levels.
MAX = {
    1: [0.7980],
    2: [0.4528, 1.510],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733],
}


@pytest.mark.parametrize('bits', MAX)
def test_levels_are_those_of_the_table(bits):
    levels = packing.levels(bits).tolist()
    assert levels[len(levels) // 2 :] == pytest.approx(MAX[bits], abs=6e-4)
    assert levels == sorted(levels)


def test_each_level_of_a_byte_is_the_mean_of_what_is_rounded_to_it():
    levels = packing.levels(8).tolist()
    assert len(levels) == 256
    for i in (0, 1, 17, 100, 128, 254):
        low = (levels[i - 1] + levels[i]) / 2 if i else -12.0
        high = (levels[i] + levels[i + 1]) / 2
        mass = integrate.quad(stats.norm.pdf, low, high)[0]
        mean = integrate.quad(lambda z: z * stats.norm.pdf(z), low, high)[0] / mass
        assert levels[i] == pytest.approx(mean, rel=1e-6)


def reference(matrix, bits):
    """Rounds number by number."""
    levels = packing.levels(bits).tolist()
    mean = sum(matrix.flatten().tolist()) / matrix.numel()
    deviation = math.sqrt(sum((w - mean) ** 2 for w in matrix.flatten().tolist()) / matrix.numel())
    codes = [
        min(range(2**bits), key=lambda i: abs((w - mean) / deviation - levels[i]))
        for w in matrix.flatten().tolist()
    ]
    return codes, torch.tensor([mean + deviation * levels[c] for c in codes]).view_as(matrix)


@pytest.mark.parametrize('bits', packing.BITS)
@pytest.mark.parametrize('shape', [(3, 5), (2, 1, 4, 4)])
def test_a_file_holds_the_numbers_of_levels_bit_by_bit(bits, shape, tmp_path):
    matrix = 0.3 + torch.randn(shape)
    codes, rounded = reference(matrix, bits)
    forms = {'w': {'bits': bits, 'shape': list(shape)}}
    packed = packing.pack({'w': matrix, 'b': torch.ones(2)}, forms)
    text = ''.join(f'{byte:08b}'[::-1] for byte in packed['w'].tolist())  # low bits first
    digits = [text[i : i + bits][::-1] for i in range(0, len(text), bits)]
    assert [int(d, 2) for d in digits[: len(codes)]] == codes
    assert packed['w'].dtype == torch.uint8
    assert len(packed['w']) == math.ceil(matrix.numel() * bits / 8)

    path, again = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
    save_adapter(path, {'w': matrix, 'b': torch.ones(2)}, {'packed': forms})
    tensors, metadata = read_adapter(path)
    torch.testing.assert_close(tensors['w'], rounded)
    assert metadata['schema'] >= 2
    save_adapter(again, tensors, metadata)
    assert again.read_bytes() == path.read_bytes()


def test_a_matrix_of_one_number_is_itself():
    forms = {'w': {'bits': 1, 'shape': [4, 4]}}
    constant = torch.full((4, 4), 0.7)
    unpacked = packing.unpack(packing.pack({'w': constant}, forms), forms)
    torch.testing.assert_close(unpacked['w'], constant)
    zero = packing.unpack(packing.pack({'w': torch.zeros(4, 4)}, forms), forms)
    assert torch.equal(zero['w'], torch.zeros(4, 4))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda t: t.update(w=t['w'][:-1]), 'w is not 4 bytes for 2 bits of'),
        (lambda t: t.update(w=t['w'].float()), 'w is not 4 bytes'),
        (lambda t: t.pop('w'), 'w is not 4 bytes'),
        (lambda t: t.pop('w_scales'), 'w_scales is no mean'),
        (lambda t: t.update(w_scales=torch.tensor([0.0, torch.nan])), 'w_scales is no mean'),
        (lambda t: t.update(w_scales=torch.zeros(3)), 'w_scales is no mean'),
    ],
)
def test_what_was_not_packed_is_refused(change, message):
    forms = {'w': {'bits': 2, 'shape': [4, 4]}}
    tensors = packing.pack({'w': torch.randn(4, 4)}, forms)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        packing.unpack(tensors, forms)


@pytest.mark.parametrize('form', ['8', '1', 'fp16'])
def test_what_was_measured_before_is_not_told_of_the_compressed_file(form, tmp_path):
    told = {'method': {'type': 'LoRA'}, 'classes': ['a', 'b'], 'epoch': 3}
    measured = {'val': {'accuracy/top1': 71.0}, 'test': {'accuracy/top1': 70.0}}
    file, small = tmp_path / 'a.safetensors', tmp_path / 'small.safetensors'
    save_adapter(file, {'w': torch.randn(8, 8)}, {**told, 'metrics': measured})
    compress(file, small, form)
    found = read_adapter(small)[1]
    assert {key: found[key] for key in told} == told
    assert 'metrics' not in found
    assert read_adapter(file)[1]['metrics'] == measured


@pytest.mark.parametrize('wrong', [torch.inf, torch.nan, 3e38])
def test_a_matrix_that_is_not_finite_is_not_compressed(wrong, tmp_path):
    matrix = torch.randn(8, 8)
    matrix[1] = wrong  # of whose squares 3e38 has infinite ones
    save_adapter(tmp_path / 'a.safetensors', {'w': matrix}, {'method': {'type': 'LoRA'}})
    with pytest.raises(CheckpointError, match=r'a\.safetensors: w has numbers that are not finite'):
        compress(tmp_path / 'a.safetensors', tmp_path / 'small.safetensors', '2')
    assert not (tmp_path / 'small.safetensors').exists()


@pytest.mark.parametrize(
    'form', [None, {'bits': 3, 'shape': [2]}, {'bits': 1}, {'bits': 1, 'shape': [-1]}]
)
def test_a_form_that_there_is_not_is_refused(form, tmp_path):
    with pytest.raises(CheckpointError, match=r'packed is not a mapping of matrices'):
        save_adapter(tmp_path / 'a.safetensors', {'w': torch.ones(2, 2)}, {'packed': {'w': form}})

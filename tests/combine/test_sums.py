"""Adapters out of adapters: what the sums do to the model's weights, and what is refused."""

import pytest
import torch
from peft.utils import merge_utils

from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.checkpoint.compress import compress
from gleam_mm.combine import combine
from gleam_mm.models import load_model
from gleam_mm.petl import MergeError

LORA = dict(type='LoRA', rank=2, alpha=6.0, sites=['qkv', 'fc2'])
NAN, INF = float('nan'), float('inf')
QKV, FC2 = 'layers.0.attn.qkv.weight', 'layers.1.ffn.layers.1.weight'


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out' / 'out.safetensors'


def update(model):
    """What a method makes of the backbone's weights, and by how much."""
    model.petl.merge()
    merged = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model.petl.unmerge()
    return {k: merged[k] - v for k, v in model.backbone.state_dict().items()}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_mean_averages_every_parameter(trained, out, images):
    petl = dict(type='GLEAM', rank=4)
    (a, first), (b, second) = trained(petl), trained(petl, seed=2)
    made = combine([a, b], out, weights=[0.25, 0.75])
    model = load_model(checkpoint=out)
    ours, theirs = first.state_dict(), second.state_dict()
    for name, tensor in model.state_dict().items():
        if name != '_extra_state':
            close(tensor, 0.25 * ours[name] + 0.75 * theirs[name])
    assert (made.ranks, made.energy) == ([], None)
    _, metadata = read_adapter(out)
    assert metadata['classes'] == list('abcd')
    assert metadata['combined'] == {'how': 'mean', 'of': {str(a): 0.25, str(b): 0.75}}
    assert model(images).shape == (2, 4)


def test_the_mean_of_one_file_acts_as_it_does(trained, out, images):
    file, model = trained([dict(type='SSF', sites=['fc2']), {**LORA, 'sites': ['fc2']}])
    combine([file, file], out)
    close(load_model(checkpoint=out).eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ('petl', 'name'),
    [
        (dict(type='DyLoRA', rank=2), 'petl.step'),
        (dict(type='MoSA', bottleneck=4), 'petl.step'),
        (dict(type='NOAH'), 'petl.step'),
        ([dict(type='BitFit'), dict(type='DyLoRA', rank=2)], 'petl.local.dylora.step'),
        (dict(type='FullTuning'), 'backbone.norm.num_batches_tracked'),
    ],
    ids=['DyLoRA', 'MoSA', 'NOAH', 'a part', 'a norm'],
)
def test_counters_of_steps_go_on_from_the_largest(trained, out, petl, name):
    files = [trained(petl, seed)[0] for seed in (1, 2)]
    for file, step in zip(files, (7, 3), strict=True):
        tensors, metadata = read_adapter(file)
        save_adapter(file, {**tensors, name: torch.tensor(step)}, metadata)
    combine(files, out)
    assert read_adapter(out)[0][name] == 7
    (first, _), (second, _), (mean, _) = map(read_adapter, (*files, out))
    close(mean['head.fc.weight'], (first['head.fc.weight'] + second['head.fc.weight']) / 2)


def test_numbers_that_make_no_sum_are_refused(trained, out, tmp_path):
    told = [dict(val={'accuracy/top1': m}) for m in (90.0, 45.0)]
    a, b = (trained(LORA, seed, metrics=m)[0] for seed, m in enumerate(told))
    for density in (0, -0.1, 1.1, NAN):
        with pytest.raises(ValueError, match=f'density={density}: a share above 0 and up to 1'):
            combine([a, b], out, 'ties', density=density)
    for weights in ([NAN, 0.5], [0.5, INF]):
        with pytest.raises(ValueError, match=r'weights=.*(nan|inf).*: give finite numbers'):
            combine([a, b], out, 'product', weights=weights)
    for power, reason in ((INF, 'give a finite number'), (5000, 'beyond'), (-5000, 'beyond')):
        with pytest.raises(ValueError, match=f'power={power}: .*{reason}'):
            combine([a, b], out, 'metric', power=power)
    with pytest.raises(CheckpointError, match=r'out\.safetensors: .* infinite or NaN, by weights'):
        combine([a, b], out, 'product', weights=[1e300, 1.0])
    tensors, metadata = read_adapter(b)
    diverged = tmp_path / 'diverged.safetensors'
    save_adapter(diverged, {**tensors, 'head.fc.bias': torch.full((4,), NAN)}, metadata)
    with pytest.raises(CheckpointError, match=r'diverged\.safetensors: head\.fc\.bias has numbers'):
        combine([a, diverged], out)
    assert not out.exists()


def test_weights_by_a_validation_metric(trained, out):
    petl = dict(type='SSF')
    told = [dict(val={'accuracy/top1': m}, test={'accuracy/top1': 1.0}) for m in (90.0, 30.0)]
    files = [trained(petl, seed, metrics=m)[0] for seed, m in enumerate(told)]
    assert combine(files, out, 'metric', power=2).weights == [0.9, 0.1]
    with pytest.raises(CheckpointError, match='no validation metric loss; it has accuracy/top1'):
        combine(files, out.with_name('loss.safetensors'), 'metric', metric='loss')


@pytest.mark.parametrize('init', ['uniform', 'pissa'])
def test_products_add_what_the_matrices_do(trained, out, init):
    (a, first), (b, second) = trained({**LORA, 'init': init}), trained({**LORA, 'rank': 3}, seed=2)
    made = combine([a, b], out, 'product', weights=[0.5, -2.0], head=a)
    assert made.ranks == [{'uniform': 5, 'pissa': 7}[init]]
    model = load_model(checkpoint=out)
    got, ours, theirs = update(model), update(first), update(second)
    for name in got:
        close(got[name], 0.5 * ours[name] - 2 * theirs[name])
    assert torch.equal(model.head.fc.weight, first.head.fc.weight)

    cut = out.with_name('cut.safetensors')
    made = combine([a, b], cut, 'product', rank=2)
    got = update(load_model(checkpoint=cut))
    kept = whole = 0.0
    for name in (QKV, FC2):
        mean = (ours[name] + theirs[name]) / 2
        u, s, vh = torch.linalg.svd(mean, full_matrices=False)
        close(got[name], (u[:, :2] * s[:2]) @ vh[:2])
    for name in got:
        s = torch.linalg.svdvals((ours[name] + theirs[name]) / 2) if got[name].ndim == 2 else None
        if s is not None and s.any():
            kept, whole = kept + s[:2].square().sum(), whole + s.square().sum()
    assert made.energy == pytest.approx((kept / whole).item(), rel=1e-3)


@pytest.mark.parametrize('kind', ['LoRA', 'DyLoRA', 'MLAE'])
def test_products_of_what_says_no_option(trained, out, kind):
    (a, first), (b, second) = trained(dict(type=kind)), trained(dict(type=kind), seed=2)
    combine([a, b], out, 'product', weights=[1.0, 1.0])
    got, ours, theirs = update(load_model(checkpoint=out)), update(first), update(second)
    for name in got:
        close(got[name], ours[name] + theirs[name])


def test_ties_and_dare_of_low_rank_updates(trained, out):
    (a, first), (b, second) = trained(LORA), trained(LORA, seed=2)
    combine([a, b], out, 'ties', density=0.3, rank=32)
    got, ours, theirs = update(load_model(checkpoint=out)), update(first), update(second)
    expected = merge_utils.ties([ours[QKV], theirs[QKV]], torch.ones(2), 0.3)
    close(got[QKV], expected)
    dare = out.with_name('dare.safetensors')
    combine([a, b], dare, 'dare', density=1.0, rank=4)  # nothing is dropped, and 2 + 2 hold it all
    close(update(load_model(checkpoint=dare))[FC2], (ours[FC2] + theirs[FC2]) / 2)


def test_task_vectors_start_where_the_method_does(trained, out):
    petl = [dict(type='SSF'), dict(type='BitFit')]
    (a, first), (b, second) = trained(petl), trained(petl, seed=2)
    start = load_model(checkpoint=a)  # the pretrained biases are those of its backbone
    combine([a, b], out, 'ties', density=1.0)
    got = load_model(checkpoint=out).state_dict()
    # One where the start is one, and the pretrained bias where it is that.
    bias = 'backbone.layers.0.attn.qkv.bias'
    origin = torch.load(start.description['backbone']['init_cfg']['checkpoint'])[bias[9:]]
    tasks = torch.stack([m.state_dict()[bias] - origin for m in (first, second)])
    sign = torch.where(tasks.sum(0) >= 0, 1.0, -1.0)
    agree = tasks.sign() == sign
    close(got[bias], origin + (tasks * agree).sum(0) / agree.sum(0).clamp(min=1))


@pytest.mark.parametrize(
    'petl',
    [
        LORA,
        dict(type='BitFit'),
        dict(type='FacT', rank=4),
        dict(type='AdapterBias'),
        dict(type='HFPeft', config=dict(peft_type='IA3'), sites=['qkv']),
        [dict(type='LoRA', rank=2), dict(type='BitFit')],
    ],
    ids=lambda petl: petl['type'] if isinstance(petl, dict) else 'several',
)
def test_the_opposite_of_an_update(trained, out, petl):
    file, model = trained(petl)
    before = update(model)
    adopted = {n: t for n, t in model.state_dict().items() if n.startswith('backbone.')}
    combine([file], out, 'negate')
    negated = load_model(checkpoint=out)
    for name, change in update(negated).items():
        close(change, -before[name])
    pretrained = torch.load(model.description['backbone']['init_cfg']['checkpoint'])
    for name, tensor in adopted.items():
        close(negated.state_dict()[name], 2 * pretrained[name.removeprefix('backbone.')] - tensor)
    assert torch.equal(negated.head.fc.weight, model.head.fc.weight)


def test_what_has_no_opposite_is_refused(trained, out):
    with pytest.raises(MergeError, match='Convpass cannot be merged'):
        combine([trained(dict(type='Convpass'))[0]], out, 'negate')
    with pytest.raises(
        CheckpointError, match='the opposite of its update is not one of its method'
    ):
        combine([trained(dict(type='ETHERPlus'))[0]], out, 'negate')


def test_what_does_not_go_together_is_refused(trained, out, config_for, tmp_path):
    a, _ = trained(LORA)
    other, _ = trained({**LORA, 'rank': 3})
    with pytest.raises(CheckpointError, match=r'model\.petl\.rank is 3 and 2'):
        combine([a, other], out)
    with pytest.raises(CheckpointError, match=r'model\.petl\.sites'):
        combine([a, trained({**LORA, 'sites': ['qkv']})[0]], out, 'product')
    with pytest.raises(CheckpointError, match=r"model\.petl\.type is 'BitFit' and 'LoRA'"):
        combine([a, trained(dict(type='BitFit'))[0]], out)  # which leaves other weights frozen
    with pytest.raises(CheckpointError, match=r'different classes.*--head'):
        combine([a, trained(LORA, classes='vwxyz')[0]], out, 'product')
    with pytest.raises(CheckpointError, match='has no LoRA'):
        combine([trained(dict(type='SSF'), s)[0] for s in (0, 1)], out, 'product')
    with pytest.raises(CheckpointError, match='has no LoRA'):
        combine([trained({**LORA, 'gate': True}, s)[0] for s in (0, 1)], out, 'product')
    with pytest.raises(ValueError, match='sum to 1, not'):
        combine([a, a], out, weights=[1.0, 0.5])
    tensors, metadata = read_adapter(a)
    elsewhere = tmp_path / 'elsewhere.safetensors'
    save_adapter(elsewhere, tensors, {**metadata, 'backbone_fingerprint': 64 * '0'})
    with pytest.raises(CheckpointError, match=f'{64 * "0"} and [0-9a-f]{{64}}'):
        combine([a, elsewhere], out)
    lacking = {name: t for name, t in tensors.items() if 'layers/0/attn' not in name}
    save_adapter(elsewhere, lacking, metadata)
    with pytest.raises(CheckpointError, match=r'only one of them has .*layers/0/attn/qkv'):
        combine([a, elsewhere], out, 'product')
    assert not out.exists()


def test_no_file_is_replaced(trained, tmp_path):
    (a, _), (b, _) = trained(LORA), trained(LORA, seed=2)
    data = a.read_bytes()
    for write in (lambda: combine([b, b], a), lambda: compress(a, a, '8')):
        with pytest.raises(FileExistsError, match=f'{a} exists already: name another file'):
            write()
    assert a.read_bytes() == data


def test_the_head_of_one_task_is_kept(trained, out):
    (a, _), (b, second) = trained(LORA), trained(LORA, seed=2, classes='vwxyz')
    combine([a, b], out, 'product', weights=[1.0, 1.0], head=b)
    model = load_model(checkpoint=out)
    assert torch.equal(model.head.fc.weight, second.head.fc.weight)
    assert read_adapter(out)[1]['classes'] == list('vwxyz')


def test_checkpoints_of_a_run_and_packed_files(trained, out, tmp_path):
    (a, first), (_, second) = trained(LORA), trained(LORA, seed=2)
    file = tmp_path / 'epoch_2.pth'
    meta = dict(dataset_meta=dict(classes=tuple('abcd')))
    torch.save(dict(state_dict=second.state_dict(), meta=meta), file)
    combine([a, file], out)
    expected = (first.head.fc.weight + second.head.fc.weight) / 2
    close(load_model(checkpoint=out).head.fc.weight, expected)

    packed = tmp_path / 'packed.safetensors'
    compress(a, packed, '8')
    twice = tmp_path / 'twice.safetensors'
    combine([packed, packed], twice)
    close(read_adapter(twice)[0]['head.fc.weight'], read_adapter(packed)[0]['head.fc.weight'])
    bits = trained({**LORA, 'bits': 4}, 1)[0], trained({**LORA, 'bits': 4}, 2)[0]
    with pytest.raises(CheckpointError, match='matrices of few bits'):
        combine(bits, tmp_path / 'bits.safetensors')
    combine(bits, tmp_path / 'bits.safetensors', 'product')
    got = update(load_model(checkpoint=tmp_path / 'bits.safetensors'))
    halves = [update(load_model(checkpoint=file))[QKV] for file in bits]
    close(got[QKV], (halves[0] + halves[1]) / 2)


def test_a_diverged_checkpoint_of_few_bits_is_named(trained, out, tmp_path):
    model = trained({**LORA, 'bits': 4}, 1)[1]
    state = model.state_dict()
    name = next(name for name in state if name.endswith('.up'))
    state[name] = torch.full_like(state[name], NAN)
    torch.save({'state_dict': state}, tmp_path / 'diverged.pth')
    with pytest.raises(CheckpointError, match=rf'diverged\.pth: {name}.* infinite or NaN'):
        combine([tmp_path / 'diverged.pth'] * 2, out, 'product')

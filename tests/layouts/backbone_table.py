"""Measures what every family of backbones can do; as a program, writes docs/backbones.md.

A row is what its checks saw. ``tests/layouts/test_families.py`` compares rows of the page with
what it measures itself.
"""

import sys
from pathlib import Path

import torch

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parents[1]))

import gleam_mm  # noqa: F401  (applies the patches that importing mmpretrain may need)

# isort: split

from families import FAMILIES, LIBRARIES, classifier, size_of
from mmengine.registry import DefaultScope

from gleam_mm.fileio import write_bytes
from gleam_mm.layouts import LINEAR_ROLES, find_layout
from gleam_mm.layouts.timm_backbone import inner_model
from gleam_mm.registry import MODELS

PAGE = Path(__file__).parents[2] / 'docs' / 'backbones.md'
COLUMNS = {
    'roles': 'what of `qkv`, `proj`, `fc1`, `fc2` there is to adapt',
    'attaches': 'LoRA attaches at all of them, is proved by a pass, and changes no output at first',
    'features': (
        'pooled features are bit for bit those of the library: of timm by `PooledTIMMBackbone`, '
        'which gives `forward_head(pre_logits=True)`, of transformers and torchvision by what '
        'their last Linear reads, of MMPretrain by its own class'
    ),
    'grid': 'a patch that is changed is seen at its place in the grid, in each stage',
    'trains': 'every parameter of LoRA gets a gradient within three steps; saved, loaded, the same',
    'GLEAM': 'the same for GLEAM, whose experts convolve over the grid',
    'merges': 'LoRA in the weights gives the same outputs to 1e-4, and comes out bit for bit',
}
LORA = dict(type='LoRA', rank=2)
GLEAM = dict(type='GLEAM', rank=2, alpha=0.1)


def make(family):
    """The same model each time, with weights that nothing is zero of, in evaluation mode."""
    torch.manual_seed(0)
    model = FAMILIES[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.eval()
    return model


def outputs(model, images):
    """All tensors that a model returns."""
    found = model(images)
    while isinstance(found, tuple | list):
        found = found[0] if len(found) == 1 or not hasattr(found[0], 'shape') else sum(found)
    return found


def attach(model, config, roles):
    """A method with the probe; its weights are the same each time."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        method = MODELS.build(dict(config, sites=roles))
    model.requires_grad_(False)
    method.attach(model, probe=True)
    method.eval()
    return method


def close(a, b, tolerance):
    """Whether two outputs are equal up to rounding, measured by the largest number."""
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1))


def check_start(family, config, roles, images):
    """A method starts as the pretrained model."""
    model = make(family)
    with torch.no_grad():
        before = outputs(model, images)
        attach(model, config, roles)
        return close(outputs(model, images), before, 2e-6)


def check_training(family, config, roles, images):
    """Gradients reach every parameter, and what is saved gives the same outputs elsewhere."""
    model = make(family)
    method = attach(model, config, roles)
    parameters = dict(method.trainable_parameters())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    reached = set()
    model.train()
    for module in model.modules():
        if 'Drop' in type(module).__name__:  # one that is dropped gets no gradient
            module.training = False
    for _ in range(3):
        optimizer.zero_grad()
        found = outputs(model, images)
        (found * torch.randn_like(found)).mean().backward()
        reached |= {n for n, p in parameters.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    model.eval()
    again = make(family)
    again.load_state_dict(model.state_dict(), strict=False)  # statistics of batch norms
    other = attach(again, config, roles)
    other.load_state_dict(method.state_dict())
    with torch.no_grad():
        same = torch.equal(outputs(model, images), outputs(again, images))
    return reached == parameters.keys() and same


def check_merging(family, roles, images):
    """Merged, the weights alone give the same outputs; unmerged, they are the old ones."""
    model = make(family)
    method = attach(model, LORA, roles)
    with torch.no_grad():
        for _, parameter in method.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        adapted = outputs(model, images)
        method.merge()
        merged = outputs(model, images)
        method.unmerge()
    state = model.state_dict()
    back = all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    return close(merged, adapted, 1e-4) and back


def check_grid(family, images):
    """A changed patch is seen at its place, at the first block of each size of grid."""
    model = make(family)
    layout = find_layout(model)
    handles, seen = layout.track_grid(), {}
    blocks = layout.sites(('block',))

    def keep(site):
        def hook(module, args):
            tokens = layout.as_tokens(site, args[0]).flatten(1, -2)
            seen[site.block] = layout.grid(site), tokens

        return hook

    for site in blocks:
        handles.append(site.module.register_forward_pre_hook(keep(site)))
    with torch.no_grad():
        model(images)
        plain = dict(seen)
        grids = {}
        for block, (grid, _) in sorted(plain.items()):
            grids.setdefault(grid[1:3], block)
        right = []
        for (height, width), block in grids.items():
            if not height:  # class tokens alone
                continue
            rows, columns = images.shape[2] // height, images.shape[3] // width
            place = [min(1, height - 1), min(1, width - 1)]
            top, left = place[0] * rows, place[1] * columns
            changed = images.clone()
            changed[:, :, top : top + rows, left : left + columns] += torch.randn(rows, columns)
            model(changed)
            grid, before = plain[block]
            if before.shape[1] != grid.tokens:
                return False
            moved = (seen[block][1] - before).square().sum((0, 2)).square()
            inside = moved[grid.prefix : grid.prefix + height * width].view(height, width)
            inside = inside / inside.sum()
            found = [
                inside.sum(1).double() @ torch.arange(height).double(),
                inside.sum(0).double() @ torch.arange(width).double(),
            ]
            right.append(all(abs(a - b) < 0.95 for a, b in zip(found, place, strict=True)))
    for handle in handles:
        handle.remove()
    return bool(right) and all(right)


def check_features(family, images):
    """Pooled features equal those of the library: what its own classifier's last Linear reads."""
    library, options = LIBRARIES[family]
    if library == 'MMPretrain':
        return check_start(family, LORA, _roles(find_layout(make(family))), images)
    if library == 'timm':
        reference = make(family)
        name, options = options
        ours = MODELS.build(dict(type='PooledTIMMBackbone', model_name=name, **options))
        inner, head = ours.timm_model, None
    else:
        reference, head = classifier(family)
        ours = make(family)
        inner = ours.model
    own = inner.state_dict()
    inner.load_state_dict({k: v for k, v in reference.state_dict().items() if k in own})
    reference.eval()
    ours.eval()
    with torch.no_grad():
        if head is None:
            expected = reference.forward_head(reference.forward_features(images), pre_logits=True)
        else:
            read = []
            reference.get_submodule(head).register_forward_pre_hook(lambda m, x: read.append(x[0]))
            reference(images)
            (expected,) = read
        found = ours(images)[0]
    # A distilled model gives two features, which its own classifier averages behind two heads.
    while isinstance(expected, tuple):
        expected = torch.stack(expected).mean(0)
    return found.shape == expected.shape and torch.equal(found, expected)


def _roles(layout):
    there = {site.role for site in layout.all_sites()}
    return [role for role in LINEAR_ROLES if role in there]


def measure(family):
    """The row of a family, as a line of Markdown."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size_of(family))
    model = make(family)
    own, _ = inner_model(model)
    title = f'{type(own).__module__.rpartition(".")[2]}.{type(own).__name__}'
    cells = [family, LIBRARIES[family][0], title]
    try:
        layout = find_layout(model)
    except ValueError as error:
        reason = str(error).partition(': ')[2]
        return _line([*cells, *['-'] * len(COLUMNS), reason])
    roles, notes = _roles(layout), []

    def told(check, *args):
        try:
            return '✓' if check(*args) else 'no'
        except (ValueError, RuntimeError) as error:
            if str(error) not in notes:
                notes.append(str(error))
            return 'no'

    cells.append(' '.join(roles))
    cells.append(told(check_start, family, LORA, roles, images))
    cells.append(told(check_features, family, images))
    if reason := layout.no_grid or layout.no_blocks:
        notes.append(f'tokens: {reason}')
        cells.append('-')
    else:
        cells.append(told(check_grid, family, images))
    cells.append(told(check_training, family, LORA, roles, images))
    if layout.no_grid:
        cells.append('-')
    else:
        gleam = told(check_training, family, GLEAM, roles, images)
        cells.append(gleam)
    cells.append(told(check_merging, family, roles, images))
    return _line([*cells, '; '.join(notes)])


def _line(cells):
    return f'| {" | ".join(cells)} |'


def page(rows):
    """The page with these rows."""
    head = ['backbone', 'library', 'class', *COLUMNS, 'note']
    return '\n'.join(
        [
            '# Backbones',
            '',
            'Which backbones there are sites in, and what of it holds. Every row is a tiny model',
            'of a class with random weights, built, adapted and trained for a few steps; it stands',
            'for all models of its class. `make backbones` writes this page, and the suite fails',
            'where a row is not what its checks say (`tests/layouts/test_families.py`).',
            '',
            'How sites are found: `gleam_mm/layouts/families.py` has a row for each class. A class',
            'that is in no table is refused by name; how to add one is in',
            '[Add a backbone](tutorials/add-a-backbone.md).',
            '',
            _line(head),
            f'| --- | --- | --- | --- |{" :-: |" * (len(COLUMNS) - 1)} --- |',
            *rows,
            '',
            *(f'- **{name}**: {meaning}.' for name, meaning in COLUMNS.items()),
            '',
        ]
    )


def main():
    names = sys.argv[1:]
    rows = []
    for family in names or FAMILIES:
        rows.append(measure(family))
        print(rows[-1], flush=True)
    if not names:
        write_bytes(PAGE, page(rows).encode())


if __name__ == '__main__':
    main()

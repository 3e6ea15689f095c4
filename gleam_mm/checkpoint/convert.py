"""Pretrained ViT and Swin weights from timm, Google and Microsoft, under MMPretrain's key names.

Whatever comes in is first brought to the names of today's timm, then to those of the target. Every
key of a source is mapped, dropped for a stated reason, or an error; none is skipped in silence.
Numbers are only moved, never computed with. That a file has all the weights of a backbone, and in
the right shapes, is checked where it is loaded, by :func:`gleam_mm.checkpoint.load_backbone`.
"""

import io
import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import torch as safetensors
from torch import Tensor

from gleam_mm.checkpoint import CheckpointError, load_from_local, resolve_path
from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape

TARGETS = ('mmpretrain', 'timm', 'timm-pooled')
"""MMPretrain's own classes, or timm's in its ``TIMMBackbone``, or in our ``PooledTIMMBackbone``."""

SUFFIXES = ('.safetensors', '.pth')

_MOST_DEFLATED = 1032  # no deflated byte stands for more
_WRAPPERS = ('model', 'state_dict')  # where official checkpoints keep their weights
_TIMM_PREFIX = 'timm_model.'

_HEAD = 'classification head'
_POOL = 'attention pooling, which belongs to the head'
_MASK = 'attention mask, which MMPretrain and timm compute'
_INDEX = 'relative position index, which timm computes'
_HEAD_KEYS = re.compile(
    r'(head|head\.fc|head_dist|pre_logits\.fc)\.(weight|bias)|(head|pre_logits)/(kernel|bias)'
)
_POOL_KEYS = re.compile(r'attn_pool\..*')
_BUFFER_KEYS = re.compile(r'layers\.\d+\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)')

_COMPUTED = 'buffer that timm computes'
_COMPUTED_KEYS = re.compile(r'.*\.(attn_mask|relative_position_index|relative_coords_table)')
_FIRST_BLOCK = re.compile(r'(blocks|(layers|stages)\.0\.blocks)\.0\.(attn|mlp|norm1)\.')

_MLP = {'fc1': 'ffn.layers.0.0', 'fc2': 'ffn.layers.1'}
_Keys = list[tuple[str, str | Callable[[re.Match], str]]]

_VIT_KEYS: _Keys = [
    (r'(cls_token|pos_embed)', r'\1'),
    (r'patch_embed\.proj\.(weight|bias)', r'patch_embed.projection.\1'),
    (r'blocks\.(\d+)\.norm([12])\.(weight|bias)', r'layers.\1.ln\2.\3'),
    (r'blocks\.(\d+)\.attn\.((?:qkv|proj)\.(?:weight|bias))', r'layers.\1.attn.\2'),
    (
        r'blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)',
        lambda m: f'layers.{m[1]}.{_MLP[m[2]]}.{m[3]}',
    ),
    (r'blocks\.(\d+)\.ls1\.gamma', r'layers.\1.attn.gamma1.weight'),
    (r'blocks\.(\d+)\.ls2\.gamma', r'layers.\1.ffn.gamma2.weight'),
    (r'norm_pre\.(weight|bias)', r'pre_norm.\1'),
    (r'norm\.(weight|bias)', r'ln1.\1'),
]
_SWIN_KEYS: _Keys = [
    (r'patch_embed\.proj\.(weight|bias)', r'patch_embed.projection.\1'),
    (r'patch_embed\.norm\.(weight|bias)', r'patch_embed.norm.\1'),
    (r'layers\.(\d+)\.blocks\.(\d+)\.(norm[12]\.(?:weight|bias))', r'stages.\1.blocks.\2.\3'),
    (
        r'layers\.(\d+)\.blocks\.(\d+)\.attn\.'
        r'(relative_position_bias_table|(?:qkv|proj)\.(?:weight|bias))',
        r'stages.\1.blocks.\2.attn.w_msa.\3',
    ),
    (
        r'layers\.(\d+)\.blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)',
        lambda m: f'stages.{m[1]}.blocks.{m[2]}.{_MLP[m[3]]}.{m[4]}',
    ),
    (
        r'layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)',
        lambda m: f'stages.{int(m[1]) - 1}.downsample.{m[2]}',
    ),
]


class ConversionError(ValueError):
    """Weights that cannot be converted. The message names the file and the key."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion came to.

    Attributes:
        source: What the source was, such as ``'ViT of timm'``.
        tensors: The converted weights by name.
        dropped: Keys of the source that the backbone has no place for, and why.
        grid: Patches a side that the position embedding is for; None without one (Swin).
    """

    source: str
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    grid: float | None


def convert_file(
    source: str | Path, destination: str | Path, target: str = 'mmpretrain', force: bool = False
) -> Conversion:
    """Converts a file of weights; the new file is there in full or not at all.

    Args:
        source: ``.safetensors``, a file made by ``torch.save`` (read with safe loading only), or
            Google's ``.npz``.
        destination: A ``.safetensors`` or ``.pth`` file.
        target: One of :data:`TARGETS`.
        force: Replaces the destination if it exists.

    Returns:
        The conversion.

    Raises:
        FileNotFoundError: There is no source.
        CheckpointError: The source is damaged, holds something else, or may only be read unsafely.
        ConversionError: A key of the source has no place in the target, the source is neither a
            ViT nor a Swin, or the destination exists or has another suffix.
    """
    source, destination = Path(source).expanduser(), Path(destination).expanduser()
    if destination.suffix not in SUFFIXES:
        raise ConversionError(f'{destination}: name a file that ends in {" or ".join(SUFFIXES)}')
    if destination.exists() and not force:
        raise ConversionError(f'{destination} exists already: name another file, or pass --force')
    if destination.exists() and source.exists() and destination.samefile(source):
        raise ConversionError(f'{destination}: is the source itself; name another file')
    try:
        conversion = convert(read(source), target)
    except ConversionError as error:
        raise ConversionError(f'{source}: {error}') from error
    write_bytes(destination, _serialise(conversion, destination.suffix, source.name))
    return conversion


def convert(tensors: Mapping[str, Tensor], target: str = 'mmpretrain') -> Conversion:
    """Converts weights.

    Args:
        tensors: Weights under the names of timm, of Microsoft's Swin or of Google's ViT.
        target: One of :data:`TARGETS`.

    Returns:
        The conversion.

    Raises:
        ConversionError: See :func:`convert_file`.
    """
    if target not in TARGETS:
        raise ConversionError(f'target={target!r}: choose one of {", ".join(TARGETS)}')
    dropped = {key: _HEAD for key in tensors if _HEAD_KEYS.fullmatch(key)}
    if target != 'timm-pooled':
        dropped |= {key: _POOL for key in tensors if _POOL_KEYS.fullmatch(key)}
    weights = {key: value for key, value in tensors.items() if key not in dropped}
    of_timm = target != 'mmpretrain' and any(_FIRST_BLOCK.match(key) for key in weights)
    if 'embedding/kernel' in weights:
        source, keys, weights = "ViT of Google's .npz format", _VIT_KEYS, _google_to_timm(weights)
    elif 'blocks.0.attn.qkv.weight' in weights:
        source, keys = 'ViT of timm', _VIT_KEYS
    elif 'layers.0.blocks.0.attn.qkv.weight' in weights and not (of_timm and _is_swin_v2(weights)):
        source, keys, weights = _swin_to_timm(weights)
    elif of_timm:
        source, keys = 'model of timm', _VIT_KEYS  # which are not needed
        dropped |= {key: _COMPUTED for key in weights if _COMPUTED_KEYS.fullmatch(key)}
        weights = {key: value for key, value in weights.items() if key not in dropped}
    else:
        raise ConversionError(_unknown(weights))

    for key in [key for key in weights if _BUFFER_KEYS.fullmatch(key)]:
        value = weights.pop(key)
        if key.endswith('attn_mask'):
            dropped[key] = _MASK
        else:
            _check_index(key, value)
            if target != 'mmpretrain':
                dropped[key] = _INDEX
    if keys is _SWIN_KEYS:
        last = max(int(key.split('.')[1]) for key in weights if key.startswith('layers.'))
        keys = [*_SWIN_KEYS, (r'norm\.(weight|bias)', rf'norm{last}.\1')]
    elif (
        target == 'mmpretrain'
        and {'cls_token', 'pos_embed'} <= weights.keys()
        and _is_square(weights['pos_embed'])
    ):
        raise ConversionError(
            "its class token has no position, as of DeiT-3: MMPretrain's DeiT3 normalises by ln1 "
            "where ln2 belongs and gives other features; pass --target timm, for timm's class"
        )
    # timm's own names of a ViT need no place in MMPretrain; loading is strict.
    if keys is not _VIT_KEYS or target == 'mmpretrain':
        renamed = {key: _rename(key, keys) for key in weights}
    if target != 'mmpretrain':
        converted = {_TIMM_PREFIX + key: value for key, value in weights.items()}
    else:
        converted = {renamed[key]: _reorder(key, value) for key, value in weights.items()}
        converted |= _indices(converted)
    return Conversion(source, converted, dropped, _grid(weights.get('pos_embed')))


def _is_swin_v2(weights: Mapping[str, Tensor]) -> bool:
    return any(key.endswith('.logit_scale') for key in weights)


def _grid(pos_embed: Tensor | None) -> float | None:
    """Patches a side. Of DeiT-3, SigLIP and others, class tokens and registers have no position."""
    if pos_embed is None:
        return None
    return (pos_embed.shape[1] - (not _is_square(pos_embed))) ** 0.5


def _is_square(pos_embed: Tensor) -> bool:
    """Whether its positions (1, N, C) are those of a square of patches, and of nothing else."""
    return math.isqrt(pos_embed.shape[1]) ** 2 == pos_embed.shape[1]


def read(path: str | Path) -> dict[str, Tensor]:
    """Reads the weights of a file, under the names that they have there.

    Args:
        path: See :func:`convert_file`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, holds something else, or may only be read unsafely.
    """
    path = resolve_path(path)
    if path.suffix == '.npz':
        return _read_npz(path)
    content = load_from_local(str(path))
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    other = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        found = f'{other[0]!r} in it is none' if other else 'it is empty'
        raise CheckpointError(
            f'{path}: expected weights by name, at the top or in '
            f'{" or ".join(map(repr, _WRAPPERS))}, but {found}'
        )
    return dict(content)


def _read_npz(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; give the path of a file of weights')
    try:
        _check_claims(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f'{path}: damaged, cut short or no .npz file of plain arrays ({error}). Download it '
            'again'
        ) from error


def _check_claims(path: Path) -> None:
    """Refuses arrays whose headers claim more than the file has, before memory is taken for them.

    Raises:
        ValueError: One does.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.file_size > _MOST_DEFLATED * record.compress_size:
                raise ValueError(f'{record.filename} cannot be as large as it claims')
            with archive.open(record) as file:
                version = np.lib.format.read_magic(file)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
                held = record.file_size - file.tell()
            if math.prod(shape) * dtype.itemsize != held:
                raise ValueError(
                    f'{record.filename} claims {math.prod(shape):,} numbers in {held:,} bytes'
                )


def _serialise(conversion: Conversion, suffix: str, source: str) -> bytes:
    tensors = {key: value.contiguous() for key, value in conversion.tensors.items()}
    origin = f'{source}, {conversion.source}'
    if suffix == '.safetensors':
        return safetensors.save(tensors, metadata={'format': 'pt', 'converted_from': origin})
    buffer = io.BytesIO()
    torch.save({'state_dict': tensors, 'meta': {'converted_from': origin}}, buffer)
    return buffer.getvalue()


def _unknown(weights: Mapping[str, Tensor]) -> str:
    if any(key.startswith(('stages.0.blocks.0.attn.w_msa', 'layers.0.ln1')) for key in weights):
        return "has MMPretrain's key names already: load it as it is"
    return (
        'neither a ViT nor a Swin of timm, Google or Microsoft: its keys are '
        f'{", ".join(sorted(weights)[:5])}, ...'
    )


def _rename(key: str, keys: _Keys) -> str:
    for pattern, name in keys:
        if found := re.fullmatch(pattern, key):
            return name(found) if callable(name) else found.expand(name)
    raise ConversionError(
        f'the key {key!r} has no place in MMPretrain: this is no plain ViT or Swin, or has more '
        'than its backbone'
    )


def _swin_to_timm(weights: dict[str, Tensor]) -> tuple[str, list, dict[str, Tensor]]:
    """Microsoft's Swin, and timm's before 0.9, downsample at the end of a stage, not the start."""
    if not any(key.startswith('layers.0.downsample.') for key in weights):
        return 'Swin of timm', _SWIN_KEYS, dict(weights)
    moved = {
        re.sub(
            r'^layers\.(\d+)\.downsample\.',
            lambda m: f'layers.{int(m[1]) + 1}.downsample.',
            key,
        ): value
        for key, value in weights.items()
    }
    return "Swin in Microsoft's layout", _SWIN_KEYS, moved


def _reorder(key: str, value: Tensor) -> Tensor:
    """Puts the inputs of a patch merging in MMPretrain's order.

    Swin concatenates the four patches (0, 0), (1, 0), (0, 1), (1, 1), rows first, C channels each.
    MMPretrain unfolds: patches (0, 0), (0, 1), (1, 0), (1, 1), and for each channel its four.

    Args:
        key: timm's name.
        value: ``downsample.reduction.weight`` (out, 4 C), ``downsample.norm`` (4 C), or any other,
            which comes back as it is.
    """
    if '.downsample.' not in key:
        return value
    groups = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
    return groups.transpose(-1, -2).flatten(-2)


def _indices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The buffers of MMPretrain's window attention, one for each table of position biases."""
    end = 'relative_position_bias_table'
    return {
        key.removesuffix(end) + 'relative_position_index': _relative_index(
            _window(value.shape[0], key)
        )
        for key, value in tensors.items()
        if key.endswith(end)
    }


def _window(rows: int, key: str) -> int:
    """The window size w of a table with (2 w - 1)^2 rows."""
    size = (round(rows**0.5) + 1) // 2
    if (2 * size - 1) ** 2 != rows:
        raise ConversionError(f'the key {key!r} has {rows} rows, which fits no square window')
    return size


def _relative_index(window: int) -> Tensor:
    """The row of the table for each pair of positions in a window, int64 (w^2, w^2).

    Positions (y, x) and (y', x') have row (y - y' + w - 1)(2 w - 1) + (x - x' + w - 1).
    """
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')
    y, x = y.flatten(), x.flatten()
    down = y[:, None] - y[None, :] + window - 1
    right = x[:, None] - x[None, :] + window - 1
    return down * (2 * window - 1) + right


def _check_index(key: str, value: Tensor) -> None:
    window = round(value.shape[0] ** 0.5)
    if not torch.equal(value.long(), _relative_index(window)):
        raise ConversionError(f'the key {key!r} numbers relative positions in another order')


def _google_to_timm(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Brings Google's names and shapes to timm's.

    A Dense kernel is (in, out) there and (out, in) here; heads have an axis of their own there;
    convolutions are (height, width, in, out) there and (out, in, height, width) here.
    """
    converted: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for key, value in arrays.items():
        for pattern, name, change in _GOOGLE_KEYS:
            if found := re.fullmatch(pattern, key):
                converted[found.expand(name)] = change(value)
                break
        else:
            found = re.fullmatch(
                r'Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_1/'
                r'(query|key|value)/(kernel|bias)',
                key,
            )
            if not found:
                raise ConversionError(f"the key {key!r} is none of a ViT in Google's format")
            block, part, kind = found.groups()
            parts.setdefault((block, kind), {})[part] = value
    for (block, kind), there in parts.items():
        lacking = [part for part in ('query', 'key', 'value') if part not in there]
        if lacking:
            raise ConversionError(
                f'encoderblock_{block} lacks the {kind} of its {" and ".join(lacking)}'
            )
        stack = [there[part] for part in ('query', 'key', 'value')]
        if kind == 'kernel':  # (d, heads, d / heads) each
            converted[f'blocks.{block}.attn.qkv.weight'] = torch.cat(
                [value.flatten(1).T for value in stack]
            )
        else:  # (heads, d / heads) each
            converted[f'blocks.{block}.attn.qkv.bias'] = torch.cat(
                [value.flatten() for value in stack]
            )
    return converted


def _same(value: Tensor) -> Tensor:
    return value


_BLOCK = r'Transformer/encoderblock_(\d+)/'
_GOOGLE_KEYS: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    (r'cls', 'cls_token', _same),
    (r'Transformer/posembed_input/pos_embedding', 'pos_embed', _same),
    (r'embedding/kernel', 'patch_embed.proj.weight', lambda v: v.permute(3, 2, 0, 1)),
    (r'embedding/bias', 'patch_embed.proj.bias', _same),
    (r'Transformer/encoder_norm/scale', 'norm.weight', _same),
    (r'Transformer/encoder_norm/bias', 'norm.bias', _same),
    (_BLOCK + r'LayerNorm_0/scale', r'blocks.\1.norm1.weight', _same),
    (_BLOCK + r'LayerNorm_0/bias', r'blocks.\1.norm1.bias', _same),
    (_BLOCK + r'LayerNorm_2/scale', r'blocks.\1.norm2.weight', _same),
    (_BLOCK + r'LayerNorm_2/bias', r'blocks.\1.norm2.bias', _same),
    (
        _BLOCK + r'MultiHeadDotProductAttention_1/out/kernel',
        r'blocks.\1.attn.proj.weight',
        lambda v: v.flatten(0, 1).T,
    ),
    (_BLOCK + r'MultiHeadDotProductAttention_1/out/bias', r'blocks.\1.attn.proj.bias', _same),
    (_BLOCK + r'MlpBlock_3/Dense_0/kernel', r'blocks.\1.mlp.fc1.weight', lambda v: v.T),
    (_BLOCK + r'MlpBlock_3/Dense_0/bias', r'blocks.\1.mlp.fc1.bias', _same),
    (_BLOCK + r'MlpBlock_3/Dense_1/kernel', r'blocks.\1.mlp.fc2.weight', lambda v: v.T),
    (_BLOCK + r'MlpBlock_3/Dense_1/bias', r'blocks.\1.mlp.fc2.bias', _same),
]


def summary(source: str | Path, destination: str | Path, conversion: Conversion) -> str:
    """Tells in a few lines what a conversion came to.

    Args:
        source: The file that was read.
        destination: The file that was written.
        conversion: The conversion between them.
    """
    numbers = sum(value.numel() for value in conversion.tensors.values())
    lines = [
        f'{source}: {conversion.source}',
        f'wrote {destination}: {len(conversion.tensors)} tensors, {numbers:,} numbers',
    ]
    for reason in dict.fromkeys(conversion.dropped.values()):
        keys = [key for key, why in conversion.dropped.items() if why == reason]
        lines.append(f'left out, {reason}: {", ".join(map(escape.terminal, keys))}')
    if conversion.grid:
        lines.append(
            f'position embedding of {conversion.grid:g} x {conversion.grid:g} patches, as it was: '
            "loading checks it against img_size, and MMPretrain's classes interpolate it"
        )
    return '\n'.join(lines)

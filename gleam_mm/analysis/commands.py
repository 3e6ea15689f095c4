"""What ``tools/analyze.py`` does, from its flags to files."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gleam_mm import errors
from gleam_mm.analysis import attention, cam, figures, homogeneity, routing
from gleam_mm.analysis.pictures import load_pictures
from gleam_mm.analysis.subjects import AnalysisError, Subject, load_subject


def run(args: argparse.Namespace) -> None:
    """Runs a command, and prints what it found and wrote.

    Raises:
        UserError: Something does not fit.
    """
    with errors.setup():
        for option in ('max_images', 'batch_size'):
            if (value := getattr(args, option, None)) is not None and value < 1:
                raise ValueError(f'--{option.replace("_", "-")} {value}: choose at least 1')
        torch.zeros(1, device=args.device)  # a device that is not there fails now
        subjects = [
            load_subject(text, args.cfg_options, args.data, args.device) for text in args.subjects
        ]
        names = [subject.name for subject in subjects]
        if len(set(names)) < len(names):
            raise ValueError(
                f'subjects with the same name: {", ".join(names)}; name them, such as '
                f'a={args.subjects[0]}'
            )
    try:
        written = COMMANDS[args.command](args, subjects, Path(args.out))
    except (AnalysisError, FileNotFoundError, ImportError) as error:
        raise errors.UserError(errors.describe(error)) from error
    for path in written:
        print(path)


def run_homogeneity(args: argparse.Namespace, subjects: Sequence[Subject], out: Path) -> list[Path]:
    """Figures 2 and 3 of the paper, for any methods."""
    results = [
        homogeneity.measure(subject, args.roles, args.split, args.max_images, args.batch_size)
        for subject in subjects
    ]
    content = {'analysis': 'homogeneity', 'definitions': homogeneity.DEFINITIONS}
    written = [_write(out / 'homogeneity.json', {**content, 'subjects': results})]
    for result in results:
        for role in result['roles']:
            file = out / f'homogeneity_{_file_name(result["name"])}_{role}.png'
            figures.save(figures.similarity_maps(result, role), file)
            written.append(file)
    for role in dict.fromkeys(role for result in results for role in result['roles']):
        having = [result for result in results if role in result['roles']]
        file = out / f'homogeneity_adjacent_{role}.png'
        figures.save(figures.adjacent_bars(having, role), file)
        written.append(file)
    print(_homogeneity_table(results))
    return written


def run_routing(args: argparse.Namespace, subjects: Sequence[Subject], out: Path) -> list[Path]:
    """Which experts are chosen."""
    results = [
        routing.measure(subject, args.split, args.max_images, args.batch_size)
        for subject in subjects
    ]
    written = [_write(out / 'routing.json', {'analysis': 'routing', 'subjects': results})]
    drawings = {
        'layers': figures.routing_layers,
        'classes': figures.routing_classes,
        'balance': figures.routing_balance,
    }
    for result in results:
        for name, draw in drawings.items():
            file = out / f'routing_{_file_name(result["name"])}_{name}.png'
            figures.save(draw(result), file)
            written.append(file)
    return written


def run_attention(args: argparse.Namespace, subjects: Sequence[Subject], out: Path) -> list[Path]:
    """Where attention goes."""
    (subject,) = subjects
    pictures = load_pictures(subject, args.split, args.images)
    result = attention.measure(subject, pictures)
    drawing = figures.attention_maps(result, pictures.shown)
    return _write_maps(out, 'attention', result, drawing)


def run_cam(args: argparse.Namespace, subjects: Sequence[Subject], out: Path) -> list[Path]:
    """What speaks for a class."""
    (subject,) = subjects
    pictures = load_pictures(subject, args.split, args.images)
    result = cam.measure(subject, pictures, args.method, args.target, args.site)
    return _write_maps(out, 'cam', result, figures.cam_maps(result, pictures.shown))


COMMANDS = {
    'homogeneity': run_homogeneity,
    'routing': run_routing,
    'attention': run_attention,
    'cam': run_cam,
}


def _write_maps(out: Path, name: str, result: dict, drawing: Any) -> list[Path]:
    stem = f'{name}_{_file_name(result["name"])}'
    figures.save(drawing, out / f'{stem}.png')
    return [_write(out / f'{stem}.json', {'analysis': name, **result}), out / f'{stem}.png']


def _write(path: Path, content: Any) -> Path:
    figures.write_json(path, content)
    return path


def _file_name(name: str) -> str:
    return re.sub(r'[^\w.-]+', '-', name)


def _homogeneity_table(results: Sequence[dict]) -> str:
    """Means over adjacent layers, a row a subject and role."""
    header = ('subject', 'role', 'path', 'cosine', 'L2', 'CKA', 'norm', 'accuracy')
    rows = [header]
    for result in results:
        for role, measured in result['roles'].items():
            for path in homogeneity.PATHS:
                adjacent, norms = measured[path]['adjacent'], measured[path]['norm']
                numbers = [adjacent[name] for name in homogeneity.MEASURES]
                numbers.append(sum(norms) / len(norms))
                accuracy = f'{result["accuracy"]["value"]:.1f}' if path == 'update' else ''
                rows.append((result['name'], role, path, *(f'{n:.3f}' for n in numbers), accuracy))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        '  '.join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return 'means over adjacent layers\n' + '\n'.join(lines)

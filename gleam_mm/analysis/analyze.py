"""What ``tools/analyze.py`` does, from its flags to files."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gleam_mm import errors
from gleam_mm.analysis import attention, cam, figures, homogeneity, routing
from gleam_mm.analysis.pictures import load_pictures
from gleam_mm.analysis.subjects import AnalysisError, Subject, load_subject
from gleam_mm.devices import usable
from gleam_mm.output import escape, tables
from gleam_mm.output.figures import save


def run(args: argparse.Namespace) -> None:
    """Runs a command, and prints what it found and wrote.

    Raises:
        UserError: Something does not fit.
    """
    with errors.setup():
        for option in ('max_images', 'batch_size'):
            if (value := getattr(args, option, None)) is not None and value < 1:
                raise ValueError(f'--{option.replace("_", "-")} {value}: choose at least 1')
        usable(args.device)
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
            name = f'homogeneity_{escape.file_name(result["name"])}_{role}'
            written += save(figures.similarity_maps(result, role), out / name, 'png')
    for role in dict.fromkeys(role for result in results for role in result['roles']):
        having = [result for result in results if role in result['roles']]
        name = f'homogeneity_adjacent_{role}'
        written += save(figures.adjacent_bars(having, role), out / name, 'png')
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
            stem = f'routing_{escape.file_name(result["name"])}_{name}'
            written += save(draw(result), out / stem, 'png')
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


def _write_maps(out: Path, name: str, result: dict, drawing: Figure) -> list[Path]:
    stem = f'{name}_{escape.file_name(result["name"])}'
    written = save(drawing, out / stem, 'png')
    return [_write(out / f'{stem}.json', {'analysis': name, **result}), *written]


def _write(path: Path, content: Any) -> Path:
    figures.write_json(path, content)
    return path


def _homogeneity_table(results: Sequence[dict]) -> str:
    """Means over adjacent layers, a row a subject and role."""
    head = ('subject', 'role', 'path', 'cosine', 'L2', 'CKA', 'norm', 'accuracy')
    rows = []
    for result in results:
        for role, measured in result['roles'].items():
            for path in homogeneity.PATHS:
                adjacent, norms = measured[path]['adjacent'], measured[path]['norm']
                numbers = [adjacent[name] for name in homogeneity.MEASURES]
                numbers.append(sum(norms) / len(norms))
                told = result['accuracy'] if path == 'update' else None
                accuracy = f'{told["value"]:.1f}' if told else ''
                rows.append((result['name'], role, path, *(f'{n:.3f}' for n in numbers), accuracy))
    return 'means over adjacent layers\n' + tables.text(head, rows, left=head[:3])

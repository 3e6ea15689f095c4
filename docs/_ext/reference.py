"""Directives that write what only the code knows: commands, recipes, schemas, versions."""

import argparse
import importlib
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import inspect
from sphinx.util.docutils import SphinxDirective

from gleam_mm.arguments import Checked

ROOT = Path(__file__).parents[2]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    for name, directive in (
        ('gleam-commands', Commands),
        ('gleam-recipes', Recipes),
        ('gleam-schema', Schema),
        ('gleam-versions', Versions),
        ('gleam-zoo', Zoo),
    ):
        app.add_directive(name, directive)
    app.connect('autodoc-process-signature', _of_init)
    app.connect('object-description-transform', _bounds_in_words, priority=100)
    return {'parallel_read_safe': True}


def _of_init(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """The arguments of a class that checks them in ``__new__``, which takes anything."""
    if not (what == 'class' and isinstance(obj, type) and issubclass(obj, Checked)):
        return None
    found = inspect.signature(obj.__init__, bound_method=True)
    return inspect.stringify_signature(found, show_annotation=False), returns


_BOUNDS = re.compile(
    r'[~\w.]*Annotated\[(\w+), [~\w.]*Range\(least=(\S+), below=(\S+), open=(\w+)\)\]'
)


def _bounds_in_words(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    """``int >= 1`` for the annotation that says so, before types are put into the text."""
    name = '.'.join(filter(None, map(content.parent[0].get, ('module', 'fullname'))))
    types = app.env.current_document.autodoc_annotations.get(name, {})
    for argument, told in types.items():
        types[argument] = _BOUNDS.sub(_bound, told)


def _bound(match: re.Match[str]) -> str:
    number, least, below, is_open = match.groups()
    told = f'{number} {">" if is_open == "True" else ">="} {least}'
    return told if below == 'inf' else f'{told}, < {below}'


class Written(SphinxDirective):
    """What the directives have in common: they write nodes, whose text needs no escaping."""

    def section(self, title: str) -> nodes.section:
        """A section with a place that links lead to."""
        section = nodes.section(names=[nodes.fully_normalize_name(title)])
        section += nodes.title(text=title)
        self.state.document.note_implicit_target(section, section)
        return section


class Commands(Written):
    """Every command of ``gleam-mm`` with its arguments, as its own parser has them."""

    def run(self) -> list[nodes.Node]:
        """Writes a section for each command."""
        from gleam_mm_cli.command import COMMANDS

        sections = []
        for name in COMMANDS:
            parser = _parser(name)
            section = self.section(f'gleam-mm {name}')
            section += _described(parser.description)
            section += _arguments(parser)
            for title, text, sub in _subcommands(parser):
                inner = self.section(f'gleam-mm {name} {title}')
                inner += _described(text)
                inner += _arguments(sub)
                section += inner
            sections.append(section)
        return sections


class _Caught(Exception):
    """The parser of a command, in the moment when it would read the command line."""


def _parser(command: str) -> argparse.ArgumentParser:
    def catch(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Caught(parser)

    module = importlib.import_module(f'gleam_mm_cli.{command.replace("-", "_")}')
    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_args', catch),
        mock.patch.object(sys, 'argv', [f'gleam-mm {command}']),
    ):
        try:
            module.parse_args()
        except _Caught as caught:
            return caught.args[0]
    raise RuntimeError(f'gleam-mm {command} has read no command line')


def _subcommands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or '' for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield name, texts.get(name, ''), sub


def _described(text: str | None) -> list[nodes.paragraph]:
    parts = re.split(r'\n\s*\n', (text or '').strip())
    return [nodes.paragraph(text=' '.join(part.split())) for part in parts if part]


def _arguments(parser: argparse.ArgumentParser) -> list[nodes.Node]:
    formatter = parser._get_formatter()
    listed = nodes.definition_list()
    for action in parser._actions:
        hidden = action.help is argparse.SUPPRESS or isinstance(
            action, argparse._HelpAction | argparse._SubParsersAction
        )
        if not hidden:
            told = formatter._expand_help(action) if action.help else ''
            listed += _defined(formatter._format_action_invocation(action), [told])
    return [listed] if len(listed) else []


def _defined(term: str, told: Iterable[str | nodes.Node]) -> nodes.definition_list_item:
    definition = nodes.definition()
    for part in told:
        definition += nodes.paragraph(text=part) if isinstance(part, str) else part
    return nodes.definition_list_item('', nodes.term('', '', nodes.literal(text=term)), definition)


class Recipes(Written):
    """The files that recipes are composed of: their comments and, where short, their code."""

    option_spec = {'code': directives.flag}
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Writes the list of one family: backbones, methods or datasets."""
        from gleam_mm.config import recipes

        listed = nodes.definition_list()
        for name, file in sorted(recipes.families()[self.arguments[0]].items()):
            comment, code = _parts(file.read_text('utf-8'))
            told: list[str | nodes.Node] = [comment] if comment else []
            if 'code' in self.options:
                told.append(nodes.literal_block(code, code, language='python'))
            listed += _defined(name, told)
            self.env.note_dependency(str(file))
        return [listed]


def _parts(source: str) -> tuple[str, str]:
    """The comment at the head of a config, and its code."""
    lines = source.splitlines()
    number = next((i for i, line in enumerate(lines) if not line.startswith('#')), len(lines))
    comment = ' '.join(line.removeprefix('#').strip() for line in lines[:number])
    return comment.replace('`', ''), '\n'.join(lines[number:]).strip()


class Schema(Written):
    """The metadata of adapter files, as the code that reads them checks them."""

    def run(self) -> list[nodes.Node]:
        """Writes the table."""
        from gleam_mm.checkpoint import schema

        version = f'the version of this schema, which is {schema.VERSION}'
        rows = [('schema', version), *((key, shape.what) for key, shape in schema.FIELDS.items())]
        return [_table(('key', 'what it is'), rows)]


class Versions(Written):
    """The ranges that should work, and the versions that the test suite runs on."""

    def run(self) -> list[nodes.Node]:
        """Writes the table."""
        project = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']
        pinned: dict[str, str] = {}
        for file in (ROOT / 'requirements.txt', *sorted((ROOT / 'requirements').glob('*.txt'))):
            if file.stem in ('onedl', 'docs', 'lowest'):
                continue
            self.env.note_dependency(str(file))
            pinned |= dict(re.findall(r'^([\w-]+)(?:\[\w+\])?==([\w.]+)', file.read_text(), re.M))
        pinned = {_normal(name): version for name, version in pinned.items()}
        rows = [('Python', project['requires-python'], '3.11', '')]
        wanted = [('', project['dependencies']), *project['optional-dependencies'].items()]
        for extra, requirements in wanted:
            for requirement in requirements:
                name, limits = re.fullmatch(r'([\w-]+)(?:\[\w+\])?(.*)', requirement).groups()
                if extra != 'dev':
                    rows.append((name, limits, pinned.get(_normal(name), ''), extra))
        return [_table(('', 'should work', 'tested', 'extra'), rows)]


class Zoo(Written):
    """The adapters that ship, as the index says."""

    def run(self) -> list[nodes.Node]:
        """Writes the table."""
        from gleam_mm.inference import zoo

        self.env.note_dependency(str(zoo.FOLDER / zoo.INDEX))
        rows = [
            (
                entry.name,
                f'{entry.parameters:,}',
                f'{entry.size / 1000:.0f} KB',
                str(entry.epochs),
                *(f'{entry.headline(split):.1f}' for split in ('val', 'test')),
                entry.backbone_fingerprint[:12],
            )
            for entry in zoo.entries().values()
        ]
        sizes = ('parameters', 'size', 'epochs')
        return [_table(('adapter', *sizes, 'val', 'test', 'frozen weights'), rows)]


def _normal(name: str) -> str:
    return name.lower().replace('_', '-')


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead('', _row(head))
    group += nodes.tbody('', *map(_row, rows))
    return nodes.table('', group)


def _row(cells: tuple[str, ...]) -> nodes.row:
    return nodes.row('', *(nodes.entry('', nodes.paragraph(text=cell)) for cell in cells))

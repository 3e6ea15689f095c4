"""The search for the best subnet of a trained supernet, judged on the validation split alone."""

import contextlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner.amp import autocast

from gleam_mm import checkpoint as checkpoints
from gleam_mm.config import recipes
from gleam_mm.config.keys import TEST_KEYS
from gleam_mm.config.scopes import with_scopes
from gleam_mm.engine import launch, summary
from gleam_mm.engine.checkpoint_hook import adapter_metadata
from gleam_mm.engine.classes import fill_classes
from gleam_mm.engine.dist import unwrapped
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.output.tables import clock
from gleam_mm.petl import Supernet
from gleam_mm.search.evolution import (
    Candidate,
    Evolution,
    Generation,
    Settings,
    read_scores,
    write_scores,
)
from gleam_mm.shell import command
from gleam_mm.sweep import protocol
from gleam_mm.sweep.plan import SELECT

STATE, SUBNET, ADAPTER = 'search.json', 'subnet.json', 'subnet.safetensors'

# A validation set of up to so many images stays in memory: a search goes over it a thousand times.
_MOST_IN_MEMORY = 2000


class SubnetSearch:
    """A search with everything that it needs set up.

    Args:
        cfg: The whole config of the supernet, with a ``work_dir``; left as it is. Where it has no
            validation dataloader, as for VTAB-1K, one for ``val200`` is made of the other ones.
        checkpoint: A checkpoint or adapter file of the supernet.
        settings: The settings.
        resume: Whether to go on from the search in the work directory, if there is one.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        FileNotFoundError: The checkpoint or the data are not there.
        ValueError: The config is not one of a supernet, or it has no validation split; the work
            directory holds a search that is not to be resumed, or not with these settings.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str | Path,
        settings: Settings,
        resume: bool = False,
        launcher: str = 'none',
    ) -> None:
        self.cfg = cfg
        self.settings = settings
        self.folder = Path(cfg.work_dir)
        evaluated, self._splits = _evaluated(cfg, str(checkpoint))
        with self._protected():
            self.runner = launch.build_runner(evaluated, launcher)
            self.runner.call_hook('before_run')
            self._model = unwrapped(self.runner.model)
            self.supernet = getattr(self._model, 'petl', None)
            if not isinstance(self.supernet, Supernet) or not self.supernet.is_supernet:
                raise ValueError(
                    f'{cfg.filename}: model.petl is a {type(self.supernet).__name__} without '
                    'anything to search; give the config of a supernet, such as '
                    'vit-b_glora_vtab-cifar'
                )
            self.runner.load_or_resume()
            self._loop = self.runner.val_loop
            self.runner.call_hook('before_val')
        self.subject = {
            'method': type(self.supernet).__name__,
            'weights': checkpoints.fingerprint(self._model.state_dict())[:16],
            'images': len(self._loop.dataloader.dataset),
            'precision': 'mixed' if self._loop.fp16 else 'single',
        }
        self._batches: list | None = None
        self.resumed = self._read(resume)
        self.evolution = Evolution(
            self.supernet, self.evaluate, settings, self.resumed, self._save_scores
        )

    def run(self) -> Candidate:
        """Searches, printing a line a generation, and writes what was found.

        Returns:
            The best candidate.
        """
        settings = self.settings
        summary.tell(
            f'Searching {len(self.evolution.space.genes()):,} choices on '
            f'{self.subject["images"]:,} validation images: {settings.generations} generations of '
            f'{settings.population}'
            + (f'; {len(self.resumed):,} candidates are judged already' if self.resumed else '')
        )
        with self._protected():
            for generation in self.evolution.generations():
                self._write(SUBNET, json.dumps(generation.best.subnet, indent=1))
                _print(generation_text(generation, settings))
        best = self.evolution.ranking[0]
        self._write(self._config_file.name, self._config_text(best.subnet))
        self._write_adapter(best)
        return best

    def summary(self, best: Candidate) -> str:
        """What was found, where it is, and the commands to try next."""
        folder = self.folder
        if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
            folder = Path(os.path.relpath(folder))
        config, adapter = folder / self._config_file.name, folder / ADAPTER
        whole = self.supernet.count(self.supernet.largest())
        rows = [
            ('best', f"{best.score:.2f} % on validation, with the supernet's weights"),
            ('parameters', f'{best.params:,} of {whole:,}'),
            ('subnet', f'{folder / SUBNET}'),
            ('config', f'{config}'),
            ('adapter', f"{adapter} (the supernet's weights)"),
            ('retrain', command('train', config)),
            ('or test', command('test', config, adapter)),
        ]
        return '\n'.join(f'{name:<10}  {text}' for name, text in rows)

    @torch.no_grad()
    def evaluate(self, subnet: Mapping) -> float:
        """The top-1 accuracy of a subnet on the validation split, in %."""
        self.supernet.activate(subnet)
        self.runner.model.eval()
        with autocast(enabled=self._loop.fp16):
            for batch in self._batches_of_images():
                outputs = self.runner.model.val_step(batch)
                self._loop.evaluator.process(data_samples=outputs, data_batch=batch)
        metrics = self._loop.evaluator.evaluate(self.subject['images'])
        if 'accuracy/top1' not in metrics:
            raise UserError(
                f'{self.cfg.filename}: the validation evaluator gives {", ".join(metrics)}, but a '
                "search goes by accuracy/top1: set val_evaluator=dict(type='Accuracy', topk=1)"
            )
        return metrics['accuracy/top1']

    def _batches_of_images(self) -> Any:
        if self.subject['images'] > _MOST_IN_MEMORY:
            return self._loop.dataloader
        if self._batches is None:
            self._batches = list(self._loop.dataloader)
        return self._batches

    def _protected(self) -> contextlib.AbstractContextManager:
        """Within it no dataset of another split can be opened, least of all of the test split."""
        return protocol.only(*self._splits) if self._splits else contextlib.nullcontext()

    def _read(self, resume: bool) -> dict[str, float]:
        file = self.folder / STATE
        found: list[Any] = [{}]
        if is_main_process() and file.is_file():
            try:
                if not resume:
                    raise ValueError(
                        f'{file}: there is a search here already; go on with --resume, or give '
                        'another --work-dir'
                    )
                found = [read_scores(file, self.settings, self.subject)]
            except ValueError as error:
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], ValueError):
            raise found[0]
        return found[0]

    def _save_scores(self, candidates: list[Candidate]) -> None:
        if is_main_process():
            write_scores(self.folder / STATE, candidates, self.settings, self.subject)

    def _write(self, name: str, text: str) -> None:
        if is_main_process():
            write_bytes(self.folder / name, text.rstrip().encode() + b'\n')

    @property
    def _config_file(self) -> Path:
        return self.folder / f'{recipes.name_of(self.cfg)}_subnet.py'

    def _petl(self, subnet: Mapping) -> dict:
        return {**self.cfg.model.petl.to_dict(), 'subnet': dict(subnet)}

    def _config_text(self, subnet: Mapping) -> str:
        cfg = deepcopy(self.cfg)
        for key in ('work_dir', 'launcher'):
            cfg.pop(key, None)
        cfg.load_from, cfg.resume = None, False
        cfg.model.petl = ConfigDict(self._petl(subnet))
        return f'# The subnet that a search found.\n{with_scopes(cfg).pretty_text}'

    def _write_adapter(self, best: Candidate) -> None:
        tensors = {
            name: tensor
            for name, tensor in self._model.state_dict().items()
            if name != checkpoints.FINGERPRINT and not name.startswith('petl.')
        }
        slices = self.supernet.slices(best.subnet)
        tensors |= {f'petl.{name}': tensor for name, tensor in slices.items()}
        metadata = adapter_metadata(self.runner, self._loop.dataloader.dataset)
        metadata['method'] = self._petl(best.subnet)
        metadata['metrics'] = {'val': {'accuracy/top1': best.score}}
        if is_main_process():
            checkpoints.save_adapter(self.folder / ADAPTER, tensors, metadata)


def generation_text(generation: Generation, settings: Settings) -> str:
    """A line about a generation: what it brought, and how long the rest will take."""
    scores = [candidate.score for candidate in generation.candidates]
    number, width = generation.index + 1, len(str(settings.generations))
    left = settings.generations - number
    eta = '' if generation.seconds is None else f'  ETA {clock(left * generation.seconds)}'
    return (
        f'generation {number:>{width}}/{settings.generations}  '
        f'best {generation.best.score:.2f} % with {generation.best.params:,} parameters  '
        f'this one {max(scores):.2f} %, mean {sum(scores) / len(scores):.2f} %{eta}'
    )


def _evaluated(cfg: Config, checkpoint: str) -> tuple[Config, tuple[str, ...]]:
    """The config of the evaluations, and the splits that they may open."""
    filename = cfg.filename
    cfg = deepcopy(cfg)
    splits: tuple[str, ...] = ()
    # What holds a part out for validation has that part in its own val_dataloader.
    if protocol.named_splits(cfg) and protocol.held_out(cfg) is None:
        known = protocol.prepare(cfg, SELECT, (cfg.get('randomness') or {}).get('seed') or 0)
        splits = known.training(SELECT)
    elif cfg.get('val_dataloader') is None:
        raise ValueError(f"{filename}: a search needs a 'val_dataloader' in the config")
    cfg.val_cfg = cfg.get('val_cfg') or ConfigDict()
    for key in TEST_KEYS:
        cfg[key] = None
    launch.set_dataloader_defaults(cfg)
    fill_classes(cfg)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[key] = None
    # Their lines about each of a thousand validations would hide the one about a generation.
    cfg.setdefault('default_hooks', ConfigDict()).update(logger=None, checkpoint=None)
    cfg.load_from, cfg.resume = checkpoint, False
    return cfg, splits


def _print(line: str) -> None:
    if is_main_process():
        print(line, flush=True)

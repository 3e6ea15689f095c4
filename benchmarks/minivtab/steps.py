"""How far one training step moves the features, and how much of it each adapted site moves alone.

    python benchmarks/minivtab/steps.py --tasks land letters --seeds 2

Is a step that moves projections which the whole network shares larger than one that moves as many
projections of their own? After twelve steps of warm-up, to the rate that all methods have here, one
more step is taken apart: it is applied to a single site, all others keeping what they had, for each
site in turn. Printed, relative to the features of 32 training images: the whole step's change; the
root of the sum of squares of the sites' own changes; and their coherence, the norm of their sum
over that root, which is 1 where sites move features in unrelated directions and the root of their
number where all move them in the same one. docs/gleam.md tells what came out.
"""

import argparse

WARMUP = 12
METHODS = {
    'LoRA, every Linear': (
        'lora',
        dict(rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
    ),
    'SLoRA': ('slora', {}),
    'FacT': ('fact', {}),
    'GLEAM-L, k = 2': ('gleam-l', dict(top_k=2)),
    'with a residual': ('gleam-l', dict(top_k=2, residual=1.0)),
    'normalized': ('gleam-l', dict(top_k=2, normalize=True)),
}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tasks', nargs='+', default=['land', 'letters'], help='of MiniVTAB')
    parser.add_argument('--seeds', type=int, default=2, help='trainings a task')
    parser.add_argument('--rate', type=float, default=1e-2, help='learning rate of all methods')
    return parser.parse_args()


if __name__ == '__main__':
    arguments = parse_args()  # first: importing what follows takes seconds

    from collections.abc import Iterator

    import torch
    from mmengine.runner import Runner, set_random_seed
    from torch import Tensor, nn

    from gleam_mm import cli, errors
    from gleam_mm.config import recipes
    from gleam_mm.engine import fill_num_classes
    from gleam_mm.registry import MODELS, scope_of

    def batches(model: nn.Module, loader: torch.utils.data.DataLoader) -> Iterator[dict]:
        """Batches on and on, as the model takes them."""
        while True:
            for batch in loader:
                yield model.data_preprocessor(batch, True)

    def measure(method: str, options: dict, task: str, seed: int) -> tuple[float, float, float]:
        """The whole change, the root of the sum of squares of the parts, and their coherence."""
        overrides = {
            'train_dataloader.dataset.split': 'train800',
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            **{f'model.petl.{key}': value for key, value in options.items()},
        }
        cfg = recipes.load(f'vit-mini_{method}_mini-{task}', overrides)
        with scope_of(cfg):
            set_random_seed(seed)
            fill_num_classes(cfg)
            model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
            model.init_weights()
            model.train()
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, weight_decay=1e-4)
            data = batches(model, Runner.build_dataloader(cfg.train_dataloader, seed=seed))
            for step in range(WARMUP):
                learn(model, optimizer, next(data), arguments.rate * (step + 1) / WARMUP)
            own = [p for p in model.petl.parameters() if p.requires_grad]
            old = [p.detach().clone() for p in own]
            batch = next(data)
            learn(model, optimizer, batch, arguments.rate)
            new = [p.detach().clone() for p in own]
            model.eval()
            return take_apart(model, batch['inputs'][:32], own, old, new)

    def learn(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, rate: float) -> None:
        """One step of AdamW, with gradients clipped to a norm of 1."""
        optimizer.param_groups[0]['lr'] = rate
        optimizer.zero_grad()
        model(**batch, mode='loss')['loss'].backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]['params'], 1.0)
        optimizer.step()

    @torch.no_grad()
    def take_apart(
        model: nn.Module, images: Tensor, own: list[Tensor], old: list[Tensor], new: list[Tensor]
    ) -> tuple[float, float, float]:
        """What :func:`measure` returns: features under a step that reaches some sites only."""
        sites = {id(site.module): site.key for site in model.petl.sites.values()}
        stepped: set[str] = set()

        def choose(module: nn.Module, args: tuple) -> None:
            values = new if sites[id(module)] in stepped else old
            for parameter, value in zip(own, values, strict=True):
                parameter.copy_(value)

        def features(keys: set[str]) -> Tensor:
            stepped.clear()
            stepped.update(keys)
            return model.extract_feat(images)[-1]

        handles = [
            site.module.register_forward_pre_hook(choose, prepend=True)
            for site in model.petl.sites.values()
        ]
        start = features(set())
        whole = features(set(sites.values())) - start
        parts = torch.stack([features({key}) - start for key in sites.values()])
        for handle in handles:
            handle.remove()
        root = parts.norm()
        scale = start.norm()
        return float(whole.norm() / scale), float(root / scale), float(parts.sum(0).norm() / root)

    def main() -> None:
        """Prints a table, the mean over seeds for each method and task."""
        with errors.setup():
            print(
                f'{"":22}'
                + ''.join(f'{task + ": step, root, coherence":>36}' for task in arguments.tasks)
            )
            for name, (method, options) in METHODS.items():
                cells = []
                for task in arguments.tasks:
                    runs = [measure(method, options, task, s) for s in range(arguments.seeds)]
                    means = [sum(column) / len(runs) for column in zip(*runs, strict=True)]
                    cells.append(f'{means[0]:.2f}  {means[1]:.2f}  {means[2]:.1f}')
                print(f'{name:22}' + ''.join(f'{cell:>36}' for cell in cells), flush=True)

    cli.run(main)

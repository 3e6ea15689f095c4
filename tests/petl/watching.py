"""What reaches a module, what it gives, and what leaves it behind the hooks of a method."""

from types import SimpleNamespace

import torch


def randomize(method, std=0.3):
    """Moves every parameter of a method off its start."""
    for _, parameter in method.own_parameters():
        torch.nn.init.normal_(parameter, std=std)


@torch.no_grad()
def watch(method, backbone, images):
    """Runs a backbone with an attached method.

    Returns:
        By site of the method: ``x``, which comes to the module before any ``before``; ``y``, which
        its forward gives (its own, or what a method computes in its place); and ``adapted``.
    """
    seen = {site: SimpleNamespace() for site in method.sites.values()}
    handles = []
    for site, note in seen.items():

        def reach(module, args, note=note):
            note.x = args[0].clone()

        def give(module, args, output, note=note):
            note.y = output.clone()

        def leave(module, args, output, note=note):
            note.adapted = output.clone()

        handles += [
            site.module.register_forward_pre_hook(reach, prepend=True),
            site.module.register_forward_hook(give, prepend=True),
            site.module.register_forward_hook(leave),
        ]
    backbone(images)
    for handle in handles:
        handle.remove()
    assert seen and all(hasattr(note, 'adapted') for note in seen.values())
    return seen


def close(actual, expected, tolerance=1e-5):
    """Asserts that two tensors agree, in any shape that has the same order."""
    torch.testing.assert_close(actual, expected.view_as(actual), rtol=tolerance, atol=tolerance)

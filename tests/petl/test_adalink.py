"""AdaLink against its formula: what the first block reads, and no other."""

from watching import close, randomize, watch

from gleam_mm.petl import AdaLink


def test_the_first_block_reads_the_linked_tokens(backbone, images):
    method = AdaLink(3).eval()
    method.attach(backbone)
    randomize(method)
    read = {}
    blocks = method.layout.sites(('block',))
    blocks[0].module.register_forward_pre_hook(lambda module, args: read.update(x=args[0]))
    ((site, note),) = watch(method, backbone, images).items()
    assert site.name == blocks[0].name
    pair = method.local[site.key]
    close(read['x'], note.x + note.x @ (pair.up @ pair.down).T)

"""benchmarks/minivtab/inside.py: its numbers are means of what tools/analyze.py writes."""

import inside


def site(role, weight, entropy, by_class):
    return {'role': role, 'weight': weight, 'gate_entropy': entropy, 'weight_by_class': by_class}


def test_gates_are_means_over_the_sites_of_a_role():
    nobody = [None, None]  # a class without images, as JSON has it
    sites = [
        site('qkv', [0.25, 0.75], 0.5, [[0.2, 0.8], [0.3, 0.7], nobody]),
        site('qkv', [0.5, 0.5], 0.7, [[0.2, 0.8], [0.8, 0.2], nobody]),
        site('fc1', [1.0, 0.0], 0.0, [[1.0, 0.0], [1.0, 0.0], nobody]),
    ]
    data = {'dataset': 'Cats', 'split': 'val', 'images': 200}
    subject = {'name': 'a', 'scales': [1, 2], 'top_k': 1, 'sites': sites, 'data': data}
    content = {'subjects': [subject]}
    assert 'at\nmost 0.00 nats' in inside.gates(content)  # of one chosen expert
    lines = inside.gates(content).splitlines()
    assert '200 images of Cats val' in lines[5] + lines[4]
    assert lines[-2] == '| `a` | qkv | 0.38 | 0.62 | 0.60 | 0.50 | 0.35 |'
    assert lines[-1] == '| `a` | fc1 | 1.00 | 0.00 | 0.00 | 0.00 | 0.00 |'

"""What the benchmark compares: its studies, and the claims as comparisons of two methods.

A name here is that of a method or variant in ``configs/sweeps/minivtab*.py``. Where a variant is
renamed there, this is the only other place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gleam_mm.report import paper

RATES, MAIN, OTHERS = 'minivtab-rates', 'minivtab', 'minivtab-others'
ABLATIONS, WIRINGS = 'minivtab-ablations', 'minivtab-wirings'
SECOND_RATES = 'minivtab-second-rates'
NEWER_RATES, NEWER = 'minivtab-newer-rates', 'minivtab-newer'
STUDIES = (  # as `make bench` runs them
    RATES, MAIN, WIRINGS, ABLATIONS, SECOND_RATES, OTHERS, NEWER_RATES, NEWER,
)  # fmt: skip
METHODS = (MAIN, OTHERS, NEWER)  # whose methods make up the table of all methods, and the front
CHOOSING = (RATES, NEWER_RATES)  # which chose the learning rates of these methods
TUNED = (  # the second edition, whose tables stand apart
    'minivtab-tuned', 'minivtab-tuned-rivals', 'minivtab-tuned-others'
)  # fmt: skip
VARIED = (WIRINGS, ABLATIONS, SECOND_RATES)  # whose variants must each have a comparison
BACKBONE = 'vit-mini'

BASELINE = 'gleam-l'
GLEAM = ('gleam-t', 'gleam-b', 'gleam-l')
OPPONENTS = ('lora', 'fact', 'repadapter', 'ssf')

_HF_PEFT = {
    'dora': 'DoRA',
    'vera': 'VeRA',
    'ia3': 'IA3',
    'oft': 'OFT',
    'loha': 'LoHa',
    'lokr': 'LoKr',
    'randlora': 'RandLoRA',
    'vblora': 'VB-LoRA',
}

_NEWER = {
    'adapter-plus': 'Adapter+',
    'hydra': 'Hydra',
    'dtl-plus': 'DTL+',
    'bi-adaptformer': 'Bi-AdaptFormer, 1 bit',
    'neuroada': 'NeuroAda',
    'arc': 'ARC',
    'rlrr': 'RLRR',
    'mlae': 'MLAE',
    'e2vpt': 'E2VPT',
}
_NAMES = {**paper.METHODS, **_HF_PEFT, **_NEWER}


@dataclass(frozen=True)
class Comparison:
    """The claim that one method is better than another.

    Attributes:
        first: The one that is said to be better.
        second: The other one.
        about: What tells them apart, or the claim in words, for tables and figures; may be left
            out.
        paper: What the paper's text says of it; may be left out.
    """

    first: str
    second: str
    about: str = ''
    paper: str = ''


@dataclass(frozen=True)
class Claim:
    """A family of comparisons, corrected together.

    Attributes:
        title: Head of its section.
        says: What is claimed, and what to know of the comparisons.
        comparisons: The comparisons.
    """

    title: str
    says: str
    comparisons: tuple[Comparison, ...]


LADDER = Claim(
    'Claim 1: the ladder',
    'The paper: a LoRA that all layers share (SLoRA) loses against LoRA; a local transform for\n'
    'each weight matrix wins part of it back; the mixture of experts wins more. Rungs have rank\n'
    '16 on every Linear where they do not have rank 8 on qkv, as the recipe of LoRA has.\n'
    '`gleam-l-n0` and `fact` are the same rung, B L A x with B and A shared, from two recipes.',
    (
        Comparison('lora-all', 'slora', 'nothing shared, rank 16 on every Linear'),
        Comparison('lora', 'slora-qkv', 'nothing shared, rank 8 on qkv'),
        Comparison('lora', 'slora', 'nothing shared, the recipes'),
        Comparison('gleam-l-n0', 'slora', 'local transforms'),
        Comparison('fact', 'slora', 'local transforms'),
        Comparison('gleam-l-no-local', 'slora', 'mixture without local transforms'),
        Comparison('gleam-l', 'gleam-l-n0', 'mixture beside local transforms'),
        Comparison('gleam-l', 'fact', 'mixture beside local transforms'),
        Comparison('gleam-l', 'gleam-l-no-local', 'local transforms beside the mixture'),
    ),
)

ABLATION = Claim(
    'Claim 3: number of experts, top-k, alpha and sites',
    "The paper's Table 2 and Figure 5: n = 4 experts are best, alpha = 1 is best, adapting every\n"
    'Linear is better than attention alone, and k = 1 is better than k = 2 in most cases; of\n'
    'k = 2 against k = 3 it claims nothing. The baseline is GLEAM-L as its recipe has it (n = 4,\n'
    'k = 2, alpha = 1, every Linear), where the paper varies n and alpha at k = 1. With n = k = 2\n'
    'every expert is chosen.',
    (
        Comparison(BASELINE, 'gleam-l-n0', 'n = 0: no mixture of experts', '+1.2 on 5 tasks'),
        Comparison(BASELINE, 'gleam-l-n2', 'n = 2'),
        Comparison(BASELINE, 'gleam-l-n3', 'n = 3'),
        Comparison(BASELINE, 'gleam-l-n5', 'n = 5'),
        Comparison('gleam-l-k1', BASELINE, 'k = 1'),
        Comparison(BASELINE, 'gleam-l-k3', 'k = 3'),
        Comparison(BASELINE, 'gleam-l-alpha0.01', 'alpha = 0.01'),
        Comparison(BASELINE, 'gleam-l-alpha0.1', 'alpha = 0.1'),
        Comparison(BASELINE, 'gleam-l-alpha10', 'alpha = 10'),
        Comparison(BASELINE, 'gleam-l-alpha100', 'alpha = 100'),
        Comparison(
            BASELINE, 'gleam-l-attention', 'attention only', '+0.8, +0.4, +1.3 on the three groups'
        ),
    ),
)

WIRING = Claim(
    'Wiring that the paper leaves open',
    'No claim of the paper\'s. A is the default of `GLEAM` and B the alternative: "holds" means\n'
    'that the default is better.',
    (
        Comparison(BASELINE, 'gleam-l-token-gate', 'the gate decides for a token'),
        Comparison(BASELINE, 'gleam-l-wide', 'the mixture on the wide side'),
        Comparison(BASELINE, 'gleam-l-identity', 'experts start as the identity'),
        Comparison(BASELINE, 'gleam-l-same-scales', 'scales 1, 1, 1, 1'),
        Comparison(BASELINE, 'gleam-l-powers', 'scales 1, 2, 4, 8'),
    ),
)

SECOND_RATE = Claim(
    'What hangs on learning rates',
    "No claim of the paper's. A has the rate that `minivtab-rates` chose and B the one that came\n"
    'second: "holds" means that the choice was right. The test split shows it, so nothing above\n'
    'was chosen by it.',
    tuple(
        Comparison(method, f'{method}-lr{second}', f'{chosen} against {second}')
        for method, chosen, second in (
            ('gleam-l', '0.01', '0.003'),
            ('gleam-b', '0.003', '0.01'),
            ('gleam-t', '0.01', '0.003'),
            ('lora', '0.003', '0.01'),
            ('lora-all', '0.003', '0.01'),
            ('slora', '0.01', '0.003'),
            ('fact', '0.01', '0.003'),
            ('repadapter', '0.01', '0.003'),
            ('ssf', '0.03', '0.01'),
        )
    ),
)

FRONT_TITLE = 'Claim 2: accuracy at equal or fewer parameters'


def fronts(parameters: Mapping[str, int]) -> tuple[Claim, tuple[Comparison, ...]]:
    """Claim 2, with the opponents that the numbers of parameters decide.

    Args:
        parameters: Method -> trained numbers.

    Returns:
        The claim, and the comparisons that say nothing for it, since GLEAM has more parameters.
    """
    tested, larger = [], []
    for first in (name for name in GLEAM if name in parameters):
        for opponent in OPPONENTS:
            kin = [
                name for name in parameters if name == opponent or name.startswith(f'{opponent}-')
            ]
            kin.sort(key=lambda name: (parameters[name], name))
            above = [name for name in kin if parameters[name] >= parameters[first]]
            chosen = above[:1]
            if opponent in above[1:]:
                chosen.append(opponent)
            tested += [Comparison(first, second) for second in chosen]
            below = [name for name in kin if parameters[name] < parameters[first]]
            larger += [Comparison(first, second) for second in below[-1:]]
    says = (
        'The paper: GLEAM is better than LoRA, FacT, RepAdapter and SSF at equal or fewer\n'
        'parameters. The opponents of a GLEAM are, of each of these methods, the smallest variant\n'
        'with at least as many parameters as it, and the method as its recipe has it, if that has\n'
        'at least as many.'
    )
    return Claim(FRONT_TITLE, says, tuple(tested)), tuple(larger)


def is_variant(method: str, of: str) -> bool:
    """Whether a name is that of a variant of a method, and no method's own (as FacT-TK's is)."""
    return method.startswith(f'{of}-') and method not in _NAMES


def label(method: str) -> str:
    """How tables and figures call a method or variant."""
    if method in _NAMES:
        return _NAMES[method]
    for known in sorted(_NAMES, key=len, reverse=True):
        if method.startswith(f'{known}-'):
            return f'{_NAMES[known]} {method.removeprefix(known)[1:]}'
    return method

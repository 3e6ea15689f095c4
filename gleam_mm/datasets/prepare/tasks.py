"""What VTAB-1K takes from the original datasets: which records, and how labels come about.

The facts are those of the benchmark's code, https://github.com/google-research/task_adaptation
(Zhai et al., 2019), and where to get the originals.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gleam_mm.datasets.prepare.tfrecord import Slice, TFDSCopy

__all__ = ['FGVC_ORIGINS', 'TFDS_TASKS', 'WHERE', 'TFDSTask', 'tfds_slices']

# Upper limits of the classes' distances. A distance is of the last class whose lower limit it is
# beyond.
CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)  # of the closest object, in CLEVR's units
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)  # of the closest vehicle in metres; last: none
KITTI_VEHICLES = ('Car', 'Van', 'Truck')
CLEVR_FEWEST = 3


class TFDSTask(NamedTuple):
    """Where VTAB-1K takes a task from in TensorFlow Datasets.

    Attributes:
        dataset: Name of the dataset, with its config.
        version: Major version that VTAB uses.
        val: Split that val200 begins in, and at what percentage of it.
        test: Split that the test split begins in, and at what percentage of it, to its end.
        label: Feature or rule that gives the label.
    """

    dataset: str
    version: int
    val: tuple[str, int]
    test: tuple[str, int]
    label: str = 'label'


_WHOLE_TEST = ('test', 0)
_VALIDATION = ('validation', 0)

TFDS_TASKS = {
    'cifar': TFDSTask('cifar100', 3, ('train', 90), _WHOLE_TEST),
    'caltech101': TFDSTask('caltech101', 3, ('train', 90), _WHOLE_TEST),
    'dtd': TFDSTask('dtd', 3, _VALIDATION, _WHOLE_TEST),
    'oxford_flowers102': TFDSTask('oxford_flowers102', 2, _VALIDATION, _WHOLE_TEST),
    'oxford_iiit_pet': TFDSTask('oxford_iiit_pet', 3, ('train', 80), _WHOLE_TEST),
    'svhn': TFDSTask('svhn_cropped', 3, ('train', 90), _WHOLE_TEST),
    'sun397': TFDSTask('sun397/tfds', 4, _VALIDATION, _WHOLE_TEST),
    'patch_camelyon': TFDSTask('patch_camelyon', 2, _VALIDATION, _WHOLE_TEST),
    'eurosat': TFDSTask('eurosat/rgb', 2, ('train', 60), ('train', 80)),
    'resisc45': TFDSTask('resisc45', 3, ('train', 60), ('train', 80)),
    'diabetic_retinopathy': TFDSTask(
        'diabetic_retinopathy_detection/btgraham-300', 3, _VALIDATION, _WHOLE_TEST
    ),
    'clevr_count': TFDSTask('clevr', 3, ('train', 90), _VALIDATION, 'clevr_count'),
    'clevr_dist': TFDSTask('clevr', 3, ('train', 90), _VALIDATION, 'clevr_dist'),
    'dmlab': TFDSTask('dmlab', 2, _VALIDATION, _WHOLE_TEST),
    'kitti': TFDSTask('kitti', 3, _VALIDATION, _WHOLE_TEST, 'kitti'),
    'dsprites_loc': TFDSTask('dsprites', 2, ('train', 80), ('train', 90), 'label_x_position/32'),
    'dsprites_ori': TFDSTask('dsprites', 2, ('train', 80), ('train', 90), 'label_orientation/40'),
    'smallnorb_azi': TFDSTask('smallnorb', 2, _WHOLE_TEST, ('test', 50), 'label_azimuth'),
    'smallnorb_ele': TFDSTask('smallnorb', 2, _WHOLE_TEST, ('test', 50), 'label_elevation'),
}

# Where a dataset comes from, for those who do not have it.
WHERE = {
    'cifar': 'torchvision.datasets.CIFAR100(download=True), or TFDS cifar100',
    'caltech101': 'https://data.caltech.edu/records/mzrjq-6wc02 (101_ObjectCategories with its '
    'BACKGROUND_Google folder, which makes 102 classes), or TFDS caltech101',
    'dtd': 'torchvision.datasets.DTD(download=True), or TFDS dtd',
    'oxford_flowers102': 'torchvision.datasets.Flowers102(download=True), or TFDS',
    'oxford_iiit_pet': 'torchvision.datasets.OxfordIIITPet(download=True), or TFDS',
    'svhn': 'torchvision.datasets.SVHN(download=True), or TFDS svhn_cropped',
    'sun397': 'torchvision.datasets.SUN397(download=True), or TFDS sun397/tfds (37 GB)',
    'patch_camelyon': 'torchvision.datasets.PCAM(download=True), or TFDS patch_camelyon',
    'eurosat': 'torchvision.datasets.EuroSAT(download=True), or TFDS eurosat/rgb',
    'resisc45': 'by hand: NWPU-RESISC45.rar, linked from the TFDS page of resisc45 (OneDrive); '
    'unpack to <class>/<image>.jpg, or give the file to TFDS',
    'diabetic_retinopathy': 'by hand: https://www.kaggle.com/c/diabetic-retinopathy-detection/data '
    '(needs an account), and TFDS diabetic_retinopathy_detection/btgraham-300, which also makes '
    'the 300-pixel images that VTAB uses',
    'clevr_count': 'https://cs.stanford.edu/people/jcjohns/clevr/ (CLEVR_v1.0.zip, 18 GB), or '
    'torchvision.datasets.CLEVRClassification(download=True), or TFDS clevr',
    'dmlab': 'TFDS dmlab only: the frames were made for VTAB',
    'kitti': 'https://www.cvlibs.net/datasets/kitti/eval_object.php (left colour images and '
    'labels), or torchvision.datasets.Kitti(download=True), or TFDS kitti',
    'dsprites_loc': 'https://github.com/google-deepmind/dsprites-dataset (one .npz file), or TFDS '
    'dsprites',
    'smallnorb_azi': 'https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/ through TFDS smallnorb',
}
WHERE['clevr_dist'] = WHERE['clevr_count']
WHERE['dsprites_ori'] = WHERE['dsprites_loc']
WHERE['smallnorb_ele'] = WHERE['smallnorb_azi']

FGVC_LISTS = (
    'https://github.com/ZhangYuanhan-AI/NOAH, folder data/few-shot (the lists of all five sets)'
)
FGVC_ORIGINS = {
    'fgvc_aircraft': 'torchvision.datasets.FGVCAircraft(download=True)',
    'food-101': 'torchvision.datasets.Food101(download=True)',
    'oxford_flowers': 'torchvision.datasets.Flowers102(download=True)',
    'oxford_pets': 'torchvision.datasets.OxfordIIITPet(download=True)',
    'stanford_cars': 'by hand: the original site is gone, copies are on Kaggle; unpack to '
    'cars_train/ and cars_test/',
}


def tfds_slices(task: str, copy: TFDSCopy) -> dict[str, list[Slice]]:
    """The records of each VTAB-1K split in a TFDS copy.

    Returns:
        Split -> slices, which are to be read as one dataset.
    """
    spec = TFDS_TASKS[task]
    train = Slice('train', 0, min(800, copy.size('train')))
    val = _from(copy, *spec.val)
    val = val._replace(stop=min(val.start + 200, val.stop))
    return {
        'train800': [train],
        'val200': [val],
        'train800val200': [train, val],
        'test': [_from(copy, *spec.test)],
    }


def _from(copy: TFDSCopy, split: str, percent: int) -> Slice:
    size = copy.size(split)
    return Slice(split, percent * size // 100, size)


def record_label(rule: str, record: Mapping) -> int:
    """The label of a TFDS record.

    Args:
        rule: ``label`` of a :class:`TFDSTask`: a feature; a feature ``/`` the number of its values,
            to be binned to 16 classes; or a rule's name.
        record: The features of the record.
    """
    if rule == 'clevr_count':
        return clevr_count(len(record['objects/size']))
    if rule == 'clevr_dist':
        return clevr_distance(record['objects/pixel_coords'].reshape(-1, 3)[:, 2])
    if rule == 'kitti':
        depth = record['objects/location'].reshape(-1, 3)[:, 2]
        return kitti_distance(depth[record['objects/type'] < len(KITTI_VEHICLES)])
    feature, _, values = rule.partition('/')
    value = int(record[feature][0])
    return sixteenth(value, int(values)) if values else value


def clevr_count(objects: int) -> int:
    """Number of objects, 3 to 10, as a class of 8."""
    return objects - CLEVR_FEWEST


def clevr_distance(depths: Sequence[float]) -> int:
    """Distance of the closest object as a class of 6."""
    return _last_beyond(CLEVR_DISTANCES, min(depths))


def kitti_distance(depths: Sequence[float]) -> int:
    """Distance of the closest vehicle as a class of 4; 3 where there is none."""
    return _last_beyond(KITTI_DISTANCES, min([*depths, 1000.0]))


def sixteenth(value: int, values: int) -> int:
    """A value out of so many as a class of 16, neighbours together."""
    return int(value // (values / 16))


def _last_beyond(limits: Sequence[float], value: float) -> int:
    return int(np.flatnonzero(np.asarray(limits) < value).max())

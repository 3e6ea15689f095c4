"""What VTAB-1K takes from the original datasets: which records, and how labels come about.

The facts are those of the benchmark's code, https://github.com/google-research/task_adaptation
(Zhai et al., 2019), and where to get the originals.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gleam_mm.prepare.tfrecord import Slice, TFDSCopy

__all__ = ['FGVC_ORIGINS', 'VTAB_ORIGINS', 'Origin', 'tfds_slices']

# Upper limits of the classes' distances. A distance is of the last class whose lower limit it is
# beyond.
CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)  # of the closest object, in CLEVR's units
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)  # of the closest vehicle in metres; last: none
KITTI_VEHICLES = ('Car', 'Van', 'Truck')
CLEVR_FEWEST = 3


class Origin(NamedTuple):
    """Where the images of a task of VTAB-1K come from.

    Attributes:
        dataset: Name of the dataset in TensorFlow Datasets, with its config.
        version: Major version that VTAB uses.
        val: Split that val200 begins in, and at what percentage of it.
        test: Split that the test split begins in, and at what percentage of it, to its end.
        elsewhere: Where the original can be had in another form that is read; None for nowhere.
        label: Feature or rule that gives the label.
    """

    dataset: str
    version: int
    val: tuple[str, int]
    test: tuple[str, int]
    elsewhere: str | None = None
    label: str = 'label'

    @property
    def where(self) -> str:
        """Where the images come from, for those who do not have them."""
        if self.elsewhere is None:
            return f'TFDS {self.dataset} only'
        return f'{self.elsewhere}, or TFDS {self.dataset}'


def _torchvision(name: str) -> str:
    return f'torchvision.datasets.{name}(download=True)'


_TEST, _VALIDATION, _HALF = ('test', 0), ('validation', 0), ('test', 50)
_TRAIN_60, _TRAIN_80, _TRAIN_90 = ('train', 60), ('train', 80), ('train', 90)
_CALTECH = (
    'https://data.caltech.edu/records/mzrjq-6wc02 (101_ObjectCategories with its '
    'BACKGROUND_Google folder, which makes 102 classes)'
)
_CLEVR = (
    'https://cs.stanford.edu/people/jcjohns/clevr/ (CLEVR_v1.0.zip, 18 GB), or '
    + _torchvision('CLEVRClassification')
)
_DSPRITES = 'https://github.com/google-deepmind/dsprites-dataset (one .npz file)'
_KITTI = (
    'https://www.cvlibs.net/datasets/kitti/eval_object.php (left colour images and labels), or '
    + _torchvision('Kitti')
)
_RESISC = (
    'by hand: NWPU-RESISC45.rar, linked from the TFDS page of resisc45 (OneDrive), unpacked to '
    '<class>/<image>.jpg'
)
_RETINOPATHY = (
    'by hand: https://www.kaggle.com/c/diabetic-retinopathy-detection/data (needs an account; VTAB '
    'uses the 300-pixel images that TFDS makes of them)'
)

#: Folder of a task of VTAB-1K -> its origin.
VTAB_ORIGINS = {
    'cifar': Origin('cifar100', 3, _TRAIN_90, _TEST, _torchvision('CIFAR100')),
    'caltech101': Origin('caltech101', 3, _TRAIN_90, _TEST, _CALTECH),
    'dtd': Origin('dtd', 3, _VALIDATION, _TEST, _torchvision('DTD')),
    'oxford_flowers102': Origin(
        'oxford_flowers102', 2, _VALIDATION, _TEST, _torchvision('Flowers102')
    ),
    'oxford_iiit_pet': Origin(
        'oxford_iiit_pet', 3, _TRAIN_80, _TEST, _torchvision('OxfordIIITPet')
    ),
    'svhn': Origin('svhn_cropped', 3, _TRAIN_90, _TEST, _torchvision('SVHN')),
    'sun397': Origin('sun397/tfds', 4, _VALIDATION, _TEST, f'{_torchvision("SUN397")} (37 GB)'),
    'patch_camelyon': Origin('patch_camelyon', 2, _VALIDATION, _TEST, _torchvision('PCAM')),
    'eurosat': Origin('eurosat/rgb', 2, _TRAIN_60, _TRAIN_80, _torchvision('EuroSAT')),
    'resisc45': Origin('resisc45', 3, _TRAIN_60, _TRAIN_80, _RESISC),
    'diabetic_retinopathy': Origin(
        'diabetic_retinopathy_detection/btgraham-300', 3, _VALIDATION, _TEST, _RETINOPATHY
    ),
    'clevr_count': Origin('clevr', 3, _TRAIN_90, _VALIDATION, _CLEVR, 'clevr_count'),
    'clevr_dist': Origin('clevr', 3, _TRAIN_90, _VALIDATION, _CLEVR, 'clevr_dist'),
    'dmlab': Origin('dmlab', 2, _VALIDATION, _TEST),
    'kitti': Origin('kitti', 3, _VALIDATION, _TEST, _KITTI, 'kitti'),
    'dsprites_loc': Origin('dsprites', 2, _TRAIN_80, _TRAIN_90, _DSPRITES, 'label_x_position/32'),
    'dsprites_ori': Origin('dsprites', 2, _TRAIN_80, _TRAIN_90, _DSPRITES, 'label_orientation/40'),
    'smallnorb_azi': Origin('smallnorb', 2, _TEST, _HALF, label='label_azimuth'),
    'smallnorb_ele': Origin('smallnorb', 2, _TEST, _HALF, label='label_elevation'),
}

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
    spec = VTAB_ORIGINS[task]
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
        rule: ``label`` of an :class:`Origin`: a feature; a feature ``/`` the number of its values,
            which are binned to 16 classes; or a rule's name.
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

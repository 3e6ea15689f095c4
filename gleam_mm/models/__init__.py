"""Models: the classifier that holds backbone, method and head together, and how it is loaded."""

from gleam_mm.models.building import build_model, load_model
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.models.cosine_head import CosineClsHead
from gleam_mm.models.cuda_graphs import CudaGraphs, use_cuda_graphs
from gleam_mm.models.necks import TokenPool
from gleam_mm.models.petl_backbone import PETLBackbone
from gleam_mm.models.regression_head import RegressionHead
from gleam_mm.models.sharded import ShardedDataParallel
from gleam_mm.models.teacher import Teacher
from gleam_mm.models.zero import ZeroDataParallel

__all__ = [
    'CosineClsHead',
    'CudaGraphs',
    'PETLBackbone',
    'PETLClassifier',
    'RegressionHead',
    'ShardedDataParallel',
    'Teacher',
    'TokenPool',
    'ZeroDataParallel',
    'build_model',
    'load_model',
    'use_cuda_graphs',
]

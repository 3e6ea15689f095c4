"""PETL methods."""

from gleam_mm.petl.abba import ABBA
from gleam_mm.petl.adalink import AdaLink
from gleam_mm.petl.adapter import Adapter
from gleam_mm.petl.adapter_bias import AdapterBias
from gleam_mm.petl.adapter_fusion import AdapterFusion
from gleam_mm.petl.adapter_plus import AdapterPlus
from gleam_mm.petl.adaptformer import AdaptFormer
from gleam_mm.petl.arc import ARC
from gleam_mm.petl.arrow import Arrow
from gleam_mm.petl.attachments import MergeError
from gleam_mm.petl.base import (
    LossOfBatch,
    PETLMethod,
    TrainedAdapter,
    overrides,
)
from gleam_mm.petl.bitfit import BitFit
from gleam_mm.petl.coda import CoDA
from gleam_mm.petl.compose import Compose
from gleam_mm.petl.consolidator import Consolidator
from gleam_mm.petl.constants import constants_folded
from gleam_mm.petl.convpass import Convpass
from gleam_mm.petl.dtl import DTL
from gleam_mm.petl.dylora import DyLoRA
from gleam_mm.petl.dyt import DyT
from gleam_mm.petl.e2vpt import E2VPT
from gleam_mm.petl.eigen_lora import EigenLoRA
from gleam_mm.petl.ether_plus import ETHERPlus
from gleam_mm.petl.fact import FacT
from gleam_mm.petl.full_tuning import FullTuning
from gleam_mm.petl.gleam import GLEAM
from gleam_mm.petl.glora import GLoRA
from gleam_mm.petl.hf_peft import HFPeft
from gleam_mm.petl.hydra import Hydra
from gleam_mm.petl.ila import ILA
from gleam_mm.petl.kadaptation import KAdaptation
from gleam_mm.petl.kronecker import Kronecker
from gleam_mm.petl.ladder import LadderMethod
from gleam_mm.petl.linear_probe import LinearProbe
from gleam_mm.petl.lora import LoRA
from gleam_mm.petl.loreft import LoReFT
from gleam_mm.petl.loretta import LoRETTA
from gleam_mm.petl.lt_sft import LTSFT
from gleam_mm.petl.mlae import MLAE
from gleam_mm.petl.moe import ConvMoE
from gleam_mm.petl.mola import MoLA
from gleam_mm.petl.mosa import MoSA
from gleam_mm.petl.msplora import MSPLoRA
from gleam_mm.petl.noah import NOAH
from gleam_mm.petl.prefix import PrefixTuning
from gleam_mm.petl.r_adapter import RAdapter
from gleam_mm.petl.read import READ
from gleam_mm.petl.repadapter import RepAdapter
from gleam_mm.petl.rlrr import RLRR
from gleam_mm.petl.sct import SCT
from gleam_mm.petl.slora import SLoRA
from gleam_mm.petl.sparse_tuning import SparseTuning
from gleam_mm.petl.spt import SPT
from gleam_mm.petl.ssf import SSF
from gleam_mm.petl.supernet import Supernet
from gleam_mm.petl.surm import SURM
from gleam_mm.petl.vpt import VPT

__all__ = [
    'ABBA',
    'ARC',
    'DTL',
    'E2VPT',
    'GLEAM',
    'ILA',
    'LTSFT',
    'MLAE',
    'NOAH',
    'READ',
    'RLRR',
    'SCT',
    'SPT',
    'SSF',
    'SURM',
    'VPT',
    'AdaLink',
    'AdaptFormer',
    'Adapter',
    'AdapterBias',
    'AdapterFusion',
    'AdapterPlus',
    'Arrow',
    'BitFit',
    'CoDA',
    'Compose',
    'Consolidator',
    'ConvMoE',
    'Convpass',
    'DyLoRA',
    'DyT',
    'ETHERPlus',
    'EigenLoRA',
    'FacT',
    'FullTuning',
    'GLoRA',
    'HFPeft',
    'Hydra',
    'KAdaptation',
    'Kronecker',
    'LadderMethod',
    'LinearProbe',
    'LoRA',
    'LoRETTA',
    'LoReFT',
    'LossOfBatch',
    'MSPLoRA',
    'MergeError',
    'MoLA',
    'MoSA',
    'PETLMethod',
    'PrefixTuning',
    'RAdapter',
    'RepAdapter',
    'SLoRA',
    'SparseTuning',
    'Supernet',
    'TrainedAdapter',
    'constants_folded',
    'overrides',
]

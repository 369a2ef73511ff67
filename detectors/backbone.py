"""A small residual backbone with a feature pyramid, made to be trained from random weights on CPUs."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import BasicBlock

STEM_CHANNELS = 24
STAGE_CHANNELS = (32, 64, 96, 128)
PYRAMID_CHANNELS = 48


def small_backbone() -> nn.Module:
    """Feature maps of 48 channels at strides 4, 8, 16, 32 and 64, keys "0" to "3" and "pool".

    A stem of stride 2 and four residual stages of one block each (strides 4, 8, 16 and 32), then a feature
    pyramid. Stride 4 holds three quarters of all positions, so most of the cost; objects below about 16 px
    are lost without it.

    Returns:
        Module from images (n, 3, h, w) float32 to an ordered dict of maps (n, 48, h / stride, w / stride).
        Batch normalisation is trainable. About 0.8 M parameters.
    """
    body: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(STEM_CHANNELS))
    in_channels = STEM_CHANNELS
    for number, channels in enumerate(STAGE_CHANNELS, start=1):
        body[f"stage{number}"] = _residual_stage(in_channels, channels)
        in_channels = channels
    _initialize(nn.ModuleList(body.values()))
    pyramid: nn.Module = BackboneWithFPN(
        nn.Sequential(body),
        return_layers={"stage1": "0", "stage2": "1", "stage3": "2", "stage4": "3"},
        in_channels_list=list(STAGE_CHANNELS),
        out_channels=PYRAMID_CHANNELS,
        norm_layer=nn.BatchNorm2d,
    )
    return pyramid


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _residual_stage(in_channels: int, channels: int) -> nn.Sequential:
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(channels)
    )
    return nn.Sequential(BasicBlock(in_channels, channels, stride=2, downsample=shortcut))


def _initialize(modules: nn.Module) -> None:
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

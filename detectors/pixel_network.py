"""The network of Aghdam et al. (2019): for every pixel, the probability of an object of a fixed size.

Source: "Active Learning for Deep Detection Neural Networks", ICCV 2019, section 3 "Network architecture" and
Figure 2. The paper leaves widths, depths and the place of dropout open; each part says what is
chosen here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.modules.dropout import _DropoutNd

from detectors.pixel_network_boxes import PAPER_SIZES_HW
from detectors.pixel_network_loss import sampled_logistic_loss

HEAD_FILTERS = 128
WIDTHS = (16, 48, 96, 128, 160)
DROPOUT = 0.1
# The head starts at the share of positive samples, 1 in 1 + 15, and need not learn that first.
PRIOR_LOGIT = -2.7


class PixelNetwork(nn.Module):
    """Five prediction blocks that share one logits layer, each for boxes of one size a class.

    Args:
        n_classes: K; every block has K sigmoids. The paper has one class.
        transform: torchvision's input transform (`GeneralizedRCNNTransform`) padding to multiples of 32.
        widths: Channels of the encoder at strides 2, 4, 8, 16 and 32, rising even numbers.
        head_filters: Filters of the 1x1 convolution before each logits layer; 128 in the paper.
        dropout: Probability that a filter is dropped before the logits layer. The paper names ratios of 0.5
            and 0.1 for its Monte Carlo variant but not the place: here whole filters go, which is to drop
            weights of the logits layer, the same ones for all pixels of an image and block.

    Attributes:
        backbone: Encoder and decoder; maps at strides 2 to 32 under the keys "0" to "4".
        head: Logits (b, K, h, w) of every map.
        n_classes: K.
        box_sizes_hw: (5, K, 2) float32 buffer: height and width (px of the input) of what each block, finest
            first, detects of each class. Stored with the weights.
        noisy_weight: Weight of the loss of boxes that nobody has checked.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        transform: nn.Module,
        widths: Sequence[int] = WIDTHS,
        head_filters: int = HEAD_FILTERS,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.noisy_weight = 1.0
        self.transform = transform
        self.backbone = PixelPyramid(widths)
        self.head = SharedHead(widths, n_classes, head_filters=head_filters, dropout=dropout)
        self.box_sizes_hw: Tensor
        sizes_hw = torch.tensor(PAPER_SIZES_HW)[:, None].repeat(1, n_classes, 1)
        self.register_buffer("box_sizes_hw", sizes_hw)
        _initialize(self)
        nn.init.normal_(self.head.logits.weight, std=0.01)
        nn.init.constant_(self.head.get_parameter("logits.bias"), PRIOR_LOGIT)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Training loss, as torchvision's detectors give theirs; `TorchvisionDetector` is for prediction.

        Args:
            images: (3, h, w) float32 in [0, 1], RGB.
            targets: `boxes` (m, 4) xyxy in px, and `labels` (m,) int64 in 1..K, of each image; also `noisy`
                (m,) bool where some boxes have not been checked.

        Returns:
            `classification`: the mean logistic loss of the sampled pixels, and of those of noisy boxes times
            `noisy_weight`.
        """
        batch, targets = self.transform(images, targets)
        coarse = self.head(list(self.backbone(batch.tensors).values()))
        size_hw = (batch.tensors.shape[-2], batch.tensors.shape[-1])
        logits = torch.stack([at_image_size(level.float(), size_hw) for level in coarse], dim=1)
        loss = sampled_logistic_loss(logits, targets, self.box_sizes_hw, batch.image_sizes, self.noisy_weight)
        return {"classification": loss}


class PixelPyramid(nn.Module):
    """Encoder and decoder with lateral connections (Lin et al., CVPR 2017), of Fire Residual modules.

    The encoder halves the map five times, then comes one Fire Residual module at stride 2, where most cells
    are, and two at the others: the deepest cell sees more than the paper's largest box. Each step of the
    decoder adds the upsampled coarser map to the encoder's, and ends in one Fire Residual module. Logits
    between cells are interpolated, so strides must be small beside boxes: with twice these strides a block
    could not tell where its box is.

    Args:
        widths: Channels at strides 2, 4, 8, 16 and 32.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(Downsampling(before, width), *(FireResidual(width) for _ in range(2 if i else 1)))
            for i, (before, width) in enumerate(zip((3, *widths), widths, strict=False))
        )
        self.lateral = nn.ModuleList(_convolution(width, width, 1) for width in widths[:-1])
        self.narrowing = nn.ModuleList(
            _convolution(coarser, width, 1) for width, coarser in zip(widths, widths[1:], strict=False)
        )
        self.smoothing = nn.ModuleList(FireResidual(width) for width in widths[:-1])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Maps (b, c, h / stride, w / stride) by key, finest first, of images (b, 3, h, w) of sides 32 n."""
        encoded = []
        maps = images
        for stage in self.encoder:
            maps = stage(maps)
            encoded.append(maps)
        decoded = [encoded[-1]]
        for i in reversed(range(len(encoded) - 1)):
            coarser = at_image_size(self.narrowing[i](decoded[-1]), encoded[i].shape[-2:])
            decoded.append(self.smoothing[i](self.lateral[i](encoded[i]) + coarser))
        return OrderedDict((str(i), level) for i, level in enumerate(reversed(decoded)))


class SharedHead(nn.Module):
    """A 1x1 convolution of each block to a common depth, and one logits layer for all of them.

    Args:
        widths: Channels of the maps, finest first.
        n_classes: K.
        head_filters: The common depth.
        dropout: Probability that one of these filters is dropped.
    """

    def __init__(self, widths: Sequence[int], n_classes: int, *, head_filters: int, dropout: float) -> None:
        super().__init__()
        self.unify = nn.ModuleList(_convolution(width, head_filters, 1) for width in widths)
        self.dropout = nn.Dropout2d(dropout)
        self.logits = nn.Conv2d(head_filters, n_classes, kernel_size=1)

    def features(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What the logits layer sees: (b, head_filters, h, w) of each map."""
        return [self.dropout(unify(level)) for unify, level in zip(self.unify, maps, strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Logits (b, K, h, w) of each map."""
        return [self.logits(features) for features in self.features(maps)]


class Downsampling(nn.Module):
    """Half the sides: a convolution of stride 2 beside max pooling, concatenated (Paszke et al., ENet, 2016).

    Args:
        in_channels: Channels that come in; pooling hands on as many.
        out_channels: More than that; the convolution makes the others.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        added = out_channels - in_channels
        self.convolution = nn.Conv2d(in_channels, added, kernel_size=3, stride=2, padding=1, bias=False)
        self.pooling = nn.MaxPool2d(2)
        self.activation = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    def forward(self, maps: Tensor) -> Tensor:
        """(b, out_channels, h / 2, w / 2) of (b, in_channels, h, w)."""
        convolved = self.convolution(maps)
        # Images stay float32 under autocast: without the cast all that follows would.
        pooled = self.pooling(maps).to(convolved.dtype)
        halved: Tensor = self.activation(torch.cat([convolved, pooled], dim=1))
        return halved


class FireResidual(nn.Module):
    """SqueezeNet's fire module with a bypass (Iandola et al., 2016, sections 3.1 and 6).

    1x1 filters squeeze to half of the channels, then 1x1 and 3x3 filters, half of the channels each, expand.
    The original squeezes to an eighth; of maps as narrow as ours too little would be left. Batch
    normalisation, which it does not have, makes training from random weights quick.

    Args:
        channels: Channels in and out, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.squeeze = _convolution(channels, half, 1)
        self.expand_1x1 = nn.Conv2d(half, half, kernel_size=1, bias=False)
        self.expand_3x3 = nn.Conv2d(half, half, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(b, channels, h, w) of the same."""
        squeezed = self.squeeze(maps)
        expanded = torch.cat([self.expand_1x1(squeezed), self.expand_3x3(squeezed)], dim=1)
        return torch.relu(maps + self.norm(expanded))


def at_image_size(maps: Tensor, size_hw: Sequence[int]) -> Tensor:
    """Maps (b, c, h, w) upsampled bilinearly to (b, c, *size_hw)."""
    return interpolate(maps, size=tuple(size_hw), mode="bilinear", align_corners=False)


def dropout_layers(model: nn.Module) -> list[_DropoutNd]:
    """The layers that drop something when they are at work."""
    return [m for m in model.modules() if isinstance(m, _DropoutNd) and m.p > 0]


@contextmanager
def dropout_enabled(model: nn.Module, ratio: float | None = None) -> Iterator[None]:
    """Dropout as in training and everything else as it is: each pass is a draw of the network's weights.

    For Monte Carlo dropout (Gal et al., ICML 2017), with `T` passes over an image:

        with dropout_enabled(detector.model):
            passes = [detector.predict([image])[0].maps for _ in range(T)]

    Draws come from torch's generator: `torch.manual_seed` makes them repeatable.

    Args:
        model: The network.
        ratio: What every dropout layer drops, above 0 and below 1; none: what it was trained with.
    """
    dropouts = dropout_layers(model)
    before = [(module.training, module.p) for module in dropouts]
    try:
        for module in dropouts:
            module.train()
            module.p = module.p if ratio is None else ratio
        yield
    finally:
        for module, (training, p) in zip(dropouts, before, strict=True):
            module.train(training)
            module.p = p


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _initialize(modules: nn.Module) -> None:
    for module in modules.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

"""ResNets for 32 x 32 images as in He et al. (arXiv 1512.03385, section 4.2): depth 6n + 2, shortcuts without parameters."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from fedunlearn.errors import InputError


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, "option A": every second row and column, channels padded with zeros."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.grows = planes_in != planes

    def forward(self, x: Tensor) -> Tensor:
        """[N, planes_in, H, W] -> [N, planes, H / stride, W / stride]."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.grows:
            pad = out.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return functional.relu(out + x)


class ResNet(nn.Module):
    """Three stages of n blocks with 16, 32 and 64 planes; `linear` is the head."""

    def __init__(self, planes: int, outputs: int, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(n)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(n - 1)))
        self.linear = nn.Linear(64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, planes, H, W] -> [N, outputs]."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        head: Tensor = self.linear(out.mean((2, 3)))
        return head


def resnet_cifar(shape: Sequence[int], outputs: int, depth: int = 20) -> nn.Module:
    """A CIFAR ResNet; names and shapes are those of the common pretrained checkpoints.

    Args:
        shape: (channels, height, width) of one image, sides divisible by 4.
        outputs: how many classes.
        depth: 20, 32, 44, 56, ...: 6n + 2.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"net resnet_cifar: depth is {depth}, expected 6n + 2: 20, 32, 44, 56, ...")
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise InputError(f"net resnet_cifar: one input has shape {tuple(shape)}, expected (channels, 4a, 4b)")
    net = ResNet(shape[0], outputs, (depth - 2) // 6)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net

"""The same networks in PyTorch, in a loop as one writes it by hand: masks, data in memory, fused Adam."""

import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.works import CLASSES, DENSITY, LEARNING_RATE, Work


def contender(work: Work, name: str) -> Callable[[int], float]:
    """Returns what trains for so many steps and says how many seconds they took.

    Raises:
        ValueError: the network of that name has not been written in PyTorch.
    """
    if name not in _NETWORKS:
        raise ValueError(f"{name} is not written in PyTorch.")
    torch.manual_seed(0)
    model, loss = _NETWORKS[name](), nn.CrossEntropyLoss()
    x, y = (torch.from_numpy(array) for array in work.data())
    x, y = (x if work.tokens else _channels_first(x)), y.long()
    kernels = [
        parameter
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1
    ]
    masks = [(torch.rand_like(kernel) < DENSITY).float() for kernel in kernels]
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)

    def run(steps: int) -> float:
        began = time.perf_counter()
        total = correct = 0.0
        for rows in torch.randint(len(x), (steps, work.batch_size)):
            inputs, labels = x[rows], y[rows]
            outputs = model(inputs)
            error = loss(outputs, labels)
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            torch._foreach_mul_([kernel.grad for kernel in kernels], masks)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_mul_(kernels, masks)
                total += error.detach()
                correct += (outputs.argmax(1) == labels).sum()
        float(total), float(correct)
        return time.perf_counter() - began

    return run


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2).contiguous() if x.dim() == 4 else x


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def _conv_2() -> nn.Module:
    convolutions = (nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
    dense = (nn.Linear(64 * 16 * 16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    return nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), *dense, nn.Linear(256, CLASSES))


class _Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels == filters
            else nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _resnet_20() -> nn.Module:
    layers, channels = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for filters in (16, 32, 64):
        for block in range(3):
            layers.append(_Block(channels, filters, 2 if filters > 16 and block == 0 else 1))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        block = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2)
        self.output = nn.Linear(64, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.blocks(self.embedding(tokens)).mean(1))


class _LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 128, batch_first=True)
        self.output = nn.Linear(128, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.lstm(x)[0][:, -1])


_NETWORKS = {
    "lenet": _lenet,
    "lenet_1024": _lenet,
    "conv_2": _conv_2,
    "resnet_20": _resnet_20,
    "transformer": _Transformer,
    "lstm": _LSTM,
}

"""The net, the rows, and how one trains and tests; no Flower in here."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

SITES = 3


class Net(nn.Module):
    """A small convolutional net for images of 8x8 pixels."""

    def __init__(self, shape=(1, 8, 8), outputs=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 4 * 4, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return self.out(functional.relu(self.hidden(x.flatten(1))))


def split():
    """All rows: x and y to train on, x and y to test on."""
    digits = load_digits()
    x = (digits.images / 16.0).astype("float32")[:, None]
    x_train, x_test, y_train, y_test = train_test_split(x, digits.target, test_size=0.3, random_state=0)
    return (x_train, y_train), (x_test, y_test)


def partition(partition_id):
    """What one site trains on."""
    rows, number = split()[partition_id == "test"], str(partition_id).removeprefix("site-")
    return rows if number == "test" else tuple(part[int(number) :: SITES] for part in rows)


def loader(rows, batch_size):
    """Batches of rows."""
    x, y = (torch.as_tensor(part) for part in rows)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)


def train(net, batches, epochs, lr):
    """Train in place; gives the last loss."""
    optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        for x, y in batches:
            optimiser.zero_grad()
            loss = functional.cross_entropy(net(x), y.long())
            loss.backward()
            optimiser.step()
    return loss.item()


def test(net, batches):
    """Fraction of right answers."""
    net.eval()
    with torch.no_grad():
        right = sum(int((net(x).argmax(1) == y).sum()) for x, y in batches)
    return right / len(batches.dataset)

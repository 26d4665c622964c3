"""Deal scikit-learn's digits: a folder of rows and a site.yaml for each site, and held-out rows for the coordinator."""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SITE = """name: {name}
store: store
data: {{folder: rows}}
net: {{name: mlp, hidden: 32}}
device: cpu
policy: auto
"""


def deal(folder: Path, sites: list[str]) -> None:
    """Write `<folder>/<site>/site.yaml`, `<folder>/<site>/rows/main.npz`, and `<folder>/heldout.npz`.

    Every row goes to one place only; the last site gets no zeros.

    Args:
        folder: where to write.
        sites: their names.
    """
    digits = load_digits()
    x, y = digits.images.astype("float32") / 16, digits.target
    classes, keys = np.array([str(c) for c in range(10)]), np.array([str(i) for i in range(len(y))])
    parts = len(sites) + 1
    for number, place in enumerate([*sites, "heldout"]):
        mine = np.array([i for i in range(number, len(y), parts) if place != sites[-1] or y[i] != 0])
        rows = {"x": x[mine], "y": y[mine], "classes": classes, "keys": keys[mine]}
        path = folder / "heldout.npz" if place == "heldout" else folder / place / "rows" / "main.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **rows)
        if place != "heldout":
            (folder / place / "site.yaml").write_text(SITE.format(name=place))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("deal.py FOLDER SITE...")
    deal(Path(sys.argv[1]), sys.argv[2:])

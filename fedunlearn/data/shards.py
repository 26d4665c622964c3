"""Who gets which rows. Train, calibration and test are apart, and shards are disjoint, by construction."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from fedunlearn.data.rows import Rows
from fedunlearn.errors import InputError, unknown

SHARDINGS = ("iid", "by_label", "dirichlet")


def held_out(rows: Rows, calibration: float, test: float, seed: int) -> tuple[Rows, Rows, Rows]:
    """Split into train, calibration and test, class by class, so that each part has every class in its share.

    Args:
        rows: the whole set.
        calibration: fraction on which strengths are chosen.
        test: fraction that only the gate reads.
        seed: of the shuffle.

    Returns:
        Train, calibration, test; disjoint, and together the whole set.

    Raises:
        InputError: the fractions are no fractions.
    """
    if calibration < 0 or test < 0 or calibration + test > 1:
        raise InputError(f"data: calibration {calibration} and test {test} must be 0 or more, together at most 1")
    rng = np.random.default_rng([seed, 0])
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for of_class in _by_class(rows, rng):
        a, b = round(test * len(of_class)), round((test + calibration) * len(of_class))
        for part, chosen in zip(parts, (of_class[b:], of_class[a:b], of_class[:a]), strict=True):
            part += chosen
    train, calibrate, tested = (rows.take(sorted(p)) for p in parts)
    return train, calibrate, tested


def shard(
    rows: Rows,
    sites: Sequence[str],
    how: str = "iid",
    *,
    seed: int,
    without: Mapping[str, Collection[str]] | None = None,
    concentration: float = 0.5,
    share: Mapping[str, float] | None = None,
) -> dict[str, Rows]:
    """Deal rows to sites; every row goes to exactly one, or to none if all sites are without its class.

    Args:
        rows: what is dealt.
        sites: who gets some.
        how: "iid" (every class evenly), "by_label" (every class to one site), or "dirichlet" (shares of each class drawn
            from a Dirichlet distribution; the smaller `concentration`, the more uneven).
        seed: of the shuffle and the draw.
        without: classes that a site does not get.
        concentration: of the Dirichlet distribution, above 0.
        share: how much a site gets relative to the others, for "iid"; 1 by default.

    Raises:
        InputError: an unknown sharding, site or class, or a concentration or share that is not positive.
    """
    without = without or {}
    if how not in SHARDINGS:
        raise unknown("sharding", how, SHARDINGS)
    if concentration <= 0:
        raise InputError(f"dirichlet: concentration is {concentration}, expected above 0")
    share = share or {}
    for site, part in share.items():
        if site not in sites:
            raise unknown("site", site, sites, where="data.share")
        if part <= 0 or how != "iid":
            raise InputError(f"data.share.{site}: {part} of {how} shards, expected above 0, and iid shards")
    for site, classes in without.items():
        if site not in sites:
            raise unknown("site", site, sites, where="data.without")
        for c in classes:
            if c not in rows.classes:
                raise unknown("class", c, rows.classes, where=f"data.without.{site}")
    rng = np.random.default_rng([seed, 1])
    dealt: dict[str, list[int]] = {s: [] for s in sites}
    for k, of_class in enumerate(_by_class(rows, rng)):
        takers = [s for s in sites if rows.classes[k] not in without.get(s, ())]
        if not takers:
            continue
        if how == "by_label":
            cuts = [len(of_class) if i >= k % len(takers) else 0 for i in range(len(takers))]
        else:
            turn = k % len(takers)  # an uneven remainder goes to another site for every class
            takers = takers[turn:] + takers[:turn]
            if how == "dirichlet":
                parts = rng.dirichlet([concentration] * len(takers))
            else:
                parts = np.array([float(share.get(s, 1.0)) for s in takers])
            cuts = np.ceil(np.cumsum(parts / parts.sum()) * len(of_class) - 1e-9).astype(int).tolist()
        for site, start, stop in zip(takers, [0, *cuts], cuts, strict=False):
            dealt[site] += of_class[start:stop]
    return {s: rows.take(sorted(index)) for s, index in dealt.items()}


def _by_class(rows: Rows, rng: np.random.Generator) -> list[list[int]]:
    y = rows.y.numpy()
    return [rng.permutation(np.flatnonzero(y == k)).tolist() for k in range(len(rows.classes))]

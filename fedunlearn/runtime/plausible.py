"""What a site's importances must satisfy. A site that cheats is refused, by name; one that is honest can break none of it.

A false accusation blocks a legal request, so every bound is a theorem about the softmax's loss, not a guess about scale. With
outputs z, p = softmax(z) and a row of class c, the loss -log p_c has the gradient g = p - e_c by z, and by the head's bias.

- Scale: 1 - p_c <= -log p_c, so g_c^2 <= loss, and each |g_k| <= 1 whatever the loss is: the sum over n rows of g_k^2, or of
  g_k, is at most n. (The losses "own", "sampled" and "masked" are means of, or differences between, distributions as well.)
- Class: -g_c is the sum of the other g_k, all of them >= 0, so g_c^2 is at least the sum of their squares. Summed over rows of
  the classes S: sum over S of F >= sum over the rest of F. Evidence of another class, and noise, turns it around.
- Share: squares are not negative, so a sum over rows to be forgotten is at most that over all rows, F_forget <= F_all / share.
  It is compared over all parameters together: under another order of rounding a rectifier's gate may open, which moves
  single entries at will, but hardly their sum.
- Farthest: what was enough at a root is looked for up to a number that the method names.

They presume what `Head` says, that row i is the output of class i. All-zero squares break none of it, and a model sure of
every row has them: they are no offence, but they can edit nothing, which `Round1.silent` tells.
"""

from collections.abc import Collection
from math import inf

from fedunlearn.errors import ShapeError, SiteError
from fedunlearn.importance import Importance, fits
from fedunlearn.importance.importance import NON_NEGATIVE
from fedunlearn.methods.base import Want
from fedunlearn.runtime.tasks import Measured, Scored
from fedunlearn.tensors import names_in

SLACK = 1.05  # sums may be rounded to bfloat16, and gradients of a net in half precision are; it is of sums, so twice 2^-8 each
GATES = 1.1  # the same, and gates of rectifiers
VANISHING = 1e-5  # a gradient this far from the truth is rounding in single precision
BOUNDED = frozenset({"labels", "own", "sampled", "masked"})  # losses whose gradients by the outputs are within [-1, 1]


def checked(
    answer: Measured, version: str, scored: Scored, layers: str, want: Want | None, where: str, most: int,
    classes: Collection[str] = (), farthest: float = inf,
) -> Importance:  # fmt: skip
    """A site's answer, which is untrusted.

    Args:
        answer: of the site.
        version: what was to be measured.
        scored: what the model looks like.
        layers: which parameters were asked for.
        want: what was asked for.
        where: `site/shard`.
        most: rows that the lineage knows there.
        classes: of the rows, where it was asked for some.
        farthest: the most that an honest search for what is enough comes to.

    Raises:
        SiteError: version, names, shapes, counts, signs, scale or class are not those of an honest answer.
    """
    want = want or Want("")
    sums = answer.importance.sums
    found = {n: tuple(t.shape) for n, t in sums.get(want.statistic, {}).items()}
    if answer.version != version:
        raise SiteError(f"{where}: answered for version {answer.version[:12]}, asked was {version[:12]}")
    if set(sums) != {want.statistic}:
        raise SiteError(f"{where}: sent {', '.join(sorted(sums)) or 'nothing'}, asked was {want.statistic}")
    if not fits(want.statistic, found, scored.shapes, names_in(layers, scored.shapes, scored.head)):
        raise SiteError(f"{where}: sent importances of {sorted(found)[:5]} with shapes that are not the model's")
    try:
        importance = Importance(sums, answer.importance.count)  # what was unpickled has not been made, so not been checked
    except ShapeError as error:
        raise SiteError(f"{where}: {error}") from error
    if answer.read < 0 or importance.count > most:
        raise SiteError(
            f"{where}: sent a sum over {importance.count} rows; models were trained on {most} there (rows that have come "
            f"since belong into a set of their own: `more:` in its site.yaml)"
        )
    if answer.enough is not None and not (0 <= answer.enough <= farthest and answer.enough < inf):
        up = f" to {farthest:g}" if farthest < inf else ""
        raise SiteError(f"{where}: says that {answer.enough} is enough, expected a number from 0 up{up}")
    clip = 1.0 if answer.clip is None and not answer.noise else answer.clip
    if clip is None or not (0 < clip < float("inf") and 0 <= answer.noise < float("inf")):
        raise SiteError(f"{where}: says that it clips at {answer.clip}, with noise {answer.noise}; expected finite numbers")
    bias = sums[want.statistic].get(scored.head.names[1])
    if importance.count and bias is not None and want.statistic in ("squares", "sum") and want.loss in BOUNDED:
        largest, named = float(bias.abs().max()), scored.head.names[1]
        if largest > SLACK * importance.count:
            raise SiteError(
                f"{where}: {want.statistic} of {named!r} reach {largest:.3g} over {importance.count} rows; a row's gradient by "
                f"an output is at most 1, whatever its loss"
            )
        if want.statistic == "squares" and want.loss == "labels" and classes:
            inside = [i for i, c in enumerate(scored.head.classes) if c in classes]
            mine = float(bias[inside].sum())
            others = float(bias.sum()) - mine
            if max(others, 0) ** 0.5 > SLACK * mine**0.5 + VANISHING * importance.count**0.5:
                raise SiteError(
                    f"{where}: its evidence is not of {', '.join(sorted(classes))}: squares of {named!r} are {mine:.3g} for "
                    f"that, and {others:.3g} for all other classes, where rows of it have less; is it of another request?"
                )
    return importance


def within(part: Importance, whole: Importance, where: str) -> None:
    """Squares of some rows are no larger than those of all rows, of the same model on the same shard.

    Args:
        part: of the rows to be forgotten.
        whole: of all rows, these among them.
        where: `site/shard`.

    Raises:
        SiteError: they are.
    """
    some, total = (sum(float(t.sum()) for t in i.sums["squares"].values()) for i in (part, whole))
    if some > GATES * total:
        raise SiteError(
            f"{where}: squares of {part.count} rows to be forgotten come to {some:.3g}, those of all {whole.count} rows that "
            f"they are among to {total:.3g}"
        )


def is_zero(of: Importance) -> bool:
    """Whether every sum is zero that none could be below; signed sums may cancel."""
    return of.sums.keys() <= NON_NEGATIVE and not any(bool(t.any()) for tensors in of.sums.values() for t in tensors.values())

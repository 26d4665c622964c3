"""Nets for rows of token ids, as data.text makes them: 0 pads, at the end."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedunlearn.errors import InputError


class TextGRU(nn.Module):
    """An embedding, a GRU from left to right, the mean of its states over the words, and a head."""

    def __init__(self, outputs: int, vocabulary: int, width: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.cells = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L] -> [N, outputs]; a row without words gives the head's bias."""
        tokens = x.long()
        embedded = _embedded(self.words, tokens)
        if torch.is_grad_enabled() and not self.training:
            with torch.backends.cudnn.flags(enabled=False):  # cuDNN's GRU has no backward pass in eval mode
                states = self.cells(embedded)[0]
        else:
            states = self.cells(embedded)[0]
        head: Tensor = self.head(_mean(states, tokens))
        return head


class TextTransformer(nn.Module):
    """An embedding plus learned positions, a transformer encoder, the mean over the words, and a head."""

    after_first: Tensor

    def __init__(
        self, length: int, outputs: int, vocabulary: int, width: int, heads: int, layers: int, feedforward: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.encoder = encoder(width, heads, layers, feedforward)
        self.register_buffer("after_first", torch.arange(length) > 0, persistent=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L] -> [N, outputs]; a row without words gives the head's bias."""
        tokens = x.long()
        # a row without words would have nothing to attend to, and give NaN: its first padding stays visible
        hidden = (tokens == 0) & self.after_first
        states = self.encoder(_embedded(self.words, tokens) + self.positions, src_key_padding_mask=hidden)
        head: Tensor = self.head(_mean(states, tokens))
        return head


def encoder(width: int, heads: int, layers: int, feedforward: int) -> nn.TransformerEncoder:
    """A transformer encoder without dropout, normalised before each part and at the end.

    Args:
        width: of a token, a multiple of `heads`.
        heads: of each attention.
        layers: how many.
        feedforward: width of the hidden layer behind each attention.
    """
    layer = nn.TransformerEncoderLayer(width, heads, feedforward, dropout=0.0, batch_first=True, norm_first=True)
    made = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
    for each in made.layers:  # the layers are copies of one; each starts anew
        for parameter in each.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    return made


def text_gru(shape: Sequence[int], outputs: int, vocabulary: int = 4096, width: int = 64, hidden: int = 64) -> nn.Module:
    """A GRU over words.

    Args:
        shape: (tokens,) of one row.
        outputs: how many classes.
        vocabulary: how many ids there are, as in the data.
        width: of the embedding.
        hidden: width of the GRU's state.
    """
    _check("text_gru", shape, vocabulary=vocabulary, width=width, hidden=hidden)
    return TextGRU(outputs, vocabulary, width, hidden)


def text_transformer(
    shape: Sequence[int],
    outputs: int,
    vocabulary: int = 4096,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    feedforward: int = 128,
) -> nn.Module:
    """A transformer encoder over words, without dropout.

    Args:
        shape: (tokens,) of one row.
        outputs: how many classes.
        vocabulary: how many ids there are, as in the data.
        width: of the embedding, a multiple of `heads`.
        heads: of each attention.
        layers: how many.
        feedforward: width of the hidden layer behind each attention.
    """
    _check("text_transformer", shape, vocabulary=vocabulary, width=width, heads=heads, layers=layers, feedforward=feedforward)
    if width % heads:
        raise InputError(f"net text_transformer: width is {width}, expected a multiple of heads, which is {heads}")
    return TextTransformer(shape[0], outputs, vocabulary, width, heads, layers, feedforward)


def _embedded(words: nn.Embedding, tokens: Tensor) -> Tensor:
    try:
        found: Tensor = words(tokens)
    except IndexError as error:
        raise InputError(
            f"token ids run from {int(tokens.min())} to {int(tokens.max())}, but the net's vocabulary is "
            f"{words.num_embeddings}; give the data and the net the same vocabulary"
        ) from error
    return found


def _mean(states: Tensor, tokens: Tensor) -> Tensor:
    """Mean over the words: [N, L, W] and [N, L] -> [N, W]; zero where there are none."""
    word = (tokens != 0)[..., None].to(states.dtype)
    return (states * word).sum(1) / word.sum(1).clamp(min=1)


def _check(net: str, shape: Sequence[int], **settings: int) -> None:
    if len(shape) != 1:
        raise InputError(f"net {net}: one input has shape {tuple(shape)}, expected token ids (tokens,), as texts give them")
    for name, value in settings.items():
        least = 2 if name == "vocabulary" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"net {net}: {name} is {value!r}, expected a whole number of {least} or more")

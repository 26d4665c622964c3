"""How well was it forgotten, and may it be committed? Only held-out rows count."""

from fedunlearn.evaluation.accuracy import Scores as Scores
from fedunlearn.evaluation.accuracy import accuracy as accuracy
from fedunlearn.evaluation.accuracy import score as score
from fedunlearn.evaluation.gate import Gate as Gate

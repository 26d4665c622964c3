"""How well was it forgotten, and may it be committed? Only held-out rows count.

The gate reads `Scores`. What an attacker would ask is in `tiers`: closeness to a retrained model (`closeness`, `intervals`),
membership (`membership`, `shadows`), a planted trigger (`backdoor`), and what is left below the last layer (`probe`,
`alignment`, `residual`, `relearn`).
"""

from fedunlearn.evaluation.accuracy import accuracy as accuracy, score as score
from fedunlearn.evaluation.gate import Gate as Gate
from fedunlearn.evaluation.material import Material as Material
from fedunlearn.evaluation.tiers import TIERS as TIERS, costs as costs, evaluate as evaluate
from fedunlearn.evaluation.trial import Effort as Effort, Nets as Nets
from fedunlearn.scores import Scores as Scores

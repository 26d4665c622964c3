"""The questions that the four papers leave open, each answered by an experiment on small families.

FIUn (arXiv 2408.08493), SSD (2308.07707), LFSSD (2402.19308), FisherMask (2310.05331). Held-out rows, three seeds, models
retrained without the data wherever closeness to them is claimed. A run that was cut off goes on in `runs/open`.
"""

import argparse
import json
import os
from pathlib import Path

import torch
from common import keep
from open_questions_answers import answer
from open_questions_compared import labels, nets, parts, place, size, strength, unequal, whole
from open_questions_evidence import drift, shifted
from open_questions_family import Question
from open_questions_repeated import repeated

from fedunlearn.cli.console import progress
from fedunlearn.compare.origin import joined

QUESTIONS = {
    q.name: q
    for q in (
        Question("repeated", "How many requests, one after another, does a family bear?", ("SSD 1",), repeated),
        Question("size", "How much can be forgotten at once?", ("SSD 3", "LFSSD 3"), size),
        Question("shift", "What if what is forgotten is measured on other data than was trained on?", ("FIUn 2",), shifted),
        Question(
            "drift", "When does the root's evidence stop pointing at an heir's weights?", ("FIUn, mechanisms 1 and 3",), drift
        ),
        Question("labels", "What do wrong labels do?", ("FisherMask 3",), labels),
        Question("unequal", "What if classes are of unequal size?", ("FisherMask, its data",), unequal),
        Question(
            "parts", "Does FisherMask forget a sub-class, or single rows, and at which ratio?", ("FisherMask 1, 2",), parts
        ),
        Question(
            "whole", "Does the whole Fisher choose a better mask than its diagonal?", ("FisherMask, its limitations",), whole
        ),
        Question("strength", "What do alpha and lam do, and can they be found from the loss?", ("SSD 2", "LFSSD 2"), strength),
        Question("place", "Are the weights that SSD selects special to what is forgotten?", ("SSD, its mechanism",), place),
        Question(
            "nets",
            "Is the outputs' sensitivity as good as the Fisher in other nets?",
            ("LFSSD 1", "FisherMask, its nets"),
            nets,
        ),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--question", choices=list(QUESTIONS), action="append", help="by default all")
    parser.add_argument("--size", choices=("test", "cpu"), default="cpu", help="test: seconds; cpu: minutes")
    parser.add_argument("--data", help="folder of data sets; FEDUNLEARN_DATA by default; test size needs none")
    parser.add_argument("--work", type=Path, default=Path("runs/open"), help="where a second run goes on")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of answers")
    parser.add_argument("--write", action="store_true", help="keep each question's result under results/")
    args = parser.parse_args()
    if args.data:
        os.environ["FEDUNLEARN_DATA"] = str(Path(args.data).resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    rows, origins, said = [], [], []
    for name in args.question or QUESTIONS:
        question = QUESTIONS[name]
        with progress() as say:
            made, of = question.run(args.size, args.work, say)
        asked = {"question": name, "asks": question.asks, "papers": question.papers, "size": args.size}
        found = {"what": __doc__, **asked, **joined(of), "rows": made}
        said.append(f"## {question.asks}\n\n{answer(found)}")
        if args.write:
            keep(f"open_{name}", found)
        rows += [{"question": name, **row} for row in made]
        origins += of
    result = {"what": __doc__, "size": args.size, **joined(origins), "rows": rows}
    print(json.dumps(result, indent=1) if args.json else "\n\n".join(said))


if __name__ == "__main__":
    main()

"""What does every method of the menu leave, and what does it cost, on the `hospitals` family?

Every class of digits in a request of its own, three seeds, one configuration for all. The result is the comparison that
`fedunlearn compare hospitals --classes 0,1,2,3,4,5,6,7,8,9` makes: a line a method, and every row in the CSV beside it.
"""

import json
from pathlib import Path

from common import RESULTS, arguments, keep

from fedunlearn.cli.console import progress
from fedunlearn.compare import Subject, as_csv, choices_of, compare, overview, requests_of
from fedunlearn.scenario import find_topology, load

WORK = Path("runs/compare_small")


def main() -> None:
    args = arguments(__doc__)
    seeds, classes, methods = (range(3), "0,1,2,3,4,5,6,7,8,9", "") if args.size == "cpu" else (range(1), "0", "steer")
    subject = Subject.of(load(find_topology("hospitals")), requests_of(classes))
    with progress() as say:
        found = compare([subject], choices_of(methods), seeds, WORK, progress=say)
    result = {"what": __doc__, "size": args.size, **found}
    if args.write:
        (RESULTS / "compare_small.csv").write_text(as_csv(result))
        keep("compare_small", {k: v for k, v in result.items() if k not in ("rows", "cells")})  # they are in the CSV
    print(json.dumps(result, indent=1) if args.json else overview(result).markdown())


if __name__ == "__main__":
    main()

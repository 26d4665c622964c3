"""`python -m fedunlearn`: the command line, where its script is not on the path."""

from fedunlearn.cli import main

main()

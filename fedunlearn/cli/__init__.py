"""The command line: parse, call, print."""

from fedunlearn.cli.app import main as main

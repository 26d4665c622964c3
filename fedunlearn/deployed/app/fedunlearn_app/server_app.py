"""The coordinator's side, as installed with fedunlearn."""

from fedunlearn.deployed.server import app as app

"""A site's side, as installed with fedunlearn."""

from fedunlearn.deployed.client import app as app

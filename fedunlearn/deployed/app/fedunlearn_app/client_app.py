"""The side of a site, as installed with fedunlearn."""

from fedunlearn.deployed import client

app = client.app  # Flower looks for this very assignment before it takes the app

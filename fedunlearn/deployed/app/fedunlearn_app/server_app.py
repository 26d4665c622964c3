"""The side of the coordinator, as installed with fedunlearn."""

from fedunlearn.deployed import server

app = server.app  # Flower looks for this very assignment before it takes the app

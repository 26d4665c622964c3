"""Nothing but the names by which Flower finds what is installed."""

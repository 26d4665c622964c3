"""What a coordinator keeps of a family: names, the ledger, and what follows from its lines. No rows, no weights."""

"""What runs beside the data: the only code that sees rows and weights, and all that a place keeps."""

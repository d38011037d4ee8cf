"""Language models (stand-in)."""

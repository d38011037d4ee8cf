"""Ground floor: compiled loops over arrays. No checks, no classes, nothing of the rest of mdpsim imported.

Every entry takes read-only C-contiguous arrays and writes fresh ones; the layers above guard the inputs. Shapes are
stated in each docstring: a wrong shape here returns a wrong number, silently.
"""

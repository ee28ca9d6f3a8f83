"""A tenant as a whole: all that is kept of it told, or erased."""

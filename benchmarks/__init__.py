"""Side-by-side measurements: `make bench`.

Figures are ratios measured in one run on one machine, against a named peer or limit. Reading
order: `__main__` (what is measured), `load` (the load), `setup` (the servers).
"""

"""The sidecar's own jobs: what has expired is given back, what nobody asks for is forgotten.

They run on the queue like anybody's, as the tenant `_system` in a lane of its own.
"""

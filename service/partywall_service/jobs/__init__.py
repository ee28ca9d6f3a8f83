"""The sidecar's side of job queues: who may start how many, and what is told of them."""

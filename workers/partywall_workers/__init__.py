"""Fair per-tenant job queues on arq: what a host app's workers are made of."""

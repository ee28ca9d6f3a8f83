"""Fair per-tenant background jobs on arq: `FairQueue`, `FairWorker` and `@job` will live here."""

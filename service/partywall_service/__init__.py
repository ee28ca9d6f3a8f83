"""The Partywall sidecar: policy, engine, ledger, REST API and command line."""

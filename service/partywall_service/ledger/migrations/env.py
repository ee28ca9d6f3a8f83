"""Alembic's entry: runs the migrations in the transaction that `upgrade` hands over."""

from alembic import context

from partywall_service.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

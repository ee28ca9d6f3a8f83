"""Partywall's SDK: what a host app installs."""

from partywall.decision import Decision, Window

__all__ = ["Decision", "Window"]

"""What `partywall.testing` is made of: a sidecar's answers, from this process's memory."""

"""`partywall demo`: a quiet tenant beside a noisy one, with Partywall and without."""

"""A bounded dictionary: what leaves, and when."""

from partywall.recent import Recent


def test_the_one_not_used_for_longest_leaves_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)
    assert len(recent) == 2


def test_putting_again_replaces_and_counts_as_use() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    recent.put("a", 3)
    recent.put("c", 4)
    assert (recent.get("a"), recent.get("b")) == (3, None)


def test_entries_can_be_dropped_one_by_one_or_all() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.drop("a")
    recent.drop("never there")
    recent.put("b", 2)
    recent.clear()
    assert (recent.get("a"), recent.get("b"), len(recent)) == (None, None, 0)

"""Every Redis key of the tenant cache.

A key carries its tenant as a hash tag, so that all of a tenant's are on one node of a cluster and
one script call reaches them. A tenant's id has no braces and no colons, so no two tenants share a
name, whatever their keys are called.
"""

from typing import NamedTuple

from partywall.errors import ConfigurationError
from partywall.tenants import is_tenant_id


class TenantKeys(NamedTuple):
    """The names of one tenant.

    Attributes:
        expiry: the sorted set of its keys by expiry.
        used: the sorted set of its keys by last use.
        values: what the names of its values begin with.
    """

    expiry: bytes
    used: bytes
    values: bytes

    def value(self, key: str) -> bytes:
        """The name of the value of a host's key.

        Raises:
            ConfigurationError: it is no key.
        """
        if not isinstance(key, str) or not key:
            raise ConfigurationError(f"expected a key as a str, not empty; got {key!r}")
        return self.values + key.encode()


def of_tenant(prefix: str, tenant: str) -> TenantKeys:
    """A tenant's names.

    Raises:
        ConfigurationError: it can be no tenant's id.
    """
    if not isinstance(tenant, str) or not is_tenant_id(tenant):
        raise ConfigurationError(f"expected a tenant's id such as 'acme'; got {tenant!r}")
    base = f"{prefix}:{{{tenant}}}:".encode()
    return TenantKeys(base + b"expiry", base + b"used", base + b"v:")


def checked_prefix(prefix: str) -> str:
    """A prefix that leaves the hash tag to the tenant.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
        raise ConfigurationError(f"expected a prefix without braces, such as 'app'; got {prefix!r}")
    return prefix

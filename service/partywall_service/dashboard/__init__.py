"""The dashboard: pages for people, rendered here, which need no script.

`router` is what the app includes. The pages stand on the REST API's own parts: its tokens, its
validators, its functions for every change.
"""

from partywall_service.dashboard.router import router

__all__ = ["router"]

"""Interface for programs: streams over WebSockets, whole recordings over HTTP, and what operators watch."""

from .access import Access, ClientLimits
from .pools import PoolKey, SharedPools
from .service import CodecService, ServiceLimits

__all__ = ["Access", "ClientLimits", "CodecService", "PoolKey", "ServiceLimits", "SharedPools"]

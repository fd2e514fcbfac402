"""Operations: see what services hold, and mend it (`CloudRuntimesClient.admin`)."""

from ..spi.admin import GroupInfo, MemberInfo, TopicInfo
from ..spi.inventory import InstanceInfo, JobInfo, LockInfo, ServiceInfo
from .overview import Backlog, ComponentStatus, DeadTopic, Overview, StuckLock
from .service import AdminService
from .stores import StoreInfo
from .types import DeadLetters, Redriven

__all__ = [
    "AdminService",
    "Backlog",
    "ComponentStatus",
    "DeadLetters",
    "DeadTopic",
    "GroupInfo",
    "InstanceInfo",
    "JobInfo",
    "LockInfo",
    "MemberInfo",
    "Overview",
    "Redriven",
    "ServiceInfo",
    "StoreInfo",
    "StuckLock",
    "TopicInfo",
]

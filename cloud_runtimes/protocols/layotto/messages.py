"""The messages of Layotto (mosn/layotto ``spec/proto/runtime/v1``)."""

from __future__ import annotations

from typing import Final

from ..messages import messages_of

_PACKAGE: Final = "spec.proto.runtime.v1"
RUNTIME: Final = f"/{_PACKAGE}.Runtime/"
"""Path of what a sidecar serves."""
APP: Final = f"/{_PACKAGE}.AppCallback/"
"""Path of what an application serves."""

messages = messages_of(
    _PACKAGE,
    """
CommonInvokeRequest: method 1, data 2 Any, content_type 3, http_extension 4 HTTPExtension
ConfigurationItem: key 1, content 2, group 3, label 4, tags 5 map, metadata 6 map
DelFileRequest: request 1 FileRequest
DeleteConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map
FileInfo: file_name 1, size 2 int64, last_modified 3, metadata 4 map
FileMeta: metadata 1 map:FileMetaValue
FileMetaValue: value 1 []
FileRequest: store_name 1, name 2, metadata 3 map
GetConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map, subscribe_update 7 bool
GetConfigurationResponse: items 1 []ConfigurationItem
GetFileMetaRequest: request 1 FileRequest
GetFileMetaResponse: size 1 int64, last_modified 2, response 3 FileMeta
GetFileRequest: store_name 1, name 2, metadata 3 map
GetFileResponse: data 1 bytes
GetNextIdRequest: store_name 1, key 2, options 3 SequencerOptions, metadata 4 map
GetNextIdResponse: next_id 1 int64
InvokeServiceRequest: id 1, message 3 CommonInvokeRequest
ListFileRequest: request 1 FileRequest, page_size 2 int32, marker 3
ListFileResp: files 1 []FileInfo, marker 2, is_truncated 3 bool
LockKeepAliveRequest: store_name 1, resource_id 2, lock_owner 3, expire 4 int32
LockKeepAliveResponse: status 1 int32
PutFileRequest: store_name 1, name 2, data 3 bytes, metadata 4 map
SaveConfigurationRequest: store_name 1, app_id 2, items 3 []ConfigurationItem, metadata 4 map
SayHelloRequest: service_name 1, name 2, data 3 Any
SayHelloResponse: hello 1, data 2 Any
SequencerOptions: increment 1 int32
SubscribeConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map
SubscribeConfigurationResponse: store_name 1, app_id 2, items 3 []ConfigurationItem
SubscribeTopicEventsRequest: initial_request 1 SubscribeTopicEventsRequestInitial, event_processed 2 SubscribeTopicEventsRequestProcessed
SubscribeTopicEventsRequestInitial: pubsub_name 1, topic 2, metadata 3 map, dead_letter_topic 4
SubscribeTopicEventsRequestProcessed: id 1, status 2 TopicEventResponse
SubscribeTopicEventsResponse: initial_response 1 SubscribeTopicEventsResponseInitial, event_message 2 TopicEventRequest
SubscribeTopicEventsResponseInitial:
TopicEventRequest: id 1, source 2, type 3, spec_version 4, data_content_type 5, topic 6, data 7 bytes, pubsub_name 8, metadata 10 map
TopicSubscription: pubsub_name 1, topic 2, metadata 3 map
TryLockRequest: store_name 1, resource_id 2, lock_owner 3, expire 4 int32
""",
)

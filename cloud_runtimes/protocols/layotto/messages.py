"""The messages of Layotto (mosn/layotto ``spec/proto/runtime/v1``)."""

from __future__ import annotations

from typing import Final

from ..messages import messages_of

__all__ = ["APP", "RUNTIME", "messages"]

_PACKAGE: Final = "spec.proto.runtime.v1"
RUNTIME: Final = f"/{_PACKAGE}.Runtime/"
"""Path of what a sidecar serves."""
APP: Final = f"/{_PACKAGE}.AppCallback/"
"""Path of what an application serves."""

messages = messages_of(
    _PACKAGE,
    """
BulkStateItem: key 1, data 2 bytes, etag 3, error 4, metadata 5 map
CommonInvokeRequest: method 1, data 2 Any, content_type 3, http_extension 4 HTTPExtension
ConfigurationItem: key 1, content 2, group 3, label 4, tags 5 map, metadata 6 map
DelFileRequest: request 1 FileRequest
DeleteBulkStateRequest: store_name 1, states 2 []StateItem
DeleteConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map
DeleteStateRequest: store_name 1, key 2, etag 3 Etag, options 4 StateOptions, metadata 5 map
Etag: value 1
ExecuteStateTransactionRequest: storeName 1, operations 2 []TransactionalStateOperation, metadata 3 map
FileInfo: file_name 1, size 2 int64, last_modified 3, metadata 4 map
FileMeta: metadata 1 map:FileMetaValue
FileMetaValue: value 1 []
FileRequest: store_name 1, name 2, metadata 3 map
GetBulkSecretRequest: store_name 1, metadata 2 map
GetBulkSecretResponse: data 1 map:SecretResponse
GetBulkStateRequest: store_name 1, keys 2 [], parallelism 3 int32, metadata 4 map
GetBulkStateResponse: items 1 []BulkStateItem
GetConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map, subscribe_update 7 bool
GetConfigurationResponse: items 1 []ConfigurationItem
GetFileMetaRequest: request 1 FileRequest
GetFileMetaResponse: size 1 int64, last_modified 2, response 3 FileMeta
GetFileRequest: store_name 1, name 2, metadata 3 map
GetFileResponse: data 1 bytes
GetNextIdRequest: store_name 1, key 2, options 3 SequencerOptions, metadata 4 map
GetNextIdResponse: next_id 1 int64
GetSecretRequest: store_name 1, key 2, metadata 3 map
GetSecretResponse: data 1 map
GetStateRequest: store_name 1, key 2, consistency 3 int32, metadata 4 map
GetStateResponse: data 1 bytes, etag 2, metadata 3 map
HTTPExtension: verb 1 int32, querystring 2
InvokeBindingRequest: name 1, data 2 bytes, metadata 3 map, operation 4
InvokeBindingResponse: data 1 bytes, metadata 2 map
InvokeResponse: data 1 Any, content_type 2
InvokeServiceRequest: id 1, message 3 CommonInvokeRequest
ListFileRequest: request 1 FileRequest, page_size 2 int32, marker 3
ListFileResp: files 1 []FileInfo, marker 2, is_truncated 3 bool
ListTopicSubscriptionsResponse: subscriptions 1 []TopicSubscription
LockKeepAliveRequest: store_name 1, resource_id 2, lock_owner 3, expire 4 int32
LockKeepAliveResponse: status 1 int32
PublishEventRequest: pubsub_name 1, topic 2, data 3 bytes, data_content_type 4, metadata 5 map
PutFileRequest: store_name 1, name 2, data 3 bytes, metadata 4 map
SaveConfigurationRequest: store_name 1, app_id 2, items 3 []ConfigurationItem, metadata 4 map
SaveStateRequest: store_name 1, states 2 []StateItem
SayHelloRequest: service_name 1, name 2, data 3 Any
SayHelloResponse: hello 1, data 2 Any
SecretResponse: secrets 1 map
SequencerOptions: increment 1 int32
StateItem: key 1, value 2 bytes, etag 3 Etag, metadata 4 map, options 5 StateOptions
StateOptions: concurrency 1 int32, consistency 2 int32
SubscribeConfigurationRequest: store_name 1, app_id 2, group 3, label 4, keys 5 [], metadata 6 map
SubscribeConfigurationResponse: store_name 1, app_id 2, items 3 []ConfigurationItem
SubscribeTopicEventsRequest: initial_request 1 SubscribeTopicEventsRequestInitial, event_processed 2 SubscribeTopicEventsRequestProcessed
SubscribeTopicEventsRequestInitial: pubsub_name 1, topic 2, metadata 3 map, dead_letter_topic 4
SubscribeTopicEventsRequestProcessed: id 1, status 2 TopicEventResponse
SubscribeTopicEventsResponse: initial_response 1 SubscribeTopicEventsResponseInitial, event_message 2 TopicEventRequest
SubscribeTopicEventsResponseInitial:
TopicEventRequest: id 1, source 2, type 3, spec_version 4, data_content_type 5, topic 6, data 7 bytes, pubsub_name 8, metadata 10 map
TopicEventResponse: status 1 int32
TopicSubscription: pubsub_name 1, topic 2, metadata 3 map
TransactionalStateOperation: operationType 1, request 2 StateItem
TryLockRequest: store_name 1, resource_id 2, lock_owner 3, expire 4 int32
TryLockResponse: success 1 bool
UnlockRequest: store_name 1, resource_id 2, lock_owner 3
UnlockResponse: status 1 int32
""",
)

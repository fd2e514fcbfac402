"""The messages of Dapr 1.19 (``dapr/proto/runtime/v1``, ``dapr/proto/common/v1``) and of ``google.rpc``."""

from __future__ import annotations

from ..messages import VALUE_TYPE, messages_of, plain

__all__ = ["VALUE_TYPE", "messages", "plain"]

# google.rpc has its own name, since an Any tells it
messages = messages_of(
    "cloud_runtimes.dapr",
    """
google.rpc.Status: code 1 int32, message 2, details 3 []Any
google.rpc.ErrorInfo: reason 1, domain 2, metadata 3 map
google.rpc.ResourceInfo: resource_type 1, resource_name 2, owner 3, description 4
google.rpc.FieldViolation: field 1, description 2
google.rpc.BadRequest: field_violations 1 []FieldViolation
google.rpc.HelpLink: description 1, url 2
google.rpc.Help: links 1 []HelpLink
google.rpc.RetryInfo: retry_delay 1 Duration
InvokeRequest: method 1, data 2 Any, content_type 3, http_extension 4 HTTPExtension
InvokeServiceRequest: id 1, message 3 InvokeRequest
QueryStateRequest: store_name 1, query 2, metadata 3 map
QueryStateItem: key 1, data 2 bytes, etag 3, error 4
QueryStateResponse: results 1 []QueryStateItem, token 2, metadata 3 map
BulkPublishRequestEntry: entry_id 1, event 2 bytes, content_type 3, metadata 4 map
BulkPublishRequest: pubsub_name 1, topic 2, entries 3 []BulkPublishRequestEntry, metadata 4 map
BulkPublishResponseFailedEntry: entry_id 1, error 2
BulkPublishResponse: failedEntries 1 []BulkPublishResponseFailedEntry
TopicEventRequest: id 1, source 2, type 3, spec_version 4, data_content_type 5, topic 6, data 7 bytes, pubsub_name 8, path 9, extensions 10 Struct
SubscribeTopicEventsRequestInitialAlpha1: pubsub_name 1, topic 2, metadata 3 map, dead_letter_topic 4 ?
SubscribeTopicEventsRequestProcessedAlpha1: id 1, status 2 TopicEventResponse
SubscribeTopicEventsRequestAlpha1: initial_request 1 SubscribeTopicEventsRequestInitialAlpha1, event_processed 2 SubscribeTopicEventsRequestProcessedAlpha1
SubscribeTopicEventsResponseInitialAlpha1:
SubscribeTopicEventsResponseAlpha1: initial_response 1 SubscribeTopicEventsResponseInitialAlpha1, event_message 2 TopicEventRequest
TopicEventCERequest: id 1, source 2, type 3, spec_version 4, data_content_type 5, data 6 bytes, extensions 7 Struct
TopicEventBulkRequestEntry: entry_id 1, bytes 2 bytes, cloud_event 3 TopicEventCERequest, content_type 4, metadata 5 map
TopicEventBulkRequest: id 1, entries 2 []TopicEventBulkRequestEntry, metadata 3 map, topic 4, pubsub_name 5, type 6, path 7
TopicEventBulkResponseEntry: entry_id 1, status 2 int32
TopicEventBulkResponse: statuses 1 []TopicEventBulkResponseEntry
TopicRule: match 1, path 2
TopicRoutes: rules 1 []TopicRule, default 2
BulkSubscribeConfig: enabled 1 bool, max_messages_count 2 int32, max_await_duration_ms 3 int32
TopicSubscription: pubsub_name 1, topic 2, metadata 3 map, routes 5 TopicRoutes, dead_letter_topic 6, bulk_subscribe 7 BulkSubscribeConfig
ListInputBindingsResponse: bindings 1 []
BindingEventRequest: name 1, data 2 bytes, metadata 3 map
BindingEventResponse:
ConfigurationItem: value 1, version 2, metadata 3 map
GetConfigurationRequest: store_name 1, keys 2 [], metadata 3 map
GetConfigurationResponse: items 1 map:ConfigurationItem
SubscribeConfigurationRequest: store_name 1, keys 2 [], metadata 3 map
SubscribeConfigurationResponse: id 1, items 2 map:ConfigurationItem
UnsubscribeConfigurationRequest: store_name 1, id 2
UnsubscribeConfigurationResponse: ok 1 bool, message 2
TryLockRequest: store_name 1, resource_id 2, lock_owner 3, expiry_in_seconds 4 int32
JobFailurePolicyDrop:
JobFailurePolicyConstant: interval 1 Duration, max_retries 2 ?uint32
JobFailurePolicy: drop 1 JobFailurePolicyDrop, constant 2 JobFailurePolicyConstant
Job: name 1, schedule 2 ?, repeats 3 ?uint32, due_time 4 ?, ttl 5 ?, data 6 Any, failure_policy 7 JobFailurePolicy
ScheduleJobRequest: job 1 Job, overwrite 2 bool
ScheduleJobResponse:
GetJobRequest: name 1
GetJobResponse: job 1 Job
DeleteJobRequest: name 1
DeleteJobResponse:
DeleteJobsByPrefixRequest: name_prefix 1 ?
DeleteJobsByPrefixResponse:
ListJobsRequest:
ListJobsResponse: jobs 1 []Job
JobEventRequest: name 1, data 2 Any, method 3, content_type 4, http_extension 5 HTTPExtension
JobEventResponse:
ActiveActorsCount: type 1, count 2 int32
RegisteredComponents: name 1, type 2, version 3, capabilities 4 []
PubsubSubscriptionRule: match 1, path 2
PubsubSubscriptionRules: rules 1 []PubsubSubscriptionRule
PubsubSubscription: pubsub_name 1, topic 2, metadata 3 map, rules 4 PubsubSubscriptionRules, dead_letter_topic 5, type 6 int32
AppConnectionHealthProperties: health_check_path 1, health_probe_interval 2, health_probe_timeout 3, health_threshold 4 int32
AppConnectionProperties: port 1 int32, protocol 2, channel_address 3, max_concurrency 4 int32, health 5 AppConnectionHealthProperties
ActorRuntime: runtime_status 1 int32, active_actors 2 []ActiveActorsCount, host_ready 3 bool, placement 4
MetadataScheduler: connected_addresses 1 []
GetMetadataRequest:
GetMetadataResponse: id 1, active_actors_count 2 []ActiveActorsCount, registered_components 3 []RegisteredComponents, extended_metadata 4 map, subscriptions 5 []PubsubSubscription, app_connection_properties 7 AppConnectionProperties, runtime_version 8, enabled_features 9 [], actor_runtime 10 ActorRuntime, scheduler 11 MetadataScheduler
SetMetadataRequest: key 1, value 2
ShutdownRequest:
""",
)

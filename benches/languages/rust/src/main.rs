//! Prints what a span of OpenTelemetry's Rust SDK costs. See benches/languages/__main__.py.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Key, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use opentelemetry_sdk::Resource;
use prost::Message;

const BURST: usize = 1024;
const BURSTS: usize = 100;
const WARM_UP: usize = 2;

static EXPORTED: AtomicUsize = AtomicUsize::new(0);

/// An exporter that encodes spans, if it has to, and drops them.
#[derive(Debug)]
struct Dropping {
    encode: bool,
    resource: ResourceAttributesWithSchema,
}

impl SpanExporter for Dropping {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        EXPORTED.fetch_add(batch.len(), Ordering::Relaxed);
        if self.encode {
            let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
            black_box(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

fn span(tracer: &SdkTracer) {
    tracer.in_span("GET /cart/{id}", |context| {
        let span = context.span();
        span.set_attribute(KeyValue::new("http.request.method", "GET"));
        span.set_attribute(KeyValue::new("http.route", "/cart/{id}"));
        span.set_attribute(KeyValue::new("http.status", 200));
        span.set_attribute(KeyValue::new("peer", "db"));
        span.set_attribute(KeyValue::new("cached", true));
    });
}

fn used(clock: libc::clockid_t) -> i64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut at) }, 0);
    at.tv_sec * 1_000_000_000 + at.tv_nsec
}

fn main() {
    let encode = std::env::args().nth(1).expect("recorded or encoded") == "encoded";
    let resource = Resource::builder().build();
    let version = resource
        .get(&Key::new("telemetry.sdk.version"))
        .expect("the SDK names its version");
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(Dropping {
            encode,
            resource: Default::default(),
        })
        .build();
    let tracer = provider.tracer("bench");
    let (mut caller, mut process) = (0, 0);
    for number in 0..WARM_UP + BURSTS {
        if number == WARM_UP {
            (caller, process) = (0, used(libc::CLOCK_PROCESS_CPUTIME_ID));
        }
        let began = used(libc::CLOCK_THREAD_CPUTIME_ID);
        for _ in 0..BURST {
            span(&tracer);
        }
        caller += used(libc::CLOCK_THREAD_CPUTIME_ID) - began;
        provider.force_flush().expect("flushed");
    }
    process = used(libc::CLOCK_PROCESS_CPUTIME_ID) - process;
    let count = (BURSTS * BURST) as i64;
    println!(
        r#"{{"caller": {}, "process": {}, "exported": {}, "version": "{version}"}}"#,
        caller / count,
        process / count,
        EXPORTED.load(Ordering::Relaxed),
    );
}

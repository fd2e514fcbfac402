// Command spans prints what a span of OpenTelemetry's Go SDK costs. See benches/languages/__main__.py.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
	wire "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	burst  = 1024
	bursts = 100
	warmUp = 2
)

var exported int

// dropping is an exporter that counts spans and drops them.
type dropping struct{}

func (dropping) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	exported += len(spans)
	return nil
}

func (dropping) Shutdown(context.Context) error { return nil }

// encoding is a client of the OTLP exporter that encodes what it gets and drops it.
type encoding struct{}

func (encoding) Start(context.Context) error { return nil }
func (encoding) Stop(context.Context) error  { return nil }

func (encoding) UploadTraces(_ context.Context, resources []*wire.ResourceSpans) error {
	if _, err := proto.Marshal(&wire.TracesData{ResourceSpans: resources}); err != nil {
		return err
	}
	for _, resource := range resources {
		for _, scope := range resource.ScopeSpans {
			exported += len(scope.Spans)
		}
	}
	return nil
}

func span(ctx context.Context, tracer api.Tracer) {
	_, span := tracer.Start(ctx, "GET /cart/{id}")
	span.SetAttributes(
		attribute.String("http.request.method", "GET"),
		attribute.String("http.route", "/cart/{id}"),
		attribute.Int("http.status", 200),
		attribute.String("peer", "db"),
		attribute.Bool("cached", true),
	)
	span.End()
}

func used(clock int32) int64 {
	var at unix.Timespec
	must(unix.ClockGettime(clock, &at))
	return at.Nano()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	runtime.LockOSThread() // for the clock of the thread
	ctx := context.Background()
	var exporter trace.SpanExporter = dropping{}
	if os.Args[1] == "encoded" {
		made, err := otlptrace.New(ctx, encoding{})
		must(err)
		exporter = made
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	tracer := provider.Tracer("bench")
	var caller, process int64
	for number := range warmUp + bursts {
		if number == warmUp {
			caller, process = 0, used(unix.CLOCK_PROCESS_CPUTIME_ID)
		}
		began := used(unix.CLOCK_THREAD_CPUTIME_ID)
		for range burst {
			span(ctx, tracer)
		}
		caller += used(unix.CLOCK_THREAD_CPUTIME_ID) - began
		must(provider.ForceFlush(ctx))
	}
	process = used(unix.CLOCK_PROCESS_CPUTIME_ID) - process
	const count = bursts * burst
	fmt.Printf(`{"caller": %d, "process": %d, "exported": %d, "version": "%s"}`+"\n", caller/count, process/count, exported, sdk.Version())
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"
)

// bulkConfig takes the settings of the distribution's elasticsearch exporter that deploy/otel/logs.yaml uses.
type bulkConfig struct {
	Endpoints []string `mapstructure:"endpoints"`
	LogsIndex string   `mapstructure:"logs_index"`
	Mapping   struct {
		Mode string `mapstructure:"mode"`
	} `mapstructure:"mapping"`
	Retry configretry.BackOffConfig       `mapstructure:"retry"`
	Queue exporterhelper.QueueBatchConfig `mapstructure:"sending_queue"`
}

// newBulkFactory stands for the distribution's elasticsearch exporter, in its mode `bodymap`: a line's body is the
// document, sent by `_bulk`. What the store refuses is told in the log and dropped, as there.
func newBulkFactory() exporter.Factory {
	return exporter.NewFactory(component.MustNewType("elasticsearch"), func() component.Config {
		return &bulkConfig{
			Retry: configretry.NewDefaultBackOffConfig(),
			Queue: exporterhelper.NewDefaultQueueConfig(),
		}
	}, exporter.WithLogs(newBulk, component.StabilityLevelDevelopment))
}

func newBulk(ctx context.Context, set exporter.Settings, config component.Config) (exporter.Logs, error) {
	to := config.(*bulkConfig)
	if len(to.Endpoints) == 0 || to.Mapping.Mode != "bodymap" {
		return nil, fmt.Errorf("an endpoint and mapping mode bodymap are needed, not %v", to)
	}
	push := func(ctx context.Context, logs plog.Logs) error { return write(ctx, to, set.Logger, logs) }
	return exporterhelper.NewLogs(ctx, set, config, push,
		exporterhelper.WithRetry(to.Retry), exporterhelper.WithQueue(to.Queue))
}

func write(ctx context.Context, to *bulkConfig, log *zap.Logger, logs plog.Logs) error {
	var lines bytes.Buffer
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				document, err := json.Marshal(record.Body().AsRaw())
				if err != nil {
					return err
				}
				fmt.Fprintf(&lines, "{\"create\":{\"_index\":%q}}\n%s\n", to.LogsIndex, document)
			}
		}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Endpoints[0]+"/_bulk", &lines)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("_bulk: %d", response.StatusCode)
	}
	var answer struct {
		Items []map[string]struct {
			Status int             `json:"status"`
			Error  json.RawMessage `json:"error"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	for _, item := range answer.Items {
		if done := item["create"]; done.Status >= 300 {
			log.Error("failed to index document", zap.Int("status", done.Status), zap.ByteString("error", done.Error))
		}
	}
	return nil
}

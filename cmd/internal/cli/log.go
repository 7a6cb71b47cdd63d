package cli

import (
	"io"
	"log/slog"
)

// Log are the flags for a program's own messages, which go to standard error.
type Log struct {
	// LogFormat is text or json.
	LogFormat string `enum:"text,json" default:"text" help:"Form of log messages: ${enum} (default ${default})."`
	// LogLevel is the least level that is written.
	LogLevel slog.Level `default:"info" placeholder:"LEVEL" help:"Least level of log messages: debug, info, warn or error (default ${default})."`
}

// Logger returns a logger that writes to w.
func (l *Log) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.LogLevel}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

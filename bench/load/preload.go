package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// chunkRows bounds the lines of one request of Preload: each stays under 6 MiB,
// the server's default limit of a body, and under chunkTimeout on a slow disk.
const (
	chunkRows    = 50_000
	chunkTimeout = 2 * time.Minute
)

// PreloadOptions says what the state should be before a run.
type PreloadOptions struct {
	// Server, Token, Workload and Accounts are as in Options.
	Server, Token, Workload string
	Accounts                int
	// Balance is what every account starts with. Default: 1,000,000, so that
	// no transfer of a run is refused for lack of money.
	Balance int64
	// Progress, if not nil, is called by Preload's goroutine after each chunk.
	Progress func(loaded, total int)
}

// Preload writes the initial state of a workload through POST /v1/state and
// returns when all of it is durable. It does nothing for a workload without
// state. The error wraps ErrUnreachable or ErrInterrupted, or says what the
// server refused; lines that were loaded before it stay.
func Preload(ctx context.Context, p PreloadOptions) error {
	o := Options{Server: p.Server, Token: p.Token, Workload: p.Workload, Accounts: p.Accounts}
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return fmt.Errorf("preload options: %w", err)
	}
	if p.Balance == 0 {
		p.Balance = 1_000_000
	}
	appendRow := workloads[o.Workload].appendRow
	if appendRow == nil {
		return nil
	}
	transport := &http.Transport{DisableCompression: true, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: chunkTimeout}
	var rows []byte
	for first := 0; first < o.Accounts; first += chunkRows {
		last := min(first+chunkRows, o.Accounts)
		rows = rows[:0]
		for i := first; i < last; i++ {
			rows = appendRow(rows, i, p.Balance)
		}
		if err := postRows(ctx, client, &o, rows, last-first); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w while loading accounts %d to %d", ErrInterrupted, first, last-1)
			}
			return fmt.Errorf("load accounts %d to %d: %w", first, last-1, err)
		}
		if p.Progress != nil {
			p.Progress(last, o.Accounts)
		}
	}
	return nil
}

// postRows loads one chunk and checks that the server counted all its lines.
func postRows(ctx context.Context, client *http.Client, o *Options, rows []byte, count int) error {
	endpoint := strings.TrimSuffix(o.Server, "/") + "/v1/state"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(rows))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if o.Token != "" {
		request.Header.Set("Authorization", "Bearer "+o.Token)
	}
	response, err := client.Do(request)
	if err != nil {
		if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("POST %s: %w", endpoint, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s: %s", endpoint, response.Status, bytes.TrimSpace(body))
	}
	var loaded struct {
		Loaded int `json:"loaded"`
	}
	if err := json.Unmarshal(body, &loaded); err != nil {
		return fmt.Errorf("POST %s answered no count of lines: %w", endpoint, err)
	}
	if loaded.Loaded != count {
		return fmt.Errorf("POST %s loaded %d of %d lines", endpoint, loaded.Loaded, count)
	}
	return nil
}

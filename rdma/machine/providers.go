package machine

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/tenure-faas/tenure/rdma"
	"github.com/tenure-faas/tenure/rdma/shm"
	"github.com/tenure-faas/tenure/rdma/tcp"
	"github.com/tenure-faas/tenure/rdma/verbs"
)

// openChoice opens the provider of a choice. A nil provider of a concrete type
// must not become an interface that is not nil, hence opened.
func openChoice(c Choice, logger *slog.Logger) (rdma.Provider, error) {
	switch c.Provider {
	case ProviderVerbs:
		options := verbs.Options{Device: c.Device, Port: c.Port, Logger: logger}
		if c.GID != nil {
			options.GID = c.GID.Addr.Unmap().String()
		}
		return opened(verbs.Open(options))
	case ProviderSHM:
		return opened(shm.Open(shm.Options{}))
	case ProviderTCP:
		options, err := tcpOptions(c)
		if err != nil {
			return nil, err
		}
		return opened(tcp.Open(options))
	}
	return nil, fmt.Errorf("%w provider %q", rdma.ErrInvalid, c.Provider)
}

func opened[P rdma.Provider](p P, err error) (rdma.Provider, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// tcpOptions says where to listen and what to tell peers. An address that this
// machine does not have is forwarded to it, so the port inside is the one
// outside.
func tcpOptions(c Choice) (tcp.Options, error) {
	host := c.Advertise.String()
	switch {
	case c.Listen != "":
		_, port, err := net.SplitHostPort(c.Listen)
		if err != nil {
			return tcp.Options{}, fmt.Errorf("%w address to listen on: %w", rdma.ErrInvalid, err)
		}
		options := tcp.Options{Listen: c.Listen}
		if port != "0" {
			options.Advertise = net.JoinHostPort(host, port)
		}
		return options, nil
	case !c.Forwarded:
		return tcp.Options{Listen: net.JoinHostPort(host, "0")}, nil
	}
	l, err := net.Listen("tcp", ":0") // to learn of a port that is free
	if err != nil {
		return tcp.Options{}, err
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	return tcp.Options{Listen: ":" + port, Advertise: net.JoinHostPort(host, port)}, l.Close()
}

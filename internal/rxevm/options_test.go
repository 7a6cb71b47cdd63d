package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir) // where the cache is on other systems
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "tenure-rxevm")
	payload := filepath.Join(dir, "payload")
	writeFile(t, []byte("#!/bin/sh\n"), payload, "run")
	t.Chdir(dir)
	plain := filepath.Join(dir, "plain")
	writeFile(t, nil, plain, "run")
	if err := os.Chmod(filepath.Join(plain, "run"), 0o644); err != nil {
		t.Fatal(err)
	}

	defaults := Options{Payload: payload, Nodes: 1, Timeout: 4 * time.Minute, CPUs: 2, Cache: cache}
	full := Options{
		Payload: payload, Nodes: 3, Timeout: time.Minute, Memory: 1024, CPUs: 1, Cache: filepath.Join(dir, "c"), Logs: "l",
		Modules: []string{"siw", "dummy", "ipvlan"}, Env: []string{"A=1,2", "B="}, Programs: []string{"ib_read_lat", "ibv_devinfo"}, Mortal: []int{3, 2}, Install: true,
	}
	for _, c := range []struct {
		args  string
		want  Options
		fault string
	}{
		{args: payload, want: defaults},
		{args: "--nodes 0 --timeout 0 --cpus 0 " + payload, want: defaults},
		{args: "--nodes 3 --timeout 1m --memory 1024 --cpus 1 --cache c --logs l --modules siw,dummy --modules ipvlan --env A=1,2 --env B= --program ib_read_lat,ibv_devinfo --dies 3,2 --install " + payload, want: full},
		{args: "", fault: "one payload directory"},
		{args: payload + " " + payload, fault: "2 arguments"},
		{args: "--nodes 4 " + payload, fault: "--nodes is 4"},
		{args: "--nodes -1 " + payload, fault: "--nodes is -1"},
		{args: "--timeout -1s " + payload, fault: "--timeout"},
		{args: "--memory 100 " + payload, fault: "--memory is 100"},
		{args: "--cpus 65 " + payload, fault: "--cpus is 65"},
		{args: "--env A " + payload, fault: `--env "A"`},
		{args: "--env 1=2 " + payload, fault: `--env "1=2"`},
		{args: "--program /bin/ls " + payload, fault: "is a path"},
		{args: "--nodes 2 --dies 3 " + payload, fault: "--dies 3"},
		{args: "--nodes 2 --dies 0 " + payload, fault: "--dies 0"},
		{args: "--nodes 3 --dies 2,2 " + payload, fault: "each dies once"},
		{args: "--dies 1 " + payload, fault: "all nodes"},
		{args: "--dies one " + payload, fault: "not a number"},
		{args: "--no-such-flag " + payload, fault: "no-such-flag"},
		{args: dir, fault: "no program to start"},
		{args: plain, fault: "not an executable"},
		{args: "--nodes 9 --cpus 99 " + dir, fault: "--cpus is 99"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got, err := parseOptions(strings.Fields(c.args), new(bytes.Buffer))
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("the error is %v, want one with %q", err, c.fault)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseOptions([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("the error is %v", err)
	}
	for _, want := range []string{"PAYLOAD_DIR", "-nodes", "-program", "-install"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help does not mention %s:\n%s", want, out.String())
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--help"}, 0}, {nil, 2}, {[]string{t.TempDir()}, 2},
	} {
		if got := exitStatus(t.Context(), c.args); got != c.want {
			t.Errorf("%q: exit status %d, want %d", c.args, got, c.want)
		}
	}
}

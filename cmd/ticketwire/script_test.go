package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ticketwire/ticketwire/test/alga"
	"github.com/ticketwire/ticketwire/test/postgres"
	"github.com/ticketwire/ticketwire/webhook"
)

// TestMain lets the scripts run the real command, with its signals and exit
// codes, under the name ticketwire.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ticketwire": main, "receiver": receiverProgram, "proxy": proxyProgram})
}

// receiverProgram is a program that receives webhooks with the webhook package, as an
// integrator would write it. It prints its address, and a line for each request.
// RECEIVER_SECRET is its secret, and RECEIVER_FAILS, as in 1-3, which requests it
// answers with 503.
func receiverProgram() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "receiver on http://"+l.Addr().String()+"/hook")
	var (
		first, last int64
		requests    atomic.Int64
	)
	if text := os.Getenv("RECEIVER_FAILS"); text != "" {
		if _, err := fmt.Sscanf(text, "%d-%d", &first, &last); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	h := webhook.NewHandler(
		func() []string { return []string{os.Getenv("RECEIVER_SECRET")} },
		func(context.Context, *webhook.Envelope) error { return nil },
		webhook.WithLogger(slog.New(slog.DiscardHandler)),
		webhook.WithObserver(func(_ context.Context, r webhook.Receipt) {
			what := "-"
			if r.Event != nil {
				what = r.Event.EventType + " " + r.Event.EventID + " " + string(r.Event.Data)
			}
			fmt.Fprintln(os.Stdout, r.Outcome, r.Attempt, what)
		}),
	)
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); n >= first && n <= last {
			http.Error(w, "\x1b[31mstarting up", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// proxyProgram is a CONNECT proxy for ada with the password hunter2. It prints its
// address, and a line for each request.
func proxyProgram() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, "proxy on "+l.Addr().String())
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, _ := net.SplitHostPort(r.RemoteAddr)
		answer := func(status int) { fmt.Fprintf(os.Stdout, "%s %s from %s: %d\n", r.Method, r.Host, peer, status) }
		refuse := func(status int) {
			answer(status)
			w.WriteHeader(status)
		}
		if r.Header.Get("Proxy-Authorization") != "Basic YWRhOmh1bnRlcjI=" {
			refuse(http.StatusProxyAuthRequired)
			return
		}
		server, err := net.Dial("tcp", r.Host)
		if err != nil {
			refuse(http.StatusBadGateway)
			return
		}
		defer server.Close()
		client, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer client.Close()
		answer(http.StatusOK)
		io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			io.Copy(server, early)
			server.Close()
		}()
		io.Copy(client, server)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestScripts runs testdata/script: what a person types, and what he reads.
// UPDATE_GOLDEN=1 rewrites the expected help.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(3 * time.Minute),
		Setup: func(e *testscript.Env) error {
			e.Setenv("COLUMNS", "100")
			e.Values[algaKey{}] = new(*alga.Server)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":    await,
			"jsonkeys": jsonKeys,
			"capture":  capture,
			"api":      callAPI,
			"freeport": freePort,
			"alga":     algaDesk(t),
			"postgres": emptyPostgres(t),
		},
	})
}

// await FILE REGEXP waits until the file, which a background command writes,
// matches, and sets $MATCH to the first group.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await file regexp")
	}
	want := regexp.MustCompile(args[1])
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		// The file may not be there yet.
		text, _ := os.ReadFile(ts.MkAbs(args[0]))
		if m := want.FindSubmatch(text); m != nil {
			if len(m) > 1 {
				ts.Setenv("MATCH", string(m[1]))
			}
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%s does not match %s in time:\n%s", args[0], args[1], text)
		}
	}
}

// freePort NAME sets an environment variable to a port that nobody listens on.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}

// emptyPostgres is the command postgres NAME, which sets an environment variable to
// the URL of an empty database.
func emptyPostgres(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: postgres NAME")
		}
		ts.Setenv(args[0], postgres.URL(t, postgres.Start(t)))
	}
}

// jsonKeys KEY... wants the last standard output to be an object with exactly
// these keys.
func jsonKeys(ts *testscript.TestScript, neg bool, args []string) {
	var object map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &object); err != nil {
		ts.Fatalf("standard output is not a JSON object: %v", err)
	}
	var got []string
	for k := range object {
		got = append(got, k)
	}
	slices.Sort(got)
	slices.Sort(args)
	if slices.Equal(got, args) == neg {
		ts.Fatalf("keys are %v, want %v", got, args)
	}
}

// capture NAME [KEY] sets an environment variable to the last standard output,
// or to a string of the JSON in it: KEY is dotted, and a list stands for its
// first element.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: capture NAME [key]")
	}
	if len(args) == 2 {
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			ts.Fatalf("standard output is not JSON: %v", err)
		}
		for key := range strings.SplitSeq(args[1], ".") {
			if list, is := value.([]any); is && len(list) > 0 {
				value = list[0]
			}
			object, _ := value.(map[string]any) // another value has no such key
			value = object[key]
		}
		var is bool
		if text, is = value.(string); !is {
			ts.Fatalf("%s is %v, want a string", args[1], value)
		}
	}
	ts.Setenv(args[0], text)
}

// callAPI is the command api METHOD PATH [BODY]: a call of $TICKETWIRE_URL with
// $TICKETWIRE_API_KEY, whose answer must be a success and goes to standard output.
func callAPI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: api METHOD PATH [BODY]")
	}
	body := strings.Join(args[2:], "")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, args[0], ts.Getenv("TICKETWIRE_URL")+"/api/v1"+args[1], strings.NewReader(body))
	ts.Check(err)
	r.Header.Set("X-API-Key", ts.Getenv("TICKETWIRE_API_KEY"))
	res, err := http.DefaultClient.Do(r)
	ts.Check(err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	ts.Check(err)
	if res.StatusCode > 299 {
		ts.Fatalf("%s %s answered %d: %s", args[0], args[1], res.StatusCode, answer)
	}
	fmt.Fprintf(ts.Stdout(), "%s\n", answer)
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run the real command, with its signals and exit
// codes, under the name ticketwire.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ticketwire": main})
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
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"await":    await,
			"jsonkeys": jsonKeys,
			"capture":  capture,
			"api":      callAPI,
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
// or to a string field of the object in it; dots lead into objects.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: capture NAME [key]")
	}
	if len(args) == 2 {
		var object map[string]any
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			ts.Fatalf("standard output is not a JSON object: %v", err)
		}
		path := strings.Split(args[1], ".")
		for _, key := range path[:len(path)-1] {
			object, _ = object[key].(map[string]any)
		}
		value, is := object[path[len(path)-1]].(string)
		if !is {
			ts.Fatalf("%s is not a string in %s", args[1], text)
		}
		text = value
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

// Command ticketwire is the whole product in one binary: the ticket service with
// its webhooks, and the tools of those who integrate with it.
//
// This package holds the commands, one file each, and what the terminal shows.
// Everything else is in the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/ticketwire/ticketwire/client"
	"github.com/ticketwire/ticketwire/internal/fault"
)

// gcPercent is how much the heap may grow between two collections, unless GOGC
// says otherwise.
const gcPercent = 200

func main() {
	// The heap is small, a few tens of megabytes, and its rate of garbage is not: at
	// Go's own 100 % collection takes a tenth of what a delivery costs.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(run(os.Args[1:], terminal{out: os.Stdout, err: os.Stderr}))
}

// commands is the command line. Every flag can also be given as
// TICKETWIRE_<NAME> or in the config file; flags win over the environment, the
// environment over the file.
type commands struct {
	File kong.ConfigFlag `name:"config" help:"TOML file with the same names as the flags." placeholder:"FILE" env:"TICKETWIRE_CONFIG"`

	Demo       demoCmd       `cmd:"" group:"Run the service" help:"Show the guide live: a server, the poller, a webhook and its receiver."`
	Serve      serveCmd      `cmd:"" group:"Run the service" help:"Run the ticket service."`
	Bootstrap  bootstrapCmd  `cmd:"" group:"Run the service" help:"Make a tenant with all that is needed to create a ticket, and print it."`
	Config     configCmd     `cmd:"" group:"Run the service" help:"Print the effective configuration of serve, secrets redacted."`
	Check      checkCmd      `cmd:"" group:"Run the service" help:"Check the database in the data directory for damage."`
	Copy       copyCmd       `cmd:"" group:"Run the service" help:"Move an installation from the embedded database to PostgreSQL, or back."`
	Bench      benchCmd      `cmd:"" group:"Run the service" help:"Measure throughput, latency and growth on this machine."`
	Poll       pollCmd       `cmd:"" group:"Integrate" help:"Poll tickets for changes, the way webhooks replace, and record what is seen."`
	Cutover    cutoverCmd    `cmd:"" group:"Integrate" help:"Move from polling to webhooks: run both, compare, change over, go back."`
	Receive    receiveCmd    `cmd:"" group:"Integrate" help:"Receive webhooks: keep each event, react to it, repeat what failed."`
	Backfill   backfillCmd   `cmd:"" group:"Integrate" help:"Deliver to a receiver what it missed in an outage."`
	Reconcile  reconcileCmd  `cmd:"" group:"Integrate" help:"Watch that webhooks bring everything, and repair what they did not."`
	Listen     listenCmd     `cmd:"" group:"Integrate" help:"Forward events to a receiver on this machine."`
	Trigger    triggerCmd    `cmd:"" group:"Integrate" help:"Send a made event to a receiver, to see what it does."`
	Sign       signCmd       `cmd:"" group:"Integrate" help:"Sign a body as the service signs webhooks."`
	Verify     verifyCmd     `cmd:"" group:"Integrate" help:"Check the signature of a webhook request, and say why it fails."`
	Keys       keysCmd       `cmd:"" group:"Administer a server over its API" help:"List, make, change and revoke API keys over the API."`
	Webhooks   webhooksCmd   `cmd:"" group:"Administer a server over its API" help:"Subscribe and look after webhooks over the API."`
	Tickets    ticketsCmd    `cmd:"" group:"Administer a server over its API" help:"List, open and change tickets over the API."`
	Events     eventsCmd     `cmd:"" group:"Administer a server over its API" help:"Read the event feed over the API."`
	Tenants    tenantsCmd    `cmd:"" group:"Administer a data directory" help:"List and change tenants in the data directory."`
	Users      usersCmd      `cmd:"" group:"Administer a data directory" help:"Add and change users in the data directory."`
	Console    consoleCmd    `cmd:"" group:"Administer a data directory" help:"Print a link that signs in to the web console."`
	Priorities prioritiesCmd `cmd:"" group:"Administer a data directory" help:"Add priorities in the data directory."`
	BenchHook  benchHookCmd  `cmd:"" hidden:""`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// Exit codes, for scripts. Kinds of failure map to them in exitCode.
const (
	exitOK          = 0
	exitFailed      = 1 // anything that has no code of its own
	exitUsage       = 2 // the command line or the configuration is wrong
	exitDenied      = 3 // the API key is not accepted or may not do this
	exitNotFound    = 4
	exitConflict    = 5
	exitUnavailable = 6 // the server cannot be reached or is overloaded; a retry may succeed
)

// run parses args, runs the command and returns the exit code. It is main
// without the process, so that tests can call it.
func run(args []string, t terminal) int {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("ticketwire"),
		kong.Description("Tickets with signed webhooks, so that nobody has to poll."),
		kong.UsageOnError(),
		kong.DefaultEnvars("TICKETWIRE"),
		kong.Configuration(readTOML), // of --config or TICKETWIRE_CONFIG
		kong.Writers(t.out, t.err),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Vars{"version": version(), "default_state": defaultState, "warn_after": defaultWarnAfter},
	)
	if err != nil {
		return t.fail(err)
	}
	kctx, err := parser.Parse(asked(args))
	if exited >= 0 { // --help was printed
		return exited
	}
	if err != nil {
		return t.fail(usageError{err, tryHelp(err)})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	if err := kctx.Run(t); err != nil {
		if status, is := errors.AsType[exitStatus](err); is {
			return int(status)
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = errors.New("interrupted")
		}
		return t.fail(err)
	}
	return exitOK
}

// asked turns what other programs understand into what this one does: help and
// help COMMAND into --help, and --version into version.
func asked(args []string) []string {
	switch {
	case len(args) > 0 && args[0] == "help":
		return append(args[1:len(args):len(args)], "--help")
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	}
	return args
}

// usageError is a mistake on the command line, with what to try instead.
type usageError struct {
	err  error
	hint string
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func tryHelp(err error) string {
	words := []string{"ticketwire"}
	if p, is := errors.AsType[*kong.ParseError](err); is && p.Context != nil {
		for word := range strings.FieldsSeq(p.Context.Command()) {
			if strings.HasPrefix(word, "<") {
				break
			}
			words = append(words, word)
		}
	}
	return strings.Join(append(words, "--help"), " ")
}

// terminal is where a command writes: results to out, everything else to err.
type terminal struct{ out, err io.Writer }

// fail prints an error the way a person can use it and returns its exit code.
func (t terminal) fail(err error) int {
	fmt.Fprintln(t.err, "Error:", message(err))
	if u, is := errors.AsType[usageError](err); is {
		if u.hint != "" {
			fmt.Fprintln(t.err, "Try:  ", u.hint)
		}
		return exitUsage
	}
	if _, is := errors.AsType[*url.Error](err); is {
		fmt.Fprintln(t.err, "Try:   start the service with ticketwire serve, or name another one with --url")
	}
	if answer, is := errors.AsType[*client.Error](err); is && answer.Status/100 == 3 {
		// The API redirects nobody: a proxy does, or a page of the console.
		fmt.Fprintln(t.err, "Try:   --url with the base address of the service, such as https://desk.example.com: not that of a page, and https where http leads there")
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		fmt.Fprintln(t.err, "Try:   another address with --listen; port 0 picks a free one")
	}
	return exitCode(err)
}

// message spells out the fields of an invalid input.
func message(err error) string {
	e, is := errors.AsType[*fault.Error](err)
	if !is || len(e.Issues) == 0 {
		return err.Error()
	}
	var lines []string
	for _, i := range e.Issues {
		path := make([]string, len(i.Path))
		for n, p := range i.Path {
			path[n] = fmt.Sprint(p)
		}
		lines = append(lines, strings.Join(path, ".")+": "+i.Message)
	}
	return strings.Join(lines, "; ")
}

func exitCode(err error) int {
	switch kindOf(err) {
	case fault.Invalid, fault.BadReference, fault.TooLarge:
		return exitUsage
	case fault.Unauthorized, fault.Forbidden, fault.ProductDenied:
		return exitDenied
	case fault.NotFound:
		return exitNotFound
	case fault.Conflict:
		return exitConflict
	case fault.RateLimited, fault.Unavailable, fault.BadGateway:
		return exitUnavailable
	default:
		return exitFailed
	}
}

type versionCmd struct{}

// Run prints one line.
func (versionCmd) Run(t terminal) error {
	_, err := fmt.Fprintln(t.out, "ticketwire", version())
	return err
}

// version is what the module was built from: a tag, or a commit.
func version() string {
	info, found := debug.ReadBuildInfo()
	if !found {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// Package failpoint lets a test end the process, or make it fail, at an exact
// line: between a commit and its answer, between a receiver's answer and its
// record. Chance finds such moments too seldom to be a test.
//
// In a normal build Enabled is the constant false and Hit does nothing: the
// compiler removes every call with its branch, and neither the names nor the
// variable that arms them are in the program. With -tags failpoint the points do
// what the environment variable TICKETWIRE_FAILPOINTS says:
//
//	store.committed=kill@17;store.commit=error@5:10s;dispatch.attempt=panic@3
//
// Each rule is POINT=ACTION, with @N for the N-th hit (from 1; the default is
// the first), and after that xM for M hits or :DURATION for as long. The actions
// are kill (SIGKILL to the own process), panic, error, and sleep(DURATION). A
// point may have several rules; the first that holds acts.
//
// Clock is the other thing that a test cannot do from outside: set the clock of
// one process.
//
// What a failure means is left to the place of the point: it wraps the error as
// it would wrap a real one.
package failpoint

// Point names a place in the program. Each is used once.
type Point string

// The points, in the order in which a change passes them.
const (
	// StoreEvents is inside the transaction of a change: the ticket is written,
	// its events are not.
	StoreEvents Point = "store.events"
	// StoreCommit is before the commit of a batch: all is written, nothing is
	// durable. An error is one of the commit.
	StoreCommit Point = "store.commit"
	// StoreCommitted is after the commit, before any caller of the batch or the
	// dispatcher knows of it.
	StoreCommitted Point = "store.committed"
	// Attempt is after a claim or a hand-over, before anything is sent.
	Attempt Point = "dispatch.attempt"
	// Answered is after the receiver's answer, before its way to the record.
	Answered Point = "dispatch.answered"
	// Record is before the results of a batch are written. An error is an outage
	// that the API does not see.
	Record Point = "store.record"
	// Mail is after a mail was claimed from the outbox, before it is sent.
	Mail Point = "dispatch.mail"
)

// Package cutover is the move from polling to webhooks, seen from the
// integrator's side. It holds the poller, which stays the control until the
// webhooks have proved themselves, and the record, in which both pipelines write
// down what they learned and when. The comparison is a function of the record.
// The backfill and the standing reconciler are for afterwards.
//
// # The poller
//
// A Poller is the guide's "before" pattern with its flaws removed. It is seeded:
// what it sees of a ticket for the first time is where it begins, not a change.
// It compares times, not texts, and an equal time is no change. An answer that
// is not a ticket (404, 429, 5xx, a timeout) is no observation, which is not the
// same as no change. It obeys Retry-After and keeps to a share of the rate limit
// of its key. What it has seen is on disk, so that a restart repeats nothing and
// skips nothing.
//
// It sees states, not events: several changes of a ticket between two polls are
// one observation, and nothing can bring the states between back.
//
// # Order of writing
//
// For a change the poller first appends the observation to the record, then runs
// the reaction, then saves that the change is dealt with. A crash in between
// repeats the observation and the reaction, and loses neither: a reaction
// happens at least once.
//
// # Turns
//
// One side acts, by the setup and the time of the change. See Turns for how that
// reaches whoever works in the directory, and Poller for the change that only the
// turn before could have shown.
//
// # After an outage
//
// A Backfill brings a receiver what it missed when it was down for longer than
// the sender tries, and a Sweeper watches that nothing is missed without anybody
// noticing. Both send to the receiver's own URL what its webhook would have sent,
// so that it goes the way of live traffic, and both take for delivered only what
// the receiver has accepted.
//
// # Files
//
// A cutover directory has the setup, cutover.json; the record, record.jsonl; what
// the poller has seen, seen.jsonl; how far the collector came, collect.json; what
// was acted on, acted.jsonl; drill.json while somebody asks for a drill; how far a
// backfill has come, backfill.jsonl; what the Sweeper knows, reconcile.json; and the
// locks poll.lock, collect.lock, backfill.lock, reconcile.lock and cutover.lock,
// each held by one process at a time.
package cutover

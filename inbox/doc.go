// Package inbox is the durable memory of a webhook receiver, on the database
// that its program has anyway: SQLite or PostgreSQL, through database/sql with
// the driver of the program's choice. It survives the process, and several
// processes can share it.
//
// # Two ways to use it
//
// As a [webhook.Deduper], an [Inbox] remembers what was processed. The reaction
// runs while the sender waits, and the answer says whether it succeeded:
//
//	webhook.NewHandler(secrets.All, react, webhook.WithDeduper(box))
//
// As an inbox it takes every verified event, commits it, and answers 200. A
// worker processes it afterwards, as long as that takes and as often as it
// needs:
//
//	http.Handle("POST /webhooks/alga", webhook.NewInboxHandler(secrets.All, box.Keep))
//	go box.Work(ctx, react, inbox.Work{})
//
// The second way is the better one where a reaction can take longer than the
// sender's 10 seconds or fails when another system is down: the sender gives up
// after its sixth attempt, the worker keeps what it could not do as a dead
// letter ([Inbox.DeadLetters], [Inbox.Replay]). An Inbox has one of the two jobs;
// programs that need both open two, with different prefixes.
//
// # What it promises
//
// What was answered with 200 is committed, and is processed at least once. A
// process that dies, at any moment, costs at most a second run of what it was
// doing, after the lease has ended. While the database does not answer, the
// handler answers 503, and the sender comes again.
//
// To be exact where it matters, do the effects in the database that the inbox
// is in, and call [Inbox.FinishTx] in the same transaction: effects and mark are
// committed together or not at all, and a worker whose lease was taken over
// cannot commit.
//
// Workers process different tickets in parallel, and the events of one ticket
// one after the other, the oldest by occurred_at first. An event that has to be
// repeated holds back those behind it, of its own ticket only. One that arrives
// after a newer one was done has Claim.Stale set.
//
// # The database
//
// Open creates three tables and their indexes, whose names begin with a prefix.
// SQLite should be opened with
//
//	_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)
//
// or what the driver has for it: without the first, two writers fail instead of
// waiting; without the last, a power cut can take back what was acknowledged.
// Open warns about both. PostgreSQL is as durable as synchronous_commit is set.
//
// Events are remembered for 35 days after they were done, longer than a sender
// can replay them, and their bodies are dropped when they are done. What expires
// is deleted along the way, a bounded number of rows at a time.
package inbox
